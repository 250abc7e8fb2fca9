"""Demonstrations by teachers that shop: for the warm start, and for the SFT arm.

A teacher's state lists, in the words of the goal, the options that are still to be chosen, `colour red; size small`;
it acts on its state: it chooses what stands there, and buys when nothing does. Teachers differ in what they remember:

    accumulating    searches for all that is asked for, takes the first hit within the price, drops a wish once chosen
    forgetful       leaves out words of the search, and loses wishes on the way, whose options it does not choose
    premature       searches for the kind alone, and buys the first hit as it is
    reading         as accumulating, and reads descriptions and features, which cost turns
    full            has all turns in its context; one of the first two

Some turns have a fault, from which the teacher goes on: a wish lost, another button of the page, a tag left out.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from common.models.microlm.demonstrations import Demonstration, Teacher
from projects.mem1.data import JOINER
from projects.mem1.method import Step, informed, well_formed
from projects.mem1.settings import READING, Rules, Settings
from projects.mem1.shopper import TURNS, Errand, Shops
from projects.mem1.shopping import BUY, DETAILS, PREVIOUS, Goal, Shopping
from projects.mem1.teachers import tagged, turn_of

FAULTS = ("lost", "stray", "malformed")


@dataclass(frozen=True)
class Habits:
    """What a teacher does, as chances in [0, 1].

    Attributes:
        words: to search for each attribute, beside the kind.
        thrifty: whether it takes the first hit within the price, where the page has one.
        forgets: to lose each wish, in each turn.
        reads: to look at a page of details, in each turn at an item.
        faults: of a fault, in each turn.
    """

    words: float = 1.0
    thrifty: bool = True
    forgets: float = 0.0
    reads: float = 0.0
    faults: float = 0.0


HABITS = {
    "accumulating": Habits(),
    "forgetful": Habits(words=0.5, thrifty=False, forgets=0.25),
    "premature": Habits(words=0.0, thrifty=False, forgets=1.0),
    READING: Habits(reads=0.4),
}


def trajectory(rng: random.Random, errand: Errand, rules: Rules, habits: Habits) -> list[Step]:
    """All turns of a teacher on an errand; the turns of one with a fault in its tags end there."""
    trip, tags = Shopping(errand.shop, errand.goal), rules.tags
    wishes = dict(errand.goal.options)
    steps: list[Step] = []
    while not trip.done and len(steps) < TURNS:
        fault = rng.choice(FAULTS) if rng.random() < habits.faults else ""
        wishes = {name: value for name, value in wishes.items() if rng.random() >= habits.forgets}
        if fault == "lost" and wishes:
            del wishes[rng.choice(list(wishes))]
        action = f"click[{rng.choice(trip.actions())}]" if fault == "stray" else chosen(rng, trip, wishes, habits)
        state = JOINER.join(f"{name} {value}" for name, value in wishes.items()) or "none"
        text = f"<{tags.state}> {state} </{tags.state}> <{tags.query}> {action} </{tags.query}>"
        if fault == "malformed":
            text = tagged(rng, text)
        if not well_formed(text, tags):
            return [*steps, Step(text)]
        trip.act(action)
        wishes = {name: value for name, value in wishes.items() if action != f"click[{value}]"}
        steps.append(Step(text, action, informed(trip.observe(), tags)))
    return steps


def chosen(rng: random.Random, trip: Shopping, wishes: Mapping[str, str], habits: Habits) -> str:
    """The action of a teacher on this page, with these wishes open."""
    goal, offered = trip.goal, trip.actions()
    if trip.item is None and trip.results:
        return f"click[{_hit(trip, goal, habits.thrifty)}]"
    if trip.item is None:
        return searched(rng, goal, habits.words)
    if trip.detail:
        return f"click[{PREVIOUS}]"
    if rng.random() < habits.reads:
        return f"click[{rng.choice(DETAILS)}]"
    open_ = [value for value in wishes.values() if value in offered]
    return f"click[{open_[0] if open_ else BUY}]"


def searched(rng: random.Random, goal: Goal, words: float) -> str:
    """A search for the kind, and each attribute at this chance."""
    named = [attribute for attribute in goal.attributes if rng.random() < words]
    return f"search[{' '.join((goal.product.query, *named))}]"


def _hit(trip: Shopping, goal: Goal, thrifty: bool) -> str:
    """The button of a product on this page: the first, or the first within the price where there is one."""
    listed = trip.listed()
    within = [product for product in listed if product.price <= goal.price] if thrifty else []
    return (within or listed)[0].id.lower()


def performed(rng: random.Random, errand: Errand, rules: Rules, faults: float) -> list[Step]:
    """The trajectory of the accumulating teacher, with faults at this share of its turns."""
    return trajectory(rng, errand, rules, replace(HABITS["accumulating"], faults=faults))


def right(errand: Errand, steps: Sequence[Step], rules: Rules) -> bool:
    """Whether a trajectory bought all that was asked for."""
    trip = Shopping(errand.shop, errand.goal)
    for step in steps:
        trip.act(step.query)
    return trip.reward == 1


def snippet(name: str, shops: Shops, settings: Settings, rng: random.Random) -> Demonstration:
    """One turn of one teacher: its context and what it wrote."""
    full = name == "full"
    habits = HABITS[rng.choice(("accumulating", "forgetful")) if full else name]
    rules = replace(settings.rules, context="full" if full else "pruned")
    errand = shops.task(rng)
    steps = trajectory(rng, errand, rules, replace(habits, faults=settings.faults))
    return turn_of(errand, steps, rng.randrange(len(steps)), rules)


def teachers(shops: Shops, settings: Settings) -> Mapping[str, Teacher]:
    """Name -> teacher, for `demonstrations.teach`."""
    return {name: partial(snippet, name, shops, settings) for name in (*HABITS, "full")}
