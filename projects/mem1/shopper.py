"""Errands in made-up shops, and the agent that does them (WebShop, Table 2 of the paper).

A turn is a state and one action of the shop, in the query tag; what it reads is the page that follows. To buy something
ends the episode, with the reward of the shop. As in the released code a turn whose tags do not match, or that has no
action, costs 1 and ends it. An action that the page does not offer does nothing, and takes a turn.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from common.data.text_world.names import Split
from projects.mem1.method import Action, Kind, MemoryAgent, informed
from projects.mem1.settings import Stock
from projects.mem1.shopping import Goal, Shop, Shopping, catalogue, draw_goal

TURNS = 10  # of an episode, as in the released code


@dataclass(frozen=True)
class Errand:
    """Something to be bought: an `Asked` of `projects.mem1.data`, and the shop for it."""

    id: str
    goal: Goal
    shop: Shop

    @property
    def kind(self) -> str:
        return "goal"

    @property
    def text(self) -> str:
        return self.goal.text


class Shops:
    """Errands in the shops of a split; no two splits share a shop. Shops are made when they are first entered."""

    def __init__(self, stock: Stock, split: Split) -> None:
        self.stock, self.split = stock, split
        self._shop = cache(lambda number: Shop(catalogue(f"{split}/{number}", stock.products)))

    def tasks(self, objectives: int, count: int, seed: str) -> list[Errand]:
        """`count` errands, a function of the arguments; each is one objective."""
        return [self.task(random.Random(f"{self.split}/{seed}/{i}"), objectives, f"{seed}/{i}") for i in range(count)]

    def task(self, rng: random.Random, objectives: int = 1, id: str = "") -> Errand:
        """One draw."""
        shop = self._shop(rng.randrange(self.stock.shops))
        return Errand(id, draw_goal(rng, list(shop.products.values())), shop)


@dataclass
class Shopper(MemoryAgent):
    """An agent that shops; `end` is `bought`, or `late` where all turns went by without."""

    task: Errand
    trip: Shopping = field(init=False)

    def __post_init__(self) -> None:
        self.penalty = True  # part of the environment, whatever the reward is
        self.trip = Shopping(self.task.shop, self.task.goal)

    @property
    def turns(self) -> int:
        return TURNS

    @property
    def kinds(self) -> Sequence[Kind]:
        return ("query",)

    def act(self, action: Action) -> str:
        self.trip.act(action.argument)
        if self.trip.done or len(self.steps) == self.turns - 1:
            self.end = "bought" if self.trip.done else "late"
            return ""
        return informed(self.trip.observe(), self.rules.tags)

    @property
    def reward(self) -> float:
        """Of the shop, in [0, 1]; -1 for a malformed turn."""
        return self.trip.reward if self.matched else -1.0
