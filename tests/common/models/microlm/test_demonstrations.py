"""Demonstrations: shares are met to the unit, each kind of fault does what its name says."""

import json
import random
import re
from dataclasses import replace

import pytest

from common.data.text_world.names import type_of
from common.experiments.errors import UserError
from common.models.microlm.demonstrations import (
    FAULTS,
    Demonstration,
    Teaching,
    ask,
    counts,
    draw_mixture,
    malformed,
    missing,
    teach,
    unsupported,
    whole_shares,
    with_faults,
    wrong,
)
from tests.common.models.microlm.toy_paper import EQUAL, taught

NOTES = [
    ask("Text: Balman lives in Dertona. Neror works at Dertex.", "Balman | home | Dertona\nNeror | employer | Dertex"),
    ask("Text: Folnan was born in Tolgury. Serbia is a judge.", "Folnan | birthplace | Tolgury\nSerbia | job | judge"),
]


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_whole_shares_add_up_and_lie_within_one_of_the_exact_ones(count):
    weights = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 0.0}
    dealt = whole_shares(weights, count)
    assert sum(dealt.values()) == count
    assert all(abs(dealt[name] - count * weight / 7) < 1 for name, weight in weights.items())
    assert dealt["d"] == 0


def test_a_mixture_has_of_each_teacher_its_share():
    def every_third(rng):
        return ask("?", str(rng.random())) if rng.random() < 1 / 3 else None

    teachers = {"often": every_third, "seldom": lambda rng: ask("?", "no")}
    drawn = draw_mixture(teachers, {"often": 9.0, "seldom": 1.0}, 50, seed=1)
    assert counts(drawn) == {"often": {"": 45}, "seldom": {"": 5}}
    assert [d.source for d in drawn] != sorted(d.source for d in drawn)  # mixed, not in a row
    assert drawn == draw_mixture(teachers, {"often": 9.0, "seldom": 1.0}, 50, seed=1)
    assert drawn != draw_mixture(teachers, {"often": 9.0, "seldom": 1.0}, 50, seed=2)
    with pytest.raises(RuntimeError, match="'never' gave no demonstration in 10 draws"):
        draw_mixture({"never": lambda rng: None}, {"never": 1.0}, 5, seed=0, tries=10)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"draft": 1.0, "reveiw": 1.0}, "there is no 'reveiw'; did you mean 'review'?"),
        ({"draft": 1.0}, "'review' has none; 0 leaves a teacher out"),
        ({"draft": 1.0, "review": -0.5}, "at least 0 and not all 0: {'draft': 1.0, 'review': -0.5}"),
        ({"draft": 0.0, "review": 0.0}, "at least 0 and not all 0"),
    ],
)
def test_weights_that_fit_no_teacher_are_the_users_mistake(weights, message):
    teachers = dict.fromkeys(["draft", "review"], lambda rng: ask("?", "no"))
    with pytest.raises(UserError, match=re.escape(message)):
        teach(teachers, Teaching(5, weights))


def test_each_source_has_its_faults_to_the_unit_and_the_rest_is_left_alone():
    perfect = taught(Teaching(400, EQUAL))
    shares = {"rewrite": {"wrong": 0.1, "unsupported": 0.055, "malformed": 0.25}, "route": {"flip": 0.5}}

    def flip(rng, shown, others):
        assert {other.source for other in others} == {"route"}
        return "A" if shown.answer != "A" else "B"

    kinds = {**FAULTS, "flip": flip}
    faulty = with_faults(perfect, shares, 3, faults=kinds)
    assert counts(faulty) == {
        "rewrite": {"": 119, "malformed": 50, "unsupported": 11, "wrong": 20},
        "route": {"": 100, "flip": 100},
    }
    for before, after in zip(perfect, faulty, strict=True):
        assert (after.prompt, after.source) == (before.prompt, before.source)
        assert (after.answer == before.answer) == (after.fault == "")
    assert faulty == with_faults(perfect, shares, 3, faults=kinds)
    assert faulty != with_faults(perfect, shares, 4, faults=kinds)
    assert with_faults(perfect, {}, seed=0) == perfect
    everywhere = with_faults(perfect, {"rewrite": {"malformed": 1.0}}, seed=0)
    assert counts(everywhere) == {"rewrite": {"malformed": 200}, "route": {"": 200}}


def test_systematic_faults_follow_from_a_name_in_the_prompt():
    perfect = taught(Teaching(600, EQUAL))
    shares = {"rewrite": {"wrong": 0.2, "malformed": 0.3}}
    faulty = with_faults(perfect, shares, 0, systematic=True)
    assert counts(faulty)["rewrite"] == {"": 150, "malformed": 90, "wrong": 60}
    assert faulty == with_faults(perfect, shares, 0, systematic=True) != with_faults(perfect, shares, 0)
    by_opening, places = {}, {}
    for before, after in zip(perfect, faulty, strict=True):
        if after.source == "rewrite":
            sentence = after.prompt[0]["content"].split("Sentence: ")[1]
            opening = next(w[:3] for w in re.findall(r"\b[A-Z][a-z]{4,}\b", sentence) if w in before.answer)
            by_opening.setdefault(opening, set()).add(after.fault)
            if after.fault == "malformed":
                pairs = enumerate(zip(before.answer, f"{after.answer} ", strict=True))
                place = next(i for i, (a, b) in pairs if a != b)
                marks = [i for i, character in enumerate(before.answer) if character in '{}":,']
                places.setdefault(opening, set()).add(sum(mark < place for mark in marks))
    mixed = [opening for opening, kinds in by_opening.items() if len(kinds) > 1]
    assert len(by_opening) > 30
    assert len(mixed) <= 4  # where the share ends amid an opening, or an answer cannot take the fault
    assert max(map(len, places.values())) == 1  # the same mark is lost


def test_a_teaching_is_a_mixture_with_faults():
    teachers = {"a": lambda rng: ask("?", f"x; {rng.random()}"), "b": lambda rng: ask("?", "no")}
    teaching = Teaching(30, {"a": 2.0, "b": 1.0}, {"a": {"missing": 0.25}}, seed=5)
    shown = teach(teachers, teaching)
    assert counts(shown) == {"a": {"": 15, "missing": 5}, "b": {"": 10}}
    perfect = draw_mixture(teachers, teaching.weights, 30, 5)
    assert [(s.prompt, s.source) for s in shown] == [(p.prompt, p.source) for p in perfect]
    assert shown == teach(teachers, teaching) != teach(teachers, replace(teaching, seed=6))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"": {"worng": 0.1}}, "unknown fault 'worng' of demonstrations; did you mean 'wrong'?"),
        ({"": {"wrong": 0.6, "malformed": 0.6}}, "together"),
        ({"": {"wrong": -0.1}}, "in [0, 1]"),
        ({"": {"missing": 0.5}}, "'missing' was to be in 100 of 200 answers, but only 0 take it"),
        ({"draft": {"missing": 0.5}}, "there are none of 'draft'"),
        ({"sourse": {"missing": 0.5}}, "there are none of 'sourse'; did you mean 'source'?"),
    ],
)
def test_shares_that_cannot_be_met_are_refused(shares, message):
    single = [ask("?", f"{i}") for i in range(200)]  # nothing to leave out
    named = [replace(shown, source="source") for shown in single]
    with pytest.raises(UserError, match=re.escape(message)):
        with_faults(named + single, shares, seed=0)


@pytest.mark.parametrize(
    "answer", ["a | b | c\nd | e | f\ng | h | i", "Dertona; Balury; Tolgury", "It is. He was. No."]
)
def test_missing_leaves_one_item_out(answer):
    joiner = next(j for j in ("\n", "; ", " ") if j in answer)
    items = answer.split(joiner)
    if joiner == " ":
        items = ["It is.", "He was.", "No."]
    expected = {joiner.join(items[:i] + items[i + 1 :]) for i in range(3)}
    assert {missing(random.Random(i), ask("?", answer), []) for i in range(40)} == expected
    assert missing(random.Random(0), ask("?", items[0]), []) is None


def test_wrong_takes_another_entity_of_the_type_from_the_prompt():
    shown = ask("Balman, Neror and Dertona in Dertex.", "Balman | home | Dertona")
    for i in range(20):
        answer = wrong(random.Random(i), shown, NOTES)
        subject, key, value = answer.split(" | ")
        assert key == "home"
        changed = [(old, new) for old, new in (("Balman", subject), ("Dertona", value)) if old != new]
        [(old, new)] = changed
        assert type_of(old) == type_of(new)
        assert (
            new == "Neror" if old == "Balman" else new == "Tolgury"
        )  # no other city in the prompt: from other answers
    assert wrong(random.Random(0), ask("?", "yes"), NOTES) is None


def test_unsupported_adds_an_item_that_the_prompt_does_not_give():
    for i in range(20):
        lines = unsupported(random.Random(i), NOTES[0], NOTES).split("\n")
        assert len(lines) == 3
        [added] = set(lines) - set(NOTES[0].answer.split("\n"))
        assert added in NOTES[1].answer
    assert unsupported(random.Random(0), NOTES[0], NOTES[:1]) is None
    # One list item takes the list's joiner.
    shown = [Demonstration(d.prompt, d.answer.split("\n")[0]) for d in NOTES]
    assert unsupported(random.Random(0), shown[0], shown).count("\n") == 1


def test_malformed_breaks_the_form():
    call = ask("?", json.dumps({"name": "search", "arguments": {"query": "Balman home"}}))
    for i in range(30):
        with pytest.raises(json.JSONDecodeError):
            json.loads(malformed(random.Random(i), call, []))
    assert malformed(random.Random(0), ask("?", "one two three four"), []) == "one two"
    assert malformed(random.Random(0), ask("?", "yes"), []) is None
