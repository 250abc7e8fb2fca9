"""STRINC, CXMI and the filter's targets: the dossier's worked numbers, and what each label adds."""

import math

import pytest

from common.experiments.context import Context
from common.experiments.errors import UserError
from projects.amber.data import SETS, Asked, Corpus, Hop, QuestionSet, text_world_set
from projects.amber.labels import (
    Judged,
    content_filter,
    cxmi,
    filter_demonstrations,
    judged_passages,
    sentence_cxmi,
    sigmoid,
    strinc,
    training_sets,
)
from projects.amber.prompts import PROMPTS
from projects.amber.settings import FilterTraining, Settings
from tests.projects.amber.scripted import Scripted, fields, search

NAN = math.nan


def test_strinc_is_a_lower_cased_substring():
    assert strinc("The capital of Veld is Orun.", ["orun"]) == 1
    assert strinc("The capital of Veld is Orun.", ["oru n"]) == 0
    assert strinc("The capital of Veld is Orun.", ["Ada", "ORUN"]) == 1


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


def test_cxmi_is_against_what_the_question_alone_makes_likely():
    log_probs = {("Who?", False): -4.0, ("Who?", True): -1.0, ("Where?", False): -3.0, ("Where?", True): -2.0}

    def score(asked):
        question = asked["prompt"].rsplit("Question: ", 1)[1]
        return [log_probs[question, "It rains." in asked["prompt"]]]

    values = sentence_cxmi(Scripted({"score": score}), ["Who?", "Where?"], ["Ada", "Orun"], ["It rains."] * 2)
    assert values == [3.0, 1.0]


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
        (judged([1, 0], [NAN] * 2, [False, True]), ["evidence"], ["S1."]),  # a label that is not wanted is not used
        (judged([1, 0], [NAN] * 2, [False, True]), ["strinc"], ["S0."]),
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


def test_every_wanted_answer_counts_and_evidence_is_where_the_corpus_states_it():
    sentences = {"a": ("Ada likes Bo.", "Ada sings."), "b": ("Ada likes Cy.",), "c": ("Ada sings.", "Ada likes tea.")}
    hop = Hop((("a", "Ada sings."),), "Ada", "")
    asked = Asked("1", "Whom does Ada like?", (("Bo",), ("Cy", "Cyrus")), (hop,), False)
    questions = QuestionSet("toy", (asked,), Corpus(sentences))
    lm = Scripted({"score": lambda asked: pytest.fail("CXMI is not wanted")})
    found = judged_passages(lm, [(questions, search(questions.corpus.texts))], 3, ["strinc", "evidence"])
    by_passage = {one.sentences: (one.strinc, one.evidence) for one in found}
    assert by_passage == {
        sentences["a"]: ((1, 0), (False, True)),
        sentences["b"]: ((1,), (False,)),
        sentences["c"]: ((0, 0), (False, False)),  # the words of the evidence, in a passage that is none
    }


def levels(demonstrations):
    """(fields, answer) of the demonstrations of either level."""
    return [
        [
            (fields(role, one.prompt[0]["content"]), one.answer)
            for one in demonstrations
            if one.prompt[0]["content"].startswith(PROMPTS[role].split("\n")[0])
        ]
        for role in ("chunk", "sentences")
    ]


def passages(useful, useless):
    """Judged passages; `useful` of them have an answer in their second sentence."""
    rows = [(f"Useful {i}.", f"Answer {i}.", 1) for i in range(useful)]
    rows += [(f"Useless {i}.", f"Noise {i}.", 0) for i in range(useless)]
    return [Judged(f"q{a}", f"query {a}", (a, b), (0, one), (5.0, 5.0), (False, False)) for a, b, one in rows]


def test_both_levels_are_shown_with_their_targets():
    training = FilterTraining(labels=["strinc", "cxmi"], margin=5.0)  # no CXMI is above it
    chunks, sentences = levels(filter_demonstrations(passages(8, 20), training))
    assert len(chunks) == 16
    for asked, answer in chunks:
        a, _ = asked["passage"].split(". ")
        assert asked == {"question": f"q{a}.", "query": f"query {a}.", "passage": asked["passage"]}
        assert answer == ("yes" if "Answer" in asked["passage"] else "no")
    assert sum(answer == "yes" for _, answer in chunks) == 8
    assert sum(answer == "none" for _, answer in sentences) == 8 // 4
    assert len(sentences) == 8 + 2
    for asked, answer in sentences:
        a, b = asked["passage"].split(". ")
        assert asked["query"] == f"query {a}."
        assert answer == (b if "Answer" in b else "none")


def test_the_sentence_level_is_shown_no_more_often_than_the_chunk_level():
    chunks, sentences = levels(filter_demonstrations(passages(12, 3), FilterTraining(labels=["strinc"])))
    assert len(chunks) == len(sentences) == 6


def test_an_untrained_filter_is_the_generator(tmp_path):
    context = Context(seed=0, folder=tmp_path)
    assert content_filter(Settings(filter=FilterTraining(train=False)), context, "some/base") == "some/base"
    assert not list(tmp_path.iterdir())


def test_training_questions_are_of_training_worlds_and_of_all_sets():
    settings = Settings()
    found = [questions for questions, _ in training_sets(settings, 2 * 2 * len(SETS), per_world=2)]
    assert [questions.name for questions in found] == [*SETS, *SETS]
    assert found[0] == text_world_set(settings.world, "squad", "train", 0, 2)
    assert found[len(SETS)] == text_world_set(settings.world, "squad", "train", 1, 2)


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
