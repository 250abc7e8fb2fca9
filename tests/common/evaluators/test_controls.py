"""Control rows show what they say: nothing, all, the evidence, what a search finds, another question's memory."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.questions import make_question
from common.data.text_world.text import corpus as passages_of
from common.data.text_world.world import make_world
from common.evaluators.controls import CONTROLS, Case, Setup, Shown, by_retriever, shown, shuffle
from common.experiments.errors import UserError
from common.retrievers.bm25 import BM25


def words(text):
    return len(text.split())


def setup(**changes):
    """BM25 in both places, three passages."""
    search = by_retriever(BM25)
    return Setup(**{"k": 3, "tokens": words, "naive_rag": search, "bm25": search} | changes)


@pytest.fixture(scope="module")
def cases():
    """Twenty questions on one world, 60 passages."""
    rng, world = random.Random(3), make_world(3, "test")
    found = passages_of(rng, world, 60)
    corpus = {passage.id: passage.text for passage in found}
    cases = []
    while len(cases) < 20:
        question = make_question(rng, world, "hop")
        evidence = tuple(p.id for p in found if question and p.facts & set(question.evidence))
        if question and evidence:
            cases.append(Case(question.text, corpus, evidence))
    return cases


def test_no_retrieval_shows_nothing_and_full_context_all(cases):
    corpus = cases[0].corpus
    assert shown("no_retrieval", cases, setup()) == [Shown((), ())] * 20
    for seen in shown("full_context", cases, setup()):
        assert seen == Shown(tuple(corpus), tuple(corpus.values()))


def test_oracle_shows_exactly_the_evidence_in_the_order_of_the_corpus(cases):
    order = list(cases[0].corpus)
    for case, seen in zip(cases, shown("oracle", cases, setup()), strict=True):
        assert set(seen.ids) == set(case.evidence) and list(seen.ids) == sorted(seen.ids, key=order.index)
        assert seen.passages == tuple(case.corpus[id] for id in seen.ids)
    turned = Case("?", {"b": "B", "a": "A", "c": "C"}, ("a", "b"))
    assert shown("oracle", [turned], setup()) == [Shown(("b", "a"), ("B", "A"))]
    assert shown("oracle", [Case("?", {"a": "A"}, ())], setup()) == [Shown((), ())]
    with pytest.raises(ValueError, match=r"evidence \['z'\] of '\?' is not in its corpus"):
        shown("oracle", [Case("?", {"a": "A"}, ("a", "z"))], setup())


def test_full_context_keeps_the_last_passages_that_fit_whole_and_counts_the_rest():
    case = Case("?", {"a": "one two", "b": "three", "c": "four five six", "d": "seven"}, ())
    for window, kept in [(7, "abcd"), (6, "bcd"), (5, "bcd"), (4, "cd"), (3, "d"), (0, "")]:
        [seen] = shown("full_context", [case], setup(window=window))
        assert ("".join(seen.ids), seen.left_out) == (kept, 4 - len(kept))


def test_searches_are_those_of_the_retriever(cases):
    retriever = BM25()
    retriever.build(list(cases[0].corpus), list(cases[0].corpus.values()))
    expected = retriever.search([case.question for case in cases], 3).rankings()
    assert [list(seen.ids) for seen in shown("bm25", cases, setup())] == expected
    calls = []

    def last(cases, k):
        calls.append(k)
        return [list(case.corpus)[-k:] for case in cases]

    both = setup(k=2, naive_rag=last)
    assert [list(s.ids) for s in shown("naive_rag", cases, both)] == [list(cases[0].corpus)[-2:]] * 20
    assert shown("bm25", cases, both) != shown("naive_rag", cases, both)
    assert calls == [2, 2]


def test_each_corpus_has_its_own_index():
    rome, oslo = {"p": "Ada lives in Rome.", "q": "Bo."}, {"p": "Cy.", "q": "Ada lives in Oslo."}
    mixed = [Case("Where does Ada live?", corpus, ()) for corpus in (rome, oslo, rome)]
    seen = shown("bm25", mixed, setup(k=1))
    assert [s.passages for s in seen] == [("Ada lives in Rome.",), ("Ada lives in Oslo.",), ("Ada lives in Rome.",)]


@pytest.mark.parametrize("ids", [["a", "a"], ["a", "b", "c"]])
def test_a_search_that_gives_too_much_or_twice_is_refused(ids):
    case = Case("?", dict.fromkeys("abc", "x"), ())
    with pytest.raises(ValueError, match="not 2 different passages"):
        shown("bm25", [case], setup(k=2, bm25=lambda cases, k: [ids for _ in cases]))


def test_shuffled_memory_loses_the_evidence_and_keeps_the_tokens(cases):
    own, others = shown("naive_rag", cases, setup()), shown("shuffled", cases, setup())
    assert sorted(own, key=repr) == sorted(others, key=repr)  # the same memories: the same tokens in the table
    linked = [bool(set(case.evidence) & set(seen.ids)) for case, seen in zip(cases, own, strict=True)]
    assert sum(linked) > 10  # there was a link to lose
    for case, before, after in zip(cases, own, others, strict=True):
        assert not set(case.evidence) & set(after.ids)
        assert after.passages != before.passages
    assert shown("shuffled", cases, setup()) == others
    sizes = [[sum(map(words, seen.passages)) for seen in row] for row in (own, others)]
    drift = sum(abs(a - b) for a, b in zip(*sizes, strict=True)) / sum(sizes[0])
    turned = sizes[0][1:] + sizes[0][:1]
    blind = sum(abs(a - b) for a, b in zip(sizes[0], turned, strict=True)) / sum(sizes[0])
    assert drift < blind / 2  # and of each question nearly so: no plain rotation


MEMORIES = st.lists(st.lists(st.integers(0, 11), max_size=3, unique=True), min_size=2, max_size=6)


@given(MEMORIES, st.lists(st.integers(0, 11), min_size=6, max_size=6))
@settings(deadline=None)
def test_shuffle_finds_the_best_permutation_or_says_that_there_is_none(memories, evidence):
    """Against all permutations; passage i has i + 1 words."""
    from itertools import permutations

    corpus = {str(i): " ".join([f"w{i}"] * (i + 1)) for i in range(12)}
    seen = [Shown(tuple(map(str, m)), tuple(corpus[str(i)] for i in m)) for m in memories]
    cases = [Case(f"q{i}", corpus, (str(e),)) for i, e in enumerate(evidence[: len(seen)])]

    def fine(case, before, after):
        return before != after and not set(case.evidence) & set(after.ids)

    def drift(row):
        return sum(
            abs(sum(map(words, a.passages)) - sum(map(words, b.passages))) for a, b in zip(seen, row, strict=True)
        )

    possible = [row for row in permutations(seen) if all(map(fine, cases, seen, row))]
    if not possible:
        with pytest.raises(UserError, match="cannot shuffle"):
            shuffle(seen, cases, words)
        return
    row = shuffle(seen, cases, words)
    assert sorted(row, key=repr) == sorted(seen, key=repr) and all(map(fine, cases, seen, row))
    assert drift(row) == min(map(drift, possible))


def test_memories_of_one_conversation_go_to_another():
    talks = [{"D1:1": f"turn of talk {t}"} for t in range(3)]
    cases = [Case(f"{t}{i}", talks[t], ("D1:1",)) for t in range(3) for i in range(2)]
    notes = [Shown(("n1",), (f"note {case.question} in other words",)) for case in cases]
    for case, memory in zip(cases, shuffle(notes, cases, words), strict=True):
        assert memory.passages[0].split()[1][0] != case.question[0]


def test_mistakes():
    case = Case("who?", {"a": "A"}, ("a",))
    with pytest.raises(UserError, match="no control row 'oracel'; did you mean 'oracle'"):
        shown("oracel", [case], setup())
    with pytest.raises(UserError, match="cannot shuffle 1 memories: all that could go to the question 'who"):
        shuffle([Shown(("a",), ("A",))], [case], words)
    with pytest.raises(ValueError, match="0 memories for 1 cases"):
        shuffle([], [case], words)
    for name in CONTROLS:
        assert shown(name, [], setup()) == []
