"""Teachers: what each keeps and answers, what faults do, and what the filter lets through."""

import random
from dataclasses import replace

import pytest

from common.experiments.errors import UserError
from common.models.microlm.demonstrations import Teaching, teach
from projects.mem1.data import Worlds
from projects.mem1.method import parse, state_of, well_formed
from projects.mem1.settings import READING, TEACHERS, Imitation, Questions, Rules, Settings, TextWorld
from projects.mem1.teachers import HABITS, earned, imitated, performed, reading, right, teachers, trajectory

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
        notes = state.split("; ")
        assert [note.split(": ")[1] for note in notes] == [gold for [gold] in task.golds]
        assert [note.split()[0] for note in notes] == [q.query.entities[0] for q in task.truth.questions]


def test_an_entity_on_the_way_is_noted_until_it_is_used(worlds):
    task, steps = next(
        (task, steps)
        for seed in range(50)
        for task, steps in [played(worlds, "accumulating", 1, seed)]
        if task.truth.questions[0].hops == 2
    )
    first, second = task.truth.queries
    start, bridge = first.split()[0], second.split()[0]
    states = [state_of(step.text, TAGS) for step in steps]
    assert start != bridge
    assert states == ["none", f"{first}: {bridge}", f"{start} {second}: {task.golds[0][0]}"]


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
    def answered(faults):
        return sum(earned(*played(worlds, "accumulating", 3, seed, faults=faults), RULES) == 3 for seed in range(60))

    assert answered(0.0) == 60
    assert 60 > answered(0.12) > answered(0.6)
    broken = [played(worlds, "accumulating", 3, seed, faults=0.5)[1][-1].text for seed in range(40)]
    assert 0 < sum(not well_formed(text, TAGS) for text in broken) < 40


def test_the_filter_keeps_trajectories_without_a_wrong_answer(worlds):
    clean = imitated(worlds, Imitation(trajectories=30, faults=0.0), RULES, 0, performed, right)
    noisy = imitated(worlds, Imitation(trajectories=30, faults=0.4), RULES, 0, performed, right)
    assert len(noisy) < len(clean)
    assert all(well_formed(shown.answer, TAGS) for shown in noisy)
    assert not any("unknown" in shown.answer for shown in noisy)
    assert {len(shown.prompt) for shown in noisy} == {1, 3}  # the task alone, or with the last turn
    with pytest.raises(UserError, match="none of 2 trajectories was right"):
        imitated(worlds, Imitation([16], trajectories=2, faults=1.0), RULES, 0, performed, right)


def test_the_warm_start_shows_every_teacher_under_its_context(worlds):
    shown = teach(teachers(worlds, SETTINGS), Teaching(200, dict(TEACHERS)))
    by_source = {name: [one for one in shown if one.source == name] for name in TEACHERS}
    assert {name: len(own) for name, own in by_source.items()} == {n: 200 * w for n, w in TEACHERS.items()}
    assert max(len(one.prompt) for one in by_source["full"]) > 3
    assert all(len(one.prompt) <= 3 for name in TEACHERS if name != "full" for one in by_source[name])
    asked = [one.prompt[0]["content"].count("?") for one in by_source["accumulating"]]
    assert max(asked) == 16 and max(one.prompt[0]["content"].count("?") for one in by_source["full"]) == 3
    assert teach(teachers(worlds, SETTINGS), Teaching(200, dict(TEACHERS))) == shown


def test_the_last_turn_is_shown_as_often_as_is_asked_for(worlds):
    alone = Teaching(100, {name: float(name == "accumulating") for name in TEACHERS})

    def answers(share):
        shown = teach(teachers(worlds, replace(SETTINGS, taught_answers=share, taught_pruned=[8])), alone)
        return sum(parse(one.answer, TAGS).kind == "answer" for one in shown)

    assert answers(1.0) == 100
    assert 45 < answers(0.5) < 70  # and one turn in thirteen of the others
    assert answers(0.0) < 20


def test_a_reading_notes_what_several_queries_found_and_goes_on_as_a_teacher_does():
    """By hand: every note is of the last state, or of a fact that was sought and stands in the observation; what the
    first fact of two hops leads to is asked next."""
    settings = replace(SETTINGS, world=replace(SETTINGS.world, style="notes"), rules=Rules(instructed=False))
    worlds = Worlds(settings.world, Questions(), "train")
    drawn = [one for seed in range(60) if (one := reading(worlds, settings, random.Random(seed)))]
    assert len(drawn) > 40
    ends = set()
    for shown in drawn:
        task, turn, observed = (message["content"] for message in shown.prompt)
        questions = [question.rstrip("?") for question in task.split("; ")]
        before = [note for note in state_of(turn, TAGS).split("; ") if note != "none"]
        after = state_of(shown.answer, TAGS).split("; ")
        action, sought = parse(shown.answer, TAGS), parse(turn, TAGS).argument.split("; ")
        assert len(sought) >= 2 and all(f"{query}: " in observed for query in sought)
        assert all(note in after or f"{note.split()[0]} " in " ".join(after) for note in before)
        for query, noted in zip(sought, after[len(after) - len(sought) :], strict=True):
            assert query in noted and f"{noted[noted.index(query) :]}." in observed
        if action.kind == "answer":
            assert len(after) == len(questions)
            assert action.argument.split("; ") == [note.split(": ")[1] for note in after]
        else:
            assert action.argument.split()[-1] in " ".join(questions)
        values = [noted.split(": ")[1] for noted in after[len(after) - len(sought) :]]
        second = action.argument.split()[-1]
        onward = any(
            action.argument.startswith(f"{value} ") and f"{query} {second}" in questions
            for query, value in zip(sought, values, strict=True)
        )
        ends.add("second hop" if onward else action.kind)
    assert ends == {"query", "second hop", "answer"}


def test_readings_are_of_notes():
    with pytest.raises(UserError, match="teacher 'reading' reads notes"):
        Settings(taught=Teaching(10, {**TEACHERS, READING: 1.0}))
