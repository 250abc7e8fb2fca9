"""Gold passages: the rules on small examples, the counts on the real files (needs REPRO_DATA)."""

from collections import Counter

import pytest

from common.data import gold_passages
from common.data.catalogue import DATASETS
from common.data.gold_passages import GoldCorpus, GoldQuestion, load, named_titles, names_of, smaller
from common.data.rows import Passage
from common.experiments.errors import UserError

TITLES = ["The Half-Way Girl", "45 Fathers", "Aurora (2018 film)", "Kull", "Half-Way Girl", "Man on Fire (1987 film)",
          "Man on Fire (2004 film)", "Place of birth", "The Conqueror (novel)", "Catherine of Pomerania"]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Where was the director of film The Half-Way Girl born?", ["The Half-Way Girl"]),
        ("Is Catherine Of Pomerania older than 45 Fathers?", ["45 Fathers", "Catherine of Pomerania"]),
        ("Who made Aurora (2018 Film) and Kull?", ["Aurora (2018 film)"]),
        ("Who made Aurora?", []),
        ("Who made Man on Fire?", []),  # which of the two?
        ("Who made Man On Fire (2004 Film)?", ["Man on Fire (2004 film)"]),
        ("What is the place of birth of Kull The Conqueror?", []),
        ("Who wrote 45 Fathers's Revenge and 45 Fathers' end?", ["45 Fathers"]),
        ("Who wrote 145 Fathers?", []),
    ],
)
def test_titles_that_a_question_names(question, named):
    assert [TITLES[i] for i in named_titles(question, names_of(TITLES))] == named


def test_a_smaller_corpus_keeps_the_gold_and_the_same_others():
    passages = {f"p{i}": Passage("", str(i)) for i in range(50)}
    one, other = (
        GoldCorpus("c", passages, (GoldQuestion("q", "?", (), gold, tuple(passages), ""),))
        for gold in (("p7", "p9"), ("p30",))
    )
    small, like = smaller(one, 12), smaller(other, 11)
    assert len(small.passages) == 12 and {"p7", "p9"} <= set(small.ids)
    assert small.ids == sorted(small.ids, key=lambda name: int(name[1:]))
    assert len({*small.ids, "p30"} ^ {*like.ids, "p7", "p9"}) <= 2
    assert small.questions[0].candidates == tuple(small.ids)
    assert smaller(one, 99) == one
    with pytest.raises(ValueError, match="2 gold passages, which do not fit into 1"):
        smaller(one, 1)


@pytest.mark.parametrize(
    ("name", "passages", "questions", "gold"),
    [
        ("musique", 1890, 100, {2: 68, 3: 27, 4: 5}),
        ("hotpotqa", 994, 100, {2: 100}),
        ("2wikimultihopqa", 6119, 22, {1: 16, 2: 6}),
        ("2wikimultihopqa_cloze", 6119, 500, {1: 500}),
    ],
)
def test_counts(mirror, name, passages, questions, gold):
    [corpus] = load(name, mirror)
    assert (corpus.name, len(corpus.passages), len(corpus.questions)) == (name, passages, questions)
    assert Counter(len(question.gold) for question in corpus.questions) == gold
    assert all(set(question.gold) <= set(question.candidates) <= set(corpus.ids) for question in corpus.questions)
    assert len({question.id for question in corpus.questions}) == questions
    assert len(corpus.texts) == len(corpus.ids)


def test_musique_and_hotpotqa_show_few_candidates_with_the_answers_in_the_gold(mirror):
    for name, shown in (("musique", 20), ("hotpotqa", 10)):
        [corpus] = load(name, mirror)
        assert max(len(question.candidates) for question in corpus.questions) == shown
        found = 0
        for question in corpus.questions:
            gold = [corpus.passages[passage] for passage in question.gold]
            text = " ".join(f"{passage.title} {passage.text}" for passage in gold)
            found += any(answer.casefold() in text.casefold() for answer in question.answers)
        assert found > 85  # the rest: yes, no, and other spellings


def test_a_sentence_that_is_asked_for_is_not_in_its_passage(mirror):
    [whole], [cloze] = load("2wikimultihopqa", mirror), load("2wikimultihopqa_cloze", mirror)
    for question in cloze.questions:
        [gold] = question.gold
        assert question.question in whole.passages[gold].text
        assert len(cloze.passages[gold].text) < len(whole.passages[gold].text)
    asked = {question.gold[0] for question in cloze.questions}
    assert all(whole.passages[i] == cloze.passages[i] for i in whole.ids if i not in asked)
    assert load("2wikimultihopqa_cloze", mirror) == [cloze]


def test_locomo_evidence_is_read_where_it_can_be(mirror):
    corpora = load("locomo", mirror)
    assert (len(corpora), sum(len(corpus.passages) for corpus in corpora)) == (10, 5882)
    questions = [question for corpus in corpora for question in corpus.questions]
    assert len(questions) == 1982
    assert sum(len(question.gold) for question in questions) > 2800
    assert all(set(question.gold) <= set(corpus.ids) for corpus in corpora for question in corpus.questions)
    assert sum(not question.answers for question in questions) == 444


def test_a_wrong_name_and_missing_data_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="unknown set with gold passages 'hotpot'; did you mean 'hotpotqa'"):
        load("hotpot", None)
    with pytest.raises(UserError, match="REPRO_DATA is not set"):
        load("hotpotqa", None)
    assert set(gold_passages.SETS) == set(gold_passages.DATASETS)
    assert all(DATASETS[dataset.name] is dataset for dataset in gold_passages.DATASETS.values())
