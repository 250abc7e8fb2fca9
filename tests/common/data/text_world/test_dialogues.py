"""Dialogues: the words of each turn state its facts, gold states equal a replay, questions follow from their turns."""

import itertools
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.text_world.dialogues import (
    ASIDES,
    CHANGES,
    CORRECTIONS,
    GREETINGS,
    REPLIES,
    TOLD,
    WELCOMES,
    WORDS,
    DialogueDials,
    make_dialogue,
)  # fmt: skip
from common.data.text_world.names import SPLITS, split_of
from common.data.text_world.questions import KINDS, UNKNOWN
from common.data.text_world.relations import BY_SUBJECT, FILLERS, RELATIONS
from common.data.text_world.text import note_line
from common.data.text_world.told import MemoryState
from tests.common.data.text_world.reference import answer, both_sides, has_type, pattern, read, replay

checked = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**9)
dials = st.builds(
    DialogueDials,
    sessions=st.integers(1, 8), exchanges=st.integers(1, 8), reveals=st.floats(0.1, 0.7), revisions=st.floats(0, 1),
    explicit=st.floats(0, 1), others=st.floats(0, 1), repeats=st.floats(0, 0.3),
)  # fmt: skip
ASKED = ("hop", "list", "now", "at", "first", "before", "when", "count", UNKNOWN)
OWN = [
    (name, pattern(text), sort)
    for sort, group in (("told", TOLD), ("correction", CORRECTIONS), ("change", CHANGES))
    for name, texts in group.items()
    for text in texts
]


def heard(dialogue, text):
    """(relation, object, old value or None) of each way to read what the user says of himself."""
    found = set()
    for said in {text, text[0].lower() + text[1:]}:
        for name, form, _ in OWN:
            match = form.fullmatch(said)
            if match and has_type(dialogue.world, match["o"], RELATIONS[name].object):
                found.add((name, match["o"], match.groupdict().get("p")))
    return found


def chained(parts):
    return list(itertools.chain.from_iterable(parts))


def test_there_are_words_for_every_relation_of_a_person():
    people = {relation.name: relation for relation in BY_SUBJECT["person"]}
    assert set(TOLD) == set(people)
    assert set(CORRECTIONS) == set(CHANGES) == {name for name, relation in people.items() if relation.changes}
    assert all("{o}" in text and "{p}" in text for texts in CORRECTIONS.values() for text in texts)
    assert all("{o}" in text and "{p}" not in text for texts in CHANGES.values() for text in texts)
    assert set(WORDS) >= {*GREETINGS, *WELCOMES, *REPLIES, *ASIDES, *(t for ts in TOLD.values() for t in ts)}


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_the_words_of_a_turn_state_its_facts_and_no_others(seed, split, d):
    dialogue = make_dialogue(seed, split, d)
    user = dialogue.user
    assert split_of(user) == split
    told = []
    for session in dialogue.sessions:
        assert len(session.turns) == 2 * d.exchanges + 2 and user in session.turns[0].text
        assert [turn.speaker for turn in session.turns] == ["user", "assistant"] * (d.exchanges + 1)
        for turn in session.turns:
            readings = {
                side for name, value, _ in heard(dialogue, turn.text) for side in both_sides_of(user, name, value)
            } if turn.speaker == "user" else set()  # fmt: skip
            if not turn.facts:
                assert not readings and not read(dialogue.world, turn.text)
                continue
            (fact,) = turn.facts
            if user in (fact.subject, fact.object):
                assert readings and readings <= {side[:3] for side in both_sides(fact)}
                assert fact.subject == user
                assert fact.day in (None, session.day) or fact in told
            else:
                assert fact in read(dialogue.world, turn.text)
            told.append(fact)
        shown = session.text.splitlines()
        assert shown[0] == f"Day {session.day}." and len(shown) == len(session.turns) + 1
        assert all(line.endswith(turn.text) for line, turn in zip(shown[1:], session.turns, strict=True))
    days = [session.day for session in dialogue.sessions]
    assert days == sorted(set(days)) and len(days) == d.sessions


def both_sides_of(user, name, value):
    return {(user, name, value), (value, name, user)} if RELATIONS[name].symmetric else {(user, name, value)}


def test_a_note_of_what_the_user_said_is_the_gold_line():
    """A reader writes the user, the key and what was named; some of these facts the world has from the other side."""
    turned = 0
    for seed in range(20):
        dialogue = make_dialogue(seed, "test", DialogueDials(others=0.0))
        for turn in dialogue.turns:
            for fact in turn.facts:
                written = {note_line(dialogue.user, name, value) for name, value, _ in heard(dialogue, turn.text)}
                assert set(MemoryState().after([fact]).lines()) <= written
                turned += fact not in dialogue.world.of(dialogue.user, fact.relation) and fact.day is None
    assert turned > 5


@checked
@given(seeds, dials)
def test_a_correction_takes_back_what_held(seed, d):
    dialogue = make_dialogue(seed, "train", d)
    holding = {}
    for turn in dialogue.turns:
        for fact in turn.facts:
            for name, value, old in heard(dialogue, turn.text):
                if old is not None:
                    assert holding[name] == old != value == fact.object and "Actually" in turn.text
            if fact.subject == dialogue.user and not RELATIONS[fact.relation].multi:
                holding[fact.relation] = fact.object


@checked
@given(seeds, st.sampled_from(SPLITS), dials)
def test_the_gold_state_after_each_session_is_a_replay(seed, split, d):
    dialogue = make_dialogue(seed, split, d)
    for number, memory in enumerate(dialogue.states(), 1):
        holds, superseded = replay(chained(dialogue.told(number)))
        assert set(memory.holds) == holds and set(memory.superseded) == superseded
        assert dialogue.state(number) == memory
    assert dialogue.state() == memory


@checked
@given(seeds, dials, st.data())
def test_questions_follow_from_the_turns_they_name(seed, d, data):
    dialogue = make_dialogue(seed, "test", d)
    upto = data.draw(st.integers(1, d.sessions))
    told = dialogue.told(upto)
    turns = dialogue.turns[: len(told)]
    for one in dialogue.ask(random.Random(seed), ASKED, 12, upto):
        question = one.question
        if question.answers == (UNKNOWN,):
            assert answer(question.query, chained(told)) == set()
            continue
        assert set(question.answers) == answer(question.query, chained(told))
        assert set(question.answers) == answer(question.query, question.evidence)
        for fact, places in zip(question.evidence, one.places, strict=True):
            assert places == tuple(i for i, turn in enumerate(turns) if fact in turn.facts) != ()


def test_every_kind_of_question_comes_up():
    asked = [one for seed in range(10) for one in make_dialogue(seed, "test").ask(random.Random(seed), ASKED, 40)]
    assert {one.question.kind for one in asked if one.question.evidence} == {*ASKED} - {UNKNOWN} <= set(KINDS)
    assert any(one.question.answers == (UNKNOWN,) for one in asked)


def share(d, measure, count=30):
    return sum(measure(make_dialogue(seed, "train", d)) for seed in range(count)) / count


def test_dials_are_frequencies():
    base = DialogueDials(sessions=3, exchanges=8)

    def telling(dialogue):
        return sum(bool(turn.facts) for turn in dialogue.turns) / 24

    def revised(dialogue):
        return len(dialogue.state().superseded)

    def foreign(dialogue):
        facts = [turn.facts[0] for turn in dialogue.turns if turn.facts]
        return sum(dialogue.user not in (fact.subject, fact.object) for fact in facts) / max(1, len(facts))

    def taken_back(dialogue):
        return sum(turn.text.startswith("Actually") for turn in dialogue.turns)

    for value in (0.2, 0.6):
        assert share(replace(base, reveals=value, repeats=0.0), telling) == pytest.approx(value, abs=0.08)
        assert share(replace(base, others=value, repeats=0.0), foreign) == pytest.approx(value, abs=0.1)
    assert share(replace(base, revisions=0.0), revised) == 0 < 1 < share(replace(base, revisions=1.0), revised)
    assert share(replace(base, explicit=0.0), taken_back) == 0
    own = replace(base, explicit=1.0, others=0.0)
    assert share(own, lambda dialogue: taken_back(dialogue) - revised(dialogue)) == 0
    assert share(replace(base, reveals=0.5, repeats=0.5), lambda dialogue: any_aside(dialogue)) < 0.1


def any_aside(dialogue):
    """Share of the user's turns, greetings apart, that are chit-chat."""
    own = [turn.text for session in dialogue.sessions for turn in session.turns[2::2]]
    return sum(text in (*ASIDES, *FILLERS) for text in own) / len(own)


def test_a_long_dialogue_goes_on_in_repeats():
    dialogue = make_dialogue(0, "test", DialogueDials(sessions=60, exchanges=10))
    assert len(dialogue.sessions) == 60 and len(dialogue.state().superseded) > 15
    assert not any(re.search(r"[{}]", turn.text) for turn in dialogue.turns)


@pytest.mark.parametrize(
    "dial, value",
    [("sessions", 0), ("sessions", 366), ("exchanges", 0), ("reveals", 1.5), ("revisions", -0.5), ("explicit", 2.0),
     ("others", -1.0), ("repeats", 1.01)],
)  # fmt: skip
def test_a_dial_out_of_range_is_named(dial, value):
    with pytest.raises(ValueError, match=rf"^{dial} "):
        DialogueDials(**{dial: value})


def test_shares_that_exceed_one_together_are_refused():
    with pytest.raises(ValueError, match=r"^reveals and repeats "):
        DialogueDials(reveals=0.8, repeats=0.3)
