"""Errands: the agent's rules by hand, floor and ceiling of the reward, teachers, and the words of the tokenizer."""

import random
from dataclasses import replace
from statistics import mean

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Completion
from common.models.microlm.demonstrations import Teaching, teach
from projects.mem1.method import parse, state_of, well_formed
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import (
    READING,
    TEACHERS,
    Imitation,
    Learning,
    Questions,
    Rules,
    Settings,
    Skills,
    Stage,
    Stock,
    Tags,
)
from projects.mem1.shop_teachers import HABITS, performed, right, teachers, trajectory
from projects.mem1.shopper import TURNS, Shopper, Shops
from projects.mem1.shopping import Shopping
from projects.mem1.skills import measured_skills
from projects.mem1.teachers import imitated
from tests.projects.mem1.scripted import PlainChat

RULES = Rules(instructed=False, tags=Tags(query="action"))
TAGS = RULES.tags
STOCK = Stock(shops=4)
SHOP = Settings(
    questions=Questions("shop", objectives=1),
    stock=STOCK,
    rules=RULES,
    faults=0.0,
    skills=Skills([1], tasks=12, state=[0.9], answer=[0.97]),
    rl=Learning(objectives=1),
)


@pytest.fixture(scope="module")
def shops():
    return Shops(STOCK, "test")


def errand(shops, seed=0):
    return shops.task(random.Random(seed))


def do(agent, *actions, state="none"):
    for action in actions:
        say(agent, f"<think> {state} </think> <action> {action} </action>")


def say(agent, text):
    agent.take(Completion(text, (1,), None, "stop", 1, 1))


def played(task, choose, **rules):
    """An agent that does, in each turn, what `choose` says of its trip."""
    agent = Shopper(task, replace(RULES, **rules), PlainChat())
    while agent.ask() is not None:
        do(agent, choose(agent.trip))
    return agent


def oracle(trip):
    """An upper bound, for it knows the product."""
    product, offered = trip.goal.product, trip.actions()
    if offered == ["search"]:
        return f"search[{product.title}]"
    if trip.item is None:
        return f"click[{product.id if product.id.lower() in offered else 'next >'}]"
    open_ = [value for name, value in trip.goal.options.items() if name not in trip.chosen]
    return f"click[{open_[0] if open_ else 'buy now'}]"


def test_no_shop_and_no_goal_of_a_test_was_seen_in_training():
    splits = {split: Shops(STOCK, split) for split in ("train", "validation", "test")}
    drawn = {split: of.tasks(1, 200, "seed") for split, of in splits.items()}
    goals = {split: {task.text for task in tasks} for split, tasks in drawn.items()}
    wares = {split: {str(list(t.shop.products.values())) for t in tasks} for split, tasks in drawn.items()}
    for found in (goals, wares):
        assert not found["test"] & (found["train"] | found["validation"]) and not found["train"] & found["validation"]
    assert len(wares["test"]) == STOCK.shops and len(goals["test"]) > 150
    assert [task.text for task in splits["test"].tasks(1, 5, "seed")] == [task.text for task in drawn["test"][:5]]
    assert [task.id for task in drawn["test"][:2]] == ["seed/0", "seed/1"]


def test_clicks_at_random_earn_little_and_the_oracle_all(shops):
    rng = random.Random(0)

    def at_random(trip):
        action = rng.choice(trip.actions())
        return f"search[{trip.goal.product.query}]" if action == "search" else f"click[{action}]"

    tasks = shops.tasks(1, 150, "floor")
    assert mean(played(task, at_random).reward for task in tasks) < 0.25
    assert {played(task, oracle).reward for task in tasks} == {1.0}


def test_to_buy_ends_the_episode_with_the_reward_of_the_shop(shops):
    agent = played(errand(shops), oracle)
    assert (agent.end, agent.acted, agent.reward, agent.steps[-1].read) == ("bought", True, 1.0, "")
    assert agent.ask() is None
    hasty = Shopper(errand(shops), RULES, PlainChat())
    kind = hasty.task.goal.product.query
    do(hasty, f"search[{kind}]")
    do(hasty, f"click[{hasty.trip.listed()[0].id}]", "click[buy now]")
    assert hasty.end == "bought" and hasty.reward == hasty.trip.reward < 1


@pytest.mark.parametrize(
    "text",
    [
        "<think> none </think> search[mug]",
        "<think> none <action> search[mug] </action>",
        "<think> none </think> <answer> search[mug] </answer>",
        "",
    ],
)
def test_a_malformed_turn_costs_one_and_ends_the_episode(shops, text):
    agent = Shopper(errand(shops), RULES, PlainChat())
    say(agent, text)
    assert (agent.end, agent.acted, agent.reward) == ("invalid", False, -1.0)
    assert agent.ask() is None and agent.trip.actions() == ["search"]


def test_an_action_that_is_not_offered_shows_the_page_again_and_takes_a_turn(shops):
    agent = Shopper(errand(shops), RULES, PlainChat())
    assert agent.ask().stop == ("</action>",)
    do(agent, "click[buy now]", "buy")
    assert agent.steps[0].read == agent.steps[1].read == f"<information>{Shopping.observe(agent.trip)}</information>"
    do(agent, *["click[red]"] * (TURNS - 2))
    assert (agent.end, agent.reward, len(agent.steps), agent.ask()) == ("late", 0.0, TURNS, None)


@pytest.mark.parametrize("rule", ["pruned", "full", "stateless"])
def test_what_a_shopper_remembers(shops, rule):
    agent = Shopper(errand(shops), replace(RULES, context=rule), PlainChat())
    do(agent, f"search[{agent.task.goal.product.query}]", state="first")
    do(agent, "click[next >]", "click[back to search]", state="second")
    said = [message["content"] for message in agent.ask().prompt]
    assert said[0] == agent.task.text and said[-1] == agent.steps[-1].read
    assert len(said) == (7 if rule == "full" else 3)
    assert any("first" in text for text in said) == (rule == "full")
    assert any("second" in text for text in said) == (rule != "stateless")
    assert "click[back to search]" in said[-2]


def test_teachers_differ_in_what_they_remember_and_earn(shops):
    def worth(name):
        tasks = [errand(shops, seed) for seed in range(120)]
        runs = [(task, trajectory(random.Random(task.text), task, RULES, HABITS[name])) for task in tasks]
        return mean(replayed(task, steps) for task, steps in runs), mean(len(steps) for _, steps in runs)

    earned = {name: worth(name) for name in HABITS}
    assert earned["accumulating"][0] > 0.9 > 0.7 > earned["forgetful"][0] > earned["premature"][0] > 0.2
    assert earned[READING][1] > earned["accumulating"][1] + 1
    assert earned["premature"][1] == 3


def replayed(task, steps):
    trip = Shopping(task.shop, task.goal)
    for step in steps:
        trip.act(step.query)
    assert right(task, steps, RULES) == (trip.reward == 1)
    return trip.reward


def test_a_teacher_chooses_what_its_state_lists_and_buys_when_it_lists_nothing(shops):
    for seed in range(30):
        task = errand(shops, seed)
        steps = trajectory(random.Random(seed), task, RULES, HABITS["accumulating"])
        states = [state_of(step.text, TAGS) for step in steps]
        assert states[0] == "; ".join(f"{name} {value}" for name, value in task.goal.options.items())
        assert f", {states[0].replace('; ', ', ')}, " in task.text
        for state, step in zip(states[2:], steps[2:], strict=True):
            wish = state.partition(";")[0].split()[-1]
            item = next(p for p in task.shop.products.values() if f"click[{p.id.lower()}]" == steps[1].query)
            if any(wish in values for values in item.options.values()):
                assert step.query == f"click[{wish}]"
        assert steps[-1].query == "click[buy now]" and all(well_formed(step.text, TAGS) for step in steps)


def test_the_filter_keeps_what_bought_right(shops):
    clean = imitated(shops, Imitation([1], 30, faults=0.0), RULES, 0, performed, right)
    noisy = imitated(shops, Imitation([1], 30, faults=0.5), RULES, 0, performed, right)
    assert 0 < len(noisy) < len(clean)
    assert all(well_formed(shown.answer, TAGS) for shown in noisy)
    assert {len(shown.prompt) for shown in clean} == {1, 3}
    assert any("buy now" in shown.answer for shown in noisy)
    with pytest.raises(UserError, match="none of 2 trajectories was right"):
        imitated(shops, Imitation([1], 2, faults=1.0), RULES, 0, performed, right)


def test_the_warm_start_shows_every_teacher_under_its_context(shops):
    weights = {**TEACHERS, READING: 0.1}
    shown = teach(teachers(shops, SHOP), Teaching(200, weights))
    assert {one.source for one in shown} == set(weights)
    assert max(len(one.prompt) for one in shown if one.source == "full") > 3
    assert all(len(one.prompt) <= 3 for one in shown if one.source != "full")
    assert teach(teachers(shops, SHOP), Teaching(200, weights)) == shown


class Echo:
    """Says, of the errands that the gate draws, what the teacher says, changed by `slip`."""

    def __init__(self, shops, slip):
        rng = random.Random("skills/1")
        tasks = (shops.task(rng) for _ in range(SHOP.skills.tasks))
        self.lines = [slip(step.text) for task in tasks for step in performed(rng, task, RULES, 0.0)]

    def generate(self, prompts, sampling, purpose=""):
        return [Completion(text, (1,), None, "stop", 1, 1) for text in self.lines[: len(prompts)]]


def unplanned(text):
    """Nothing is noted before the first search."""
    _, search, after = text.partition("<action> search[")
    return f"<think> none </think> {search}{after}" if search else text


@pytest.mark.parametrize(
    ("slip", "worse"),
    [
        (lambda text: text, set()),
        (unplanned, set()),  # to plan is a choice of the policy, and no skill
        (lambda text: text.replace("; size", "; colour"), {"state"}),
        (lambda text: text.replace("buy now", "< prev"), {"answer"}),
        (lambda text: text.replace("search[", "search[mug "), {"found"}),
        (lambda text: text.replace("</think>", ""), {"query", "state", "answer"}),
    ],
)
def test_a_mistake_is_held_against_its_skill(shops, slip, worse):
    found = measured_skills(Echo(shops, slip), PlainChat(), shops, SHOP, 1, performed)
    assert {name for name, share in found.items() if share < 1} == worse


def test_no_word_of_a_shop_is_spelled_in_bytes_and_texts_come_back(shops):
    tokenizer = world_tokenizer(TAGS, shop=True)
    for seed in range(40):
        task = errand(shops, seed)
        steps = trajectory(random.Random(seed), task, RULES, HABITS[READING])
        for text in (task.text, *(step.read for step in steps), *(step.text for step in steps)):
            ids = tokenizer(text).input_ids
            pieces = tokenizer.convert_ids_to_tokens(ids)
            assert not [p for p in pieces if len(p) == 1 and p.isalpha() and p not in ("a", "b", "B", "Ċ")], text
            assert tokenizer(tokenizer.decode(ids)).input_ids == ids
        for step in steps:
            again = tokenizer.decode(tokenizer(step.text).input_ids)
            assert parse(again, TAGS).argument == step.query == parse(step.text, TAGS).argument


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"questions": Questions("shopp")}, "unknown questions.source 'shopp'; did you mean 'shop'"),
        ({"questions": Questions("shop")}, "in a shop one thing is bought: questions.objectives must be 1, not 2$"),
        ({"rl": Learning()}, "in a shop one thing is bought: rl.objectives must be 1, not 2$"),
        ({"longer": Stage(1)}, "longer is of lists of questions, not of a shop: set longer.count to 0"),
        ({"skills": Skills()}, "in a shop one thing is bought: skills.objectives must be 1, not 2, 8$"),
        ({"rules": Rules(context="others")}, "rules.context others is of searches for questions, not of a shop$"),
        ({"stock": Stock(products=0)}, "stock.products must be at least 1, not 0$"),
        ({"stock": Stock(shops=0)}, "stock.shops must be at least 1, not 0$"),
    ],
)
def test_mistakes_are_one_line(change, says):
    with pytest.raises(UserError, match=says):
        replace(SHOP, **change)
