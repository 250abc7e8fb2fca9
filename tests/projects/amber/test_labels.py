"""STRINC, CXMI and the filter's targets: the dossier's worked numbers, and what each label adds."""

import math

import pytest

from common.experiments.errors import UserError
from projects.amber.data import Asked, Corpus, Hop, QuestionSet
from projects.amber.labels import (
    Judged,
    cxmi,
    filter_demonstrations,
    judged_passages,
    sentence_cxmi,
    sigmoid,
    strinc,
)
from projects.amber.settings import FilterTraining
from tests.projects.amber.scripted import Scripted, search

NAN = math.nan


def test_strinc_is_a_lower_cased_substring():
    assert strinc("The capital of Veld is Orun.", ["orun"]) == 1
    assert strinc("The capital of Veld is Orun.", ["oru n"]) == 0


@pytest.mark.parametrize(
    ("without", "with_context", "value", "squashed"),
    [
        ((0.2, 0.5), (0.8, 0.5), math.log(4), 0.8),
        ((0.4, 0.5), (0.1, 0.5), -math.log(4), 0.2),
        ((0.5, 0.5), (0.9, 0.8), 1.0578, 0.7423),
    ],
)
def test_cxmi_of_the_worked_numbers(without, with_context, value, squashed):
    found = cxmi([math.log(p) for p in with_context], [math.log(p) for p in without])
    assert found == pytest.approx(value, abs=5e-5)
    assert sigmoid(found) == pytest.approx(squashed, abs=5e-5)


def test_cxmi_of_a_long_answer_does_not_underflow():
    assert cxmi([-2.0] * 1000, [-3.0] * 1000) == pytest.approx(1000)


def test_cxmi_scores_the_answer_under_one_template_with_and_without_the_sentence():
    lm = Scripted({"score": lambda asked: [-1.0 if "Orun." in asked["prompt"] else -3.0]})
    values = sentence_cxmi(lm, ["Where?", "Where?"], ["Orun", "Orun"], ["It is Orun.", "It rains."])
    assert values == [2.0, 0.0]


def judged(strincs, cxmis, evidence):
    sentences = tuple(f"S{i}." for i in range(len(strincs)))
    return Judged("q", "q", sentences, tuple(strincs), tuple(cxmis), tuple(evidence))


ALL = ["strinc", "cxmi", "evidence"]


@pytest.mark.parametrize(
    ("one", "labels", "target"),
    [
        (judged([1, 0, 1], [NAN] * 3, [False] * 3), ALL, ["S0.", "S2."]),  # every sentence with an answer
        (judged([0, 0, 0], [NAN] * 3, [False, True, False]), ALL, ["S1."]),  # the bridge has no answer
        (judged([0, 0, 0], [NAN] * 3, [False, True, False]), ["strinc"], []),  # STRINC alone throws it away
        (judged([0, 0, 0], [0.5, 2.0, 1.5], [False] * 3), ALL, ["S1."]),  # the best CXMI, once
        (judged([0, 0, 0], [0.5, 0.9, 0.1], [False] * 3), ALL, []),  # not above the margin
        (judged([0, 0, 0], [0.5, 2.0, 0.1], [False] * 3), ["strinc", "evidence"], []),
        (judged([1, 0, 0], [0.0, 9.0, 0.0], [False] * 3), ALL, ["S0."]),  # CXMI speaks where the others are silent
        (judged([0], [NAN], [False]), ALL, []),
    ],
)
def test_targets_by_label(one, labels, target):
    assert one.target(labels, margin=1.0) == target


def corpus_of_three():
    sentences = {"a": ("Veld has Ada as mayor.", "It rains."), "b": ("Ada comes from Orun.",), "c": ("Veld is old.",)}
    hops = (
        Hop((("a", "Veld has Ada as mayor."),), "Veld mayor", "Veld | mayor | Ada"),
        Hop((("b", "Ada comes from Orun."),), "Ada birthplace", "Ada | birthplace | Orun"),
    )
    asked = Asked("1", "Where was the mayor of Veld born?", (("Orun",),), hops, True)
    return QuestionSet("toy", (asked,), Corpus(sentences))


def test_passages_are_judged_under_the_question_and_under_each_right_query():
    questions = corpus_of_three()
    lm = Scripted({"score": lambda asked: [0.0 if "Veld is old." in asked["prompt"] else -5.0]})
    found = judged_passages(lm, [(questions, search(questions.corpus.texts))], 2, ALL)
    by_query = {(one.query, one.sentences): one for one in found}
    bridge = by_query["Where was the mayor of Veld born?", questions.corpus.sentences["a"]]
    assert bridge.evidence == (True, False)
    assert bridge.strinc == (0, 0)
    last = by_query["Ada birthplace", questions.corpus.sentences["b"]]
    assert last.strinc == (1,)
    assert all(math.isnan(value) for value in last.cxmi)  # not needed, not computed
    noise = by_query["Where was the mayor of Veld born?", questions.corpus.sentences["c"]]
    assert noise.cxmi == (5.0,)


def test_the_filter_is_shown_both_levels_with_balanced_chunks_and_no_bridge_is_lost():
    questions = corpus_of_three()
    lm = Scripted({"score": lambda asked: [-5.0]})
    found = judged_passages(lm, [(questions, search(questions.corpus.texts))], 3, ALL)
    shown = filter_demonstrations(found, FilterTraining())
    chunks = [one for one in shown if one.answer in ("yes", "no")]
    assert sorted(one.answer for one in chunks) == sorted(["yes", "no"] * (len(chunks) // 2))
    bridge = [one for one in chunks if "Veld has Ada" in one.prompt[0]["content"]]
    assert {one.answer for one in bridge} <= {"yes"}
    only = filter_demonstrations(found, FilterTraining(labels=["strinc"]))
    wrong = [one for one in only if one.answer == "no" and "Veld has Ada" in one.prompt[0]["content"]]
    assert wrong or not [one for one in only if "Veld has Ada" in one.prompt[0]["content"]]


def test_labels_of_one_kind_alone_and_unknown_labels_are_refused():
    with pytest.raises(ValueError, match="relevant and irrelevant"):
        filter_demonstrations([judged([1], [NAN], [False])], FilterTraining())
    with pytest.raises(UserError, match="did you mean 'strinc'"):
        judged_passages(Scripted({}), [], 3, ["strinv"])
