"""What is taught follows from world truth, and the faults that are planted are what the critique says they are."""

import random

import pytest

from common.models.microlm.demonstrations import Teaching, teach
from projects.amber.prompts import NONE, PROMPTS
from projects.amber.settings import GENERATOR, Loop, Settings, TextWorld
from projects.amber.teachers import CORRECT, ROLES, Classroom, teachers
from tests.projects.amber.scripted import fields


@pytest.fixture(scope="module")
def room():
    return Classroom(TextWorld(train_worlds=3), Loop())


@pytest.fixture(scope="module")
def shown(room):
    return teach(teachers(room), Teaching(600, dict(GENERATOR)))


def of(shown, role):
    return [(fields(role, one.prompt[0]["content"]), one.answer) for one in shown if one.source == role]


def notes(text):
    return [] if text == NONE else text.splitlines()


def test_every_role_but_the_router_is_taught_and_the_same_values_give_the_same(room, shown):
    assert ROLES.keys() == GENERATOR.keys() == PROMPTS.keys() - {"route"}
    assert {one.source for one in shown} == set(ROLES)
    assert teach(teachers(Classroom(TextWorld(train_worlds=3), Loop())), Teaching(600, dict(GENERATOR))) == shown


def test_a_draft_keeps_what_is_held_and_adds_what_the_text_states(shown):
    grown = 0
    for asked, answer in of(shown, "draft"):
        held, now = notes(asked["memory"]), notes(answer)
        assert now[: len(held)] == held
        for note in now[len(held) :]:
            subject, _, value = note.split(" | ")
            assert subject in asked["text"]
            assert value.lower() in asked["text"].lower()
        grown += len(now) > len(held)
    assert 0.4 < grown / len(of(shown, "draft")) < 0.95


def test_critiques_name_the_fault_and_repairing_it_gives_the_refined_memory(shown):
    found = of(shown, "refine")
    faults = 0
    for asked, answer in found:
        draft, truth = notes(asked["draft"]), notes(answer)
        says = [asked["review"], asked["challenge"]]
        extra, lost = [n for n in draft if n not in truth], [n for n in truth if n not in draft]
        wanted = CORRECT
        if extra or lost:
            faults += 1
            wanted = (
                f"missing: {lost[0]}" if not extra else f"wrong: {extra[0]}" if lost else f"unsupported: {extra[0]}"
            )
        assert wanted in says
    assert 0.25 < faults / len(found) < 0.6
    assert any(asked["review"] != asked["challenge"] for asked, _ in found)  # one of them errs now and then


def test_the_challenger_tells_the_truth_whatever_the_review_says(shown):
    found = of(shown, "challenge")
    assert any(asked["review"] != answer for asked, answer in found)
    assert sum(asked["review"] == answer for asked, answer in found) > 0.6 * len(found)


def test_the_judge_is_taught_both_ways_and_without_the_answer(shown):
    said = [answer for _, answer in of(shown, "sufficient")]
    assert 0.3 < said.count("yes") / len(said) < 0.7
    assert all("Answer:" not in asked["question"] for asked, _ in of(shown, "sufficient"))


def test_new_queries_were_not_asked(shown):
    assert all(answer not in asked["asked"].split("; ") for asked, answer in of(shown, "query"))


def test_extracts_are_sentences_of_the_passage(shown):
    for asked, answer in of(shown, "sentences"):
        assert answer == NONE or all(part.strip(".") in asked["passage"] for part in answer.split(". "))
    said = [answer for _, answer in of(shown, "chunk")]
    assert 0.25 < said.count("yes") / len(said) < 0.75


def test_answers_from_passages_are_there_to_be_read(shown):
    for asked, answer in of(shown, "answer_passages"):
        if answer not in ("unknown", "yes", "no"):
            assert all(part.lower() in asked["passages"].lower() for part in answer.split("; "))


def test_validation_worlds_teach_other_names(room, shown):
    other = Classroom(TextWorld(), Loop(), split="validation", worlds=1)
    rng = random.Random(0)
    moment = next(m for _ in range(99) if (m := other.moment(rng, name="hotpotqa")))
    subject = moment.asked.hops[0].note.split(" | ")[0]
    assert not any(subject in one.prompt[0]["content"].split() for one in shown)


def test_defaults_teach_every_role():
    assert Settings().taught.weights.keys() == ROLES.keys()
