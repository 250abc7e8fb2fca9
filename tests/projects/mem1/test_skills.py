"""The gate: a model that says what the teacher says has all skills, and each mistake is held against its own skill."""

import random

import pytest

from common.models.language_model import Completion
from projects.mem1.data import Worlds
from projects.mem1.settings import Questions, Settings, Skills, TextWorld
from projects.mem1.skills import lacking, measured_skills
from projects.mem1.teachers import HABITS, performed, trajectory
from tests.projects.mem1.scripted import PlainChat

SETTINGS = Settings(world=TextWorld(style="notes", worlds=1), skills=Skills([2], tasks=4, state=[0.97], answer=[0.97]))
WORLDS = Worlds(SETTINGS.world, Questions(), "validation")


class Echo:
    """Says, of the tasks that the gate draws, what the teacher says, changed by `slip`."""

    def __init__(self, objectives, slip=lambda text: text):
        rng = random.Random(f"skills/{objectives}")
        drawn = (WORLDS.task(rng, objectives) for _ in range(SETTINGS.skills.tasks))
        turns = [trajectory(rng, task, SETTINGS.rules, HABITS["accumulating"]) for task in drawn]
        self.lines = [slip(step.text) for steps in turns for step in steps]

    def generate(self, prompts, sampling, purpose=""):
        assert len(prompts) == len(self.lines)
        return [Completion(text, (1,), None, "stop", 1, 1) for text in self.lines]


def measured(slip=lambda text: text, objectives=2):
    return measured_skills(Echo(objectives, slip), PlainChat(), WORLDS, SETTINGS, objectives, performed)


@pytest.mark.parametrize("objectives", [1, 2, 8])
def test_the_teacher_has_every_skill(objectives):
    assert set(measured(objectives=objectives).values()) == {1.0}


def test_to_keep_or_to_forget_at_the_second_question_is_a_choice_and_no_skill():
    """A model that forgets is told by the states of two entries that go on as two, not by the first of them."""

    def forget(text):
        before, _, rest = text.partition("</think>")
        return f"<think> {before.removeprefix('<think>').split('; ')[-1].strip()} </think>{rest}"

    assert 0.5 < measured(forget)["state"] < 1.0
    assert measured(forget, objectives=8)["state"] < 0.5


@pytest.mark.parametrize(
    ("slip", "worse"),
    [
        (lambda text: text.replace("</think>", ""), {"query", "state", "answer"}),
        (lambda text: text.replace("<search> ", "<search> no "), {"found"}),
        (lambda text: text.replace("<answer> ", "<answer> no "), {"answer"}),
        (lambda text: text.replace("</search>", ""), {"query", "found"}),
    ],
)
def test_a_mistake_is_held_against_its_skill(slip, worse):
    assert {name for name, share in measured(slip).items() if share < 1} == worse


def test_what_is_lacking_is_said_for_each_n():
    asked = Skills([2, 8], 1, [0.97, 0.9], 0.98, [0.97, 0.97])
    good = {"state": 0.95, "query": 1.0, "found": 0.1, "answer": 1.0}
    assert lacking({2: good | {"state": 0.97}, 8: good}, asked) == []
    assert lacking({2: good, 8: good | {"query": 0.5}}, asked) == [
        "state 0.950 < 0.97 at n = 2",
        "query 0.500 < 0.98 at n = 8",
    ]
