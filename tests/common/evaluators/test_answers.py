"""Answer metrics against worked numbers, other libraries' code and the papers' own rules written out plainly."""

import itertools
import json
import os
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.evaluators import answers
from common.evaluators.answers import (
    ANSWER_METRICS,
    LIST_METRICS,
    Item,
    compare,
    contains,
    contains_first,
    contains_normalised,
    contains_share,
    em,
    em_each,
    em_prefix,
    em_sum,
    estimate,
    f1,
    f1_each,
    f1_empty,
    f1_set,
    f1_stemmed,
    f1_stemmed_list,
    f1_sum,
    f1_yes_no,
    locomo_score,
    normalise,
    rouge_1,
    rouge_2,
    rouge_l,
    score,
    set_em,
    set_f1,
    str_em,
    str_hit,
)
from common.experiments.errors import UserError

WORDS = ["the", "a", "An", "and", "Orun", "orun,", "U.S.", "new", "york", "running", "runs", "yes", "no", "noanswer"]
TEXTS = st.one_of(
    st.lists(st.sampled_from([*WORDS, ";", "-", "’", "é", "1,000"]), max_size=8).map(" ".join),
    st.text(alphabet=string.ascii_letters + string.punctuation + " \n\tÉß’", max_size=24),
)
GOLDS = st.lists(TEXTS, min_size=1, max_size=3)
PARTS = st.lists(GOLDS, min_size=1, max_size=4)


# Worked numbers


@pytest.mark.parametrize(
    ("prediction", "gold", "prefix", "strict", "overlap"),
    [
        ("Paris, France", "Paris", 1, 0, 2 / 3),
        ("Parisian cafe", "Paris", 1, 0, 0),
        ("Tower", "Eiffel Tower", 0, 0, 2 / 3),
    ],
)
def test_strict_and_prefix_em_differ_as_published(prediction, gold, prefix, strict, overlap):
    assert em_prefix(prediction, [gold]) == prefix
    assert em(prediction, [gold]) == strict
    assert f1(prediction, [gold]) == pytest.approx(overlap)


def test_accuracy_by_containment_and_its_f1():
    assert contains("It is orun city", ["Orun"]) == 1
    assert contains("Or un", ["Orun"]) == 0
    assert f1("It is orun city", ["Orun"]) == 2 * (1 / 4) * 1 / (1 / 4 + 1)


def test_containment_variants_differ_where_they_should():
    assert contains("in the U.S", ["us"]) == 0  # no normalisation: "u.s" is not "us"
    assert contains_normalised("in the U.S", ["us"]) == 1
    assert contains("Bo", ["Ada", "Bo"]) == 1
    assert contains_first("Bo", ["Ada", "Bo"]) == 0


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_gold_that_says_nothing_is_found_where_nothing_is_said(blank):
    for metric in (em, em_prefix, contains, contains_first, contains_normalised):
        assert metric("Orun is a city", [blank]) == 0
        assert metric(blank, [blank]) == metric("", [blank]) == 1
    assert contains("Orun is a city", [blank, "city"]) == 1
    assert contains_normalised("Orun is a city", ["The"]) == em_prefix("Orun is a city", ["The"]) == 0  # an article
    assert contains("the city", ["the"]) == 1  # a word of its own
    assert (str_em("Orun", [[blank], ["Orun"]]), contains_share("Orun", [[blank], ["Orun"]])) == (1 / 2, 1 / 2)
    assert str_hit("Orun", [[blank], ["Orun"]]) == 0


def test_f1_counts_words_as_often_as_they_occur_in_both():
    assert f1("united states", ["United States of America"]) == pytest.approx(2 / 3)
    assert f1("new new york", ["new york"]) == pytest.approx(0.8)
    assert f1_set("new new york", ["new york"]) == 1  # a set counts each word once


def test_squad_versions_differ_on_empty_answers_alone():
    assert (f1("", ["the"]), f1_empty("", ["the"])) == (0, 1)
    assert (f1("Orun", [""]), f1_empty("Orun", [""])) == (0, 0)


def test_yes_and_no_earn_nothing_by_overlap():
    assert f1_yes_no("yes, both", ["yes"]) == 0 < f1("yes, both", ["yes"])
    assert f1_yes_no("No", ["no way out"]) == 0
    assert f1_yes_no("the yes", ["Yes."]) == 1
    assert f1_yes_no("no way", ["no way out"]) == pytest.approx(0.8)  # only a whole answer is closed


def test_stemmed_f1_drops_and_and_joins_forms():
    assert f1_stemmed("running and painting", ["runs, paints"]) == 1
    assert f1("running and painting", ["runs, paints"]) == 0
    assert f1_stemmed("and", ["and"]) == 0  # nothing is left


def test_locomo_multi_hop_takes_the_best_part_for_each_gold_part():
    assert f1_stemmed_list("pottery, swimming, camping", ["camping, pottery"]) == 1
    assert f1_stemmed_list("camping", ["camping, big dogs"]) == pytest.approx(1 / 2)
    assert f1_stemmed("camping", ["camping, big dogs"]) == pytest.approx(2 * 1 / (1 + 3))


def test_locomo_score_by_category():
    gold = "camping, big dogs; since she said so"
    assert locomo_score("camping", gold, 1) == f1_stemmed_list("camping", [gold])
    assert locomo_score("camping", gold, 2) == locomo_score("camping", gold, 4) == f1_stemmed("camping", [gold])
    assert locomo_score("camping", gold, 3) == f1_stemmed("camping", ["camping, big dogs"])
    assert locomo_score("This is Not Mentioned.", "dogs", 5) == 1
    assert locomo_score("dogs", "dogs", 5) == 0
    with pytest.raises(ValueError, match="not 6"):
        locomo_score("", "", 6)


def test_asqa_scores():
    parts = [["Ada Lo", "Ada"], ["Bo"], ["Cy Ri"]]
    outputs = ["Ada and Bo did.", "Cy-Ri? No: Cy Ri, the Bo and Ada"]
    assert [str_em(o, parts) for o in outputs] == [2 / 3, 1]
    assert [str_hit(o, parts) for o in outputs] == [0, 1]
    assert sum(str_em(o, parts) for o in outputs) / 2 == pytest.approx(0.8333, abs=1e-4)


def test_answers_in_their_places():
    parts = [["Paris"], ["1991", "1990"]]
    assert em_sum("Paris; 1990", parts) == 2
    assert em_sum("The Paris; nineteen", parts) == 1
    assert em_sum("1990; Paris", parts) == 0
    assert em_sum("Paris; 1990; x", parts) == f1_sum("Paris", parts) == 0
    assert em_each("The Paris; nineteen", parts) == 1 / 2
    assert f1_sum("Paris France; 1990", parts) == pytest.approx(1 + 2 / 3)
    assert f1_each("Paris France; 1990", parts) == pytest.approx((1 + 2 / 3) / 2)


def test_lists_in_any_order():
    parts = [["Ada"], ["Bo", "Bo Ri"], ["Cy"]]
    assert set_f1("cy; Bo Ri; the Ada;", parts) == set_em("cy; Bo Ri; the Ada;", parts) == 1
    assert set_f1("Ada; ada; Zed", parts) == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert set_f1("Bo; Bo Ri; Zed", parts[1:2]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))  # aliases count twice
    assert set_em("Ada; Bo; Cy; Zed", parts) == set_f1("", parts) == set_f1("Zed", parts) == 0
    assert contains_share("ADA knew Cy", parts) == 2 / 3


def test_rouge_by_hand():
    # the cat sat | a cat sat here: 2 common words of 3 and 4, 1 common pair of 2 and 3
    assert rouge_1("the cat sat", ["a cat sat here"]) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert rouge_2("the cat sat", ["a cat sat here"]) == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert rouge_l("sat cat", ["cat sat"]) == 1 / 2 < rouge_1("sat cat", ["cat sat"]) == 1
    assert rouge_1("walking", ["walks"]) == 1 and rouge_1("cats", ["dogs"]) == 0  # stems
    assert rouge_l("", ["cat"]) == rouge_2("cat", ["cat"]) == 0


# Independent references


@given(TEXTS, GOLDS)
@settings(deadline=None)
def test_squad_family_equals_the_scorer_of_transformers(prediction, golds):
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

    assert normalise(prediction) == normalize_answer(prediction)
    assert em(prediction, golds) == max(compute_exact(gold, prediction) for gold in golds)
    assert f1_empty(prediction, golds) == pytest.approx(max(compute_f1(gold, prediction) for gold in golds))


def plain_f1(prediction, gold):
    """Precision and recall by crossing out one gold word for each predicted word."""
    left, same = list(gold), 0
    for word in prediction:
        if word in left:
            left.remove(word)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(gold)
    return 2 * precision * recall / (precision + recall)


@given(TEXTS, TEXTS)
def test_f1_crosses_out_words(prediction, gold):
    p, g = normalise(prediction).split(), normalise(gold).split()
    assert f1(prediction, [gold]) == pytest.approx(plain_f1(p, g))
    closed = any(side in (["yes"], ["no"], ["noanswer"]) for side in (p, g))
    assert f1_yes_no(prediction, [gold]) == pytest.approx(0.0 if closed and p != g else plain_f1(p, g))


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_locomo_scores_as_its_script_reads(prediction, gold):
    from nltk.stem import PorterStemmer

    def stems(text):
        text = "".join(c for c in text.replace(",", "").lower() if c not in string.punctuation)
        return [PorterStemmer().stem(word) for word in re.sub(r"\b(a|an|the|and)\b", " ", text).split()]

    assert f1_stemmed(prediction, [gold]) == pytest.approx(plain_f1(stems(prediction), stems(gold)))
    table = [[plain_f1(stems(p), stems(g)) for p in prediction.split(",")] for g in gold.split(",")]
    assert f1_stemmed_list(prediction, [gold]) == pytest.approx(sum(map(max, table)) / len(table))


def plain_rouge(kind, prediction, gold, stem):
    """ROUGE from its definition, on lower-cased alphanumeric words; words of more than three letters are stemmed."""
    p, g = (
        [stem(word) if len(word) > 3 else word for word in re.sub("[^a-z0-9]+", " ", text.lower()).split()]
        for text in (prediction, gold)
    )
    if kind == "l":
        same = next(
            n
            for n in range(min(len(p), len(g)), -1, -1)
            if set(itertools.combinations(p, n)) & set(itertools.combinations(g, n))
        )
        total = (len(p), len(g))
    else:
        p, g = ([tuple(words[i : i + kind]) for i in range(len(words) - kind + 1)] for words in (p, g))
        same, total = len(p) - len(leftover(p, g)), (len(p), len(g))
    return 2 * same / sum(total) if same else 0.0


def leftover(p, g):
    rest, g = [], list(g)
    for gram in p:
        if gram in g:
            g.remove(gram)
        else:
            rest.append(gram)
    return rest


@given(*[st.lists(st.sampled_from([*WORDS, "a-b", "walking", "walks"]), max_size=7).map(" ".join)] * 2)
@settings(deadline=None, max_examples=60)
def test_rouge_from_its_definition(prediction, gold):
    from nltk.stem import PorterStemmer

    stem = PorterStemmer().stem
    assert rouge_1(prediction, [gold]) == pytest.approx(plain_rouge(1, prediction, gold, stem))
    assert rouge_2(prediction, [gold]) == pytest.approx(plain_rouge(2, prediction, gold, stem))
    assert rouge_l(prediction, [gold]) == pytest.approx(plain_rouge("l", prediction, gold, stem))


# What holds for every metric


@given(TEXTS, GOLDS)
@settings(deadline=None, max_examples=40)
def test_best_over_golds_in_any_order_and_between_0_and_1(prediction, golds):
    for name, metric in ANSWER_METRICS.items():
        value = metric(prediction, golds)
        assert 0 <= value <= 1
        if name != "contains_first":
            assert value == max(metric(prediction, [gold]) for gold in golds) == metric(prediction, golds[::-1])


@given(TEXTS, PARTS)
@settings(deadline=None, max_examples=60)
def test_list_metrics_are_bounded_and_nested(prediction, parts):
    for name, metric in LIST_METRICS.items():
        assert 0 <= metric(prediction, parts) <= (len(parts) if name.endswith("_sum") else 1) + 1e-12
    assert str_hit(prediction, parts) <= str_em(prediction, parts)
    assert em_sum(prediction, parts) <= f1_empty_sum(prediction, parts)
    assert set_em(prediction, parts) <= set_f1(prediction, parts)
    assert set_f1(prediction, parts) == set_f1(prediction, parts[::-1])


def f1_empty_sum(prediction, parts):
    given_answers = prediction.split(";")
    if len(given_answers) != len(parts):
        return 0
    return sum(map(f1_empty, given_answers, parts))


@given(TEXTS, GOLDS)
def test_variants_are_ordered(prediction, golds):
    assert em(prediction, golds) <= em_prefix(prediction, golds) <= contains_normalised(prediction, golds)
    assert em(prediction, golds) <= f1_empty(prediction, golds)
    assert f1_yes_no(prediction, golds) <= f1(prediction, golds) <= f1_empty(prediction, golds)


@pytest.mark.parametrize("name", [*ANSWER_METRICS, *LIST_METRICS])
def test_no_gold_is_a_mistake_and_so_is_a_bare_string(name):
    metric = (ANSWER_METRICS | LIST_METRICS)[name]
    assert metric.__doc__ and metric.__name__ == name
    for golds in ([], "Ada"):
        with pytest.raises(ValueError, match="at least one"):
            metric("Ada", golds)


# Items


ITEMS = [Item(f"q{i}", text, (("Orun", "orun city"),)) for i, text in enumerate(["Orun", "It is Orun", "Veld", ""])]


def test_items_keep_what_was_said_and_their_values():
    scored = score(ITEMS, ["em", "contains", "str_em"])
    assert [s.id for s in scored] == ["q0", "q1", "q2", "q3"]
    assert answers.values(scored, "contains") == [1, 1, 0, 0]
    row = json.loads(json.dumps(scored[1].row()))
    assert row == {
        "id": "q1",
        "prediction": "It is Orun",
        "golds": [["Orun", "orun city"]],
        "scores": {"em": 0, "contains": 1, "str_em": 1},
    }
    found = estimate(scored, "contains")
    assert found.mean == 0.5 and 0 <= found.low < 0.5 < found.high <= 1 and found.n == 4


def test_methods_are_paired_by_question_whatever_their_order():
    gold = (("Orun",),)
    a = score([Item(f"q{i}", "Veld" if i == 3 else "Orun", gold) for i in reversed(range(12))], ["em"])
    b = score([Item(f"q{i}", "Orun" if i == 3 else "Veld", gold) for i in range(12)], ["em"])
    difference = compare(a, b, "em")
    assert difference.mean == pytest.approx(10 / 12)
    assert difference.p_value == pytest.approx(2 * (1 + 12) / 2**12)  # 11 for a and 1 for b, of 12 that differ
    with pytest.raises(ValueError, match="not of the same questions"):
        compare(a, b[1:], "em")


def test_mistakes_with_items():
    with pytest.raises(UserError, match="no answer metric 'f1_stem'; did you mean 'f1_stemmed'"):
        score(ITEMS, ["em", "f1_stem"])
    with pytest.raises(ValueError, match="share the id 'q0'"):
        score([ITEMS[0], ITEMS[0]], ["em"])
    with pytest.raises(ValueError, match=r"'em' is of one wanted answer, item 'l' has 2: use a list metric"):
        score([Item("l", "Ada", (("Ada",), ("Bo",)))], ["em"])
    assert score([], ["em"]) == []


@pytest.mark.skipif(not os.environ.get("REPRO_DATA"), reason="REPRO_DATA names no data mirror")
def test_metrics_rank_real_answers_as_their_judge_did():
    from common.data.locomo import load_grades

    grades = load_grades(Path(os.environ["REPRO_DATA"]))
    for metric in (f1_stemmed, f1_set, rouge_l):
        by_verdict = {
            verdict: [metric(g.answer, [g.gold]) for g in grades if g.correct is verdict] for verdict in (True, False)
        }
        means = {verdict: sum(values) / len(values) for verdict, values in by_verdict.items()}
        assert means[True] > 2 * means[False]
