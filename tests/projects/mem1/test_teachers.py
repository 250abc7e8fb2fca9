"""Teachers: what each keeps and answers, what faults do, and what the filter lets through."""

import random
from dataclasses import replace

import pytest

from common.experiments.errors import UserError
from common.models.microlm.demonstrations import Teaching, teach
from projects.mem1.data import Worlds
from projects.mem1.method import parse, state_of, well_formed
from projects.mem1.settings import TEACHERS, Imitation, Questions, Rules, Settings, TextWorld
from projects.mem1.teachers import HABITS, earned, imitated, teachers, trajectory

RULES = Rules()
TAGS = RULES.tags
SETTINGS = Settings(world=TextWorld(worlds=2), faults=0.0)


@pytest.fixture(scope="module")
def worlds():
    return Worlds(SETTINGS.world, Questions(), "train")


def played(worlds, name, objectives, seed, rules=RULES, **habits):
    rng = random.Random(seed)
    task = worlds.task(rng, objectives)
    return task, trajectory(rng, task, rules, replace(HABITS[name], **habits))


@pytest.mark.parametrize("objectives", [1, 3, 16])
def test_the_accumulating_teacher_is_right_within_its_budget(worlds, objectives):
    for seed in range(5):
        task, steps = played(worlds, "accumulating", objectives, seed)
        assert earned(task, steps, RULES) == objectives
        assert len(steps) == len(task.truth.queries) + 1 <= 2 * objectives + 2
        assert [step.query for step in steps[:-1]] == list(task.truth.queries)
        state = state_of(steps[-1].text, TAGS)
        assert ": via " not in state and all(gold in state for [gold] in task.golds)


def test_an_entity_on_the_way_is_noted_until_it_is_used(worlds):
    task, steps = next(
        (task, steps)
        for seed in range(50)
        for task, steps in [played(worlds, "accumulating", 1, seed)]
        if task.truth.questions[0].hops == 2
    )
    first, bridge = task.truth.questions[0].query.entities[0], task.truth.queries[1].split()[0]
    states = [state_of(step.text, TAGS) for step in steps]
    assert states == ["none", f"{first}: via {bridge}", f"{first}: {task.golds[0][0]}"]


def test_with_letters_a_state_names_questions_by_them(worlds):
    for seed in range(5):
        task, steps = played(worlds, "accumulating", 3, seed, Rules(lettered=True))
        golds = [gold for [gold] in task.golds]
        found = state_of(steps[-1].text, TAGS)
        assert found == "; ".join(f"{letter} {gold}" for letter, gold in zip("ABC", golds, strict=True))
        before = state_of(steps[-2].text, TAGS)
        assert (" via " in before) == (task.truth.questions[-1].hops == 2)


def test_there_are_letters_for_twenty_six_questions():
    questions = Questions(objectives=26)
    Settings(questions=questions, rules=Rules(lettered=True))
    with pytest.raises(UserError, match="26 questions at most"):
        Settings(questions=replace(questions, objectives=27), rules=Rules(lettered=True))


def test_the_forgetful_teacher_is_right_about_the_newest_question_alone(worlds):
    for seed in range(5):
        task, steps = played(worlds, "forgetful", 3, seed)
        assert all(";" not in state_of(step.text, TAGS) for step in steps)
        assert parse(steps[-1].text, TAGS).argument == f"unknown; unknown; {task.golds[-1][0]}"
        assert earned(task, steps, RULES) == 1


def test_the_full_teacher_forgets_its_state_and_answers_from_what_it_read(worlds):
    task, steps = played(worlds, "full", 3, 1)
    assert ";" not in state_of(steps[-1].text, TAGS)
    assert earned(task, steps, RULES) == 3


def test_the_premature_teacher_answers_sometimes_before_all_is_found(worlds):
    worth = [earned(*played(worlds, "premature", 4, seed), RULES) for seed in range(30)]
    assert 0 < sum(value < 4 for value in worth) < 30


def test_a_budget_that_is_too_short_ends_in_an_answer():
    task, steps = played(
        Worlds(SETTINGS.world, Questions(hops=[2]), "train"), "accumulating", 4, 1, rules=replace(RULES, turns="paper")
    )
    assert len(task.truth.queries) + 1 > len(steps) == 6  # the paper's budget at n = 4
    assert parse(steps[-1].text, TAGS).kind == "answer"
    assert "unknown" in parse(steps[-1].text, TAGS).argument
    assert "[1 turn left: answer now]" in steps[-2].read


def test_faults_cost_answers_and_some_break_tags(worlds):
    def right(faults):
        return sum(earned(*played(worlds, "accumulating", 3, seed, faults=faults), RULES) == 3 for seed in range(60))

    assert right(0.0) == 60
    assert 60 > right(0.12) > right(0.6)
    broken = [played(worlds, "accumulating", 3, seed, faults=0.5)[1][-1].text for seed in range(40)]
    assert 0 < sum(not well_formed(text, TAGS) for text in broken) < 40


def test_the_filter_keeps_trajectories_without_a_wrong_answer(worlds):
    clean = imitated(worlds, Imitation(trajectories=30, faults=0.0), RULES, 0)
    noisy = imitated(worlds, Imitation(trajectories=30, faults=0.4), RULES, 0)
    assert len(noisy) < len(clean)
    assert all(well_formed(shown.answer, TAGS) for shown in noisy)
    assert not any("unknown" in shown.answer for shown in noisy)
    assert {len(shown.prompt) for shown in noisy} == {1, 3}  # the task alone, or with the last turn
    with pytest.raises(UserError, match="none of 2 trajectories was right"):
        imitated(worlds, Imitation([16], trajectories=2, faults=1.0), RULES, 0)


def test_the_warm_start_shows_every_teacher_under_its_context(worlds):
    shown = teach(teachers(worlds, SETTINGS), Teaching(200, dict(TEACHERS)))
    by_source = {name: [one for one in shown if one.source == name] for name in TEACHERS}
    assert {name: len(own) for name, own in by_source.items()} == {n: 200 * w for n, w in TEACHERS.items()}
    assert max(len(one.prompt) for one in by_source["full"]) > 3
    assert all(len(one.prompt) <= 3 for name in TEACHERS if name != "full" for one in by_source[name])
    asked = [one.prompt[0]["content"].count("?") for one in by_source["accumulating"]]
    assert max(asked) == 16 and max(one.prompt[0]["content"].count("?") for one in by_source["full"]) == 3
    assert teach(teachers(worlds, SETTINGS), Teaching(200, dict(TEACHERS))) == shown
