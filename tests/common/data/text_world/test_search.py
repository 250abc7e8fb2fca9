"""Search: the oracle's queries bring the evidence, the ranking is BM25, answers and budgets are checked."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.names import SPLITS
from common.data.text_world.questions import make_question
from common.data.text_world.relations import RELATIONS
from common.data.text_world.search import (
    Episode,
    SearchEnvironment,
    check,
    gold_places,
    lexical_search,
    make_episode,
    oracle_queries,
)  # fmt: skip
from common.data.text_world.text import Passage, Sentence, corpus
from common.data.text_world.world import Dials, make_world
from tests.common.data.text_world.reference import answer, objects, read

checked = settings(derandomize=True, deadline=None, max_examples=15)
seeds = st.integers(0, 10**9)


def library(seed, split="test", count=120):
    world = make_world(seed, split, Dials(people=24, cities=8, companies=6, density=0.5))
    return world, corpus(random.Random(seed), world, count)


@checked
@given(seeds, st.sampled_from(SPLITS), st.integers(1, 8))
def test_the_gold_queries_answer_every_question(seed, split, count):
    world, passages = library(seed, split)
    retrieve = lexical_search(passages, 4)
    episode = make_episode(random.Random(seed), world, retrieve, count)
    starts = [question.query.entities[0] for question in episode.questions]
    assert len(set(starts)) == count and episode.turns >= 2 * count + 2
    environment = SearchEnvironment(episode, retrieve)
    brought = [passage for query in episode.queries for passage in environment.search(query)]
    readings = [fact for passage in brought for s in passage.sentences for fact in s.facts]
    assert all(set(s.facts) <= read(world, s.text) for passage in brought for s in passage.sentences)
    for question in episode.questions:
        assert answer(question.query, readings) >= set(question.answers)
    assert environment.answer(episode.answer) == (True,) * count and environment.done


@checked
@given(seeds)
def test_gold_places_are_where_the_text_states_the_evidence_and_nowhere_else(seed):
    world, passages = library(seed)
    rng = random.Random(seed)
    for kind in ("hop", "list", "same", "before"):
        question = make_question(rng, world, kind, 1)
        if question is None:
            continue
        places = gold_places(question, passages)
        for fact, found in zip(question.evidence, places, strict=True):
            said = {
                (i, j) for i, p in enumerate(passages) for j, s in enumerate(p.sentences) if fact in read(world, s.text)
            }  # fmt: skip
            assert set(found) == said != set()


@checked
@given(seeds)
def test_distractors_lack_the_evidence_and_do_not_answer(seed):
    world, passages = library(seed)
    question = make_question(random.Random(seed), world, "hop", 1)
    if question is None:
        return
    gold = {i for places in gold_places(question, passages) for i, _ in places}
    left = [p for i, p in enumerate(passages) if i not in gold]
    said = {fact for passage in left for s in passage.sentences for fact in read(world, s.text)}
    assert not said & set(question.evidence)
    assert answer(question.query, list(said)) != set(question.answers) or len(world.of(*question.evidence[0][:2])) > 1


def bm25(query: list[str], text: list[str], texts: list[list[str]], k1: float = 1.2, b: float = 0.75) -> float:
    """The equation, word by word (Robertson and Zaragoza, 2009), with an inverse document frequency above 0."""
    score = 0.0
    for word in set(query):
        having = sum(word in other for other in texts)
        rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        times = text.count(word)
        score += rarity * times * (k1 + 1) / (times + k1 * (1 - b + b * len(text) / statistics.mean(map(len, texts))))
    return score


def test_the_ranking_is_bm25():
    _, passages = library(5)
    texts = [f"{p.title} {p.text}".lower().replace(".", "").replace(",", "").split() for p in passages]
    retrieve = lexical_search(passages, 10)
    for passage in passages[::11]:
        query = f"{passage.title} mayor employer home"
        scores = [round(bm25(query.lower().split(), text, texts), 9) for text in texts]
        best = sorted((i for i in range(len(passages)) if scores[i] > 0), key=lambda i: (-scores[i], i))[:10]
        assert [scores[passages.index(p)] for p in retrieve(query)] == [scores[i] for i in best]


def test_search_leaves_out_what_shares_no_word_and_breaks_ties_by_place():
    passages = [Passage(str(i), "", (Sentence(text),)) for i, text in enumerate(("red fish.", "a dog", "Fish red"))]
    assert [p.id for p in lexical_search(passages)("RED fish!")] == ["0", "2"]
    assert lexical_search(passages)("nothing") == [] == lexical_search([])("red")
    with pytest.raises(ValueError, match=r"^k "):
        lexical_search(passages, 0)


def episode_of(count=3, **more) -> tuple[Episode, list[Passage]]:
    world, passages = library(1)
    return make_episode(random.Random(1), world, lexical_search(passages, 4), count, **more), passages


def test_answers_are_checked_one_by_one():
    episode, _ = episode_of()
    golds = [question.answer for question in episode.questions]
    assert check("; ".join(golds), episode) == (True, True, True)
    assert check(f" {golds[0].upper()};wrong ; {golds[2]}. ", episode) == (True, False, True)
    assert check("; ".join(golds[:2]), episode) == check("; ".join([*golds, "more"]), episode) == (False,) * 3
    assert check("", episode) == (False,) * 3
    assert check(f"{golds[1]}; {golds[0]}; {golds[2]}", episode)[2]


def test_any_retriever_may_be_plugged_in_and_turns_run_out():
    episode, passages = episode_of(turns=20)
    asked = []
    environment = SearchEnvironment(episode, lambda query: asked.append(query) or passages[:2])
    for left in range(19, -1, -1):
        assert not environment.done and environment.search("x") == passages[:2] and environment.turns_left == left
    assert environment.done and asked == ["x"] * 20
    for act in (environment.search, environment.answer):
        with pytest.raises(RuntimeError, match="over"):
            act("x")


def test_an_answer_ends_the_episode():
    episode, passages = episode_of()
    environment = SearchEnvironment(episode, lexical_search(passages))
    assert environment.answer("nonsense") == (False,) * 3
    with pytest.raises(RuntimeError, match="over"):
        environment.search("x")


def test_oracle_queries_name_the_entity_reached_and_the_key():
    world, _ = library(2)
    questions = [q for seed in range(150) if (q := make_question(random.Random(seed), world, "hop", 3))]
    assert any(fact.relation == "spouse" for q in questions for fact in q.evidence)
    for question in questions:
        entity = question.query.entities[0]
        for relation, query in zip(question.query.relations, oracle_queries(question), strict=True):
            assert query == f"{entity} {RELATIONS[relation].key}"
            (entity,) = objects(world.all_facts(), entity, relation)
        assert entity == question.answer
    pair = next(q for q in (make_question(random.Random(i), world, "same") for i in range(50)) if q)
    with pytest.raises(ValueError, match="not 'same'"):
        oracle_queries(pair)


@pytest.mark.parametrize(
    "dial, more", [("count", {"count": 0}), ("count", {"count": 500}), ("hops", {"hops": ()}), ("turns", {"turns": 2})]
)
def test_what_cannot_be_is_named(dial, more):
    with pytest.raises(ValueError, match=rf"^{dial} must"):
        episode_of(**more)


def test_a_retriever_that_brings_nothing_is_noticed():
    world, _ = library(3)
    with pytest.raises(ValueError, match="no more questions were found"):
        make_episode(random.Random(0), world, lambda query: [], 1)
