"""A world: entities, typed facts and dated changes, all drawn from one seed.

Facts are tuples; the state of the world on a day follows from them (`current`). Symmetric facts are stored once, from
the side that was drawn, and hold from both.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from common.data.text_world.names import TYPES, Split, new_name, type_of
from common.data.text_world.relations import BY_SUBJECT, CLOSED, RELATIONS, Relation

LAST_DAY = 365
EPITHETS = ("elder", "younger", "tall", "short", "bold", "quiet", "merry", "lame")  # tell namesakes apart


class Fact(NamedTuple):
    """`relation(subject) = object`, from `day` on; day None: from the start."""

    subject: str
    relation: str
    object: str
    day: int | None = None

    def from_side(self, entity: str) -> str:
        """The other end of the fact, seen from `entity`."""
        return self.object if entity == self.subject else self.subject


@dataclass(frozen=True)
class Dials:
    """Size and difficulty of a world.

    Attributes:
        people, cities, companies, countries: number of entities of each type.
        look_alikes: probability, in [0, 1], that an entity takes the opening of one of its type drawn before.
        middles: middle parts of a name, 0 to 2; more make room for larger worlds.
        homonyms: share of people, in [0, 1], who share their whole name with another and bear an epithet.
        density: share of an entity's relations, in (0, 1], that have a fact.
        changes: expected number of dated changes of a fact that can change.
        branching: most objects of a relation with several.

    Raises:
        ValueError: a number or a probability out of range.
    """

    people: int = 12
    cities: int = 6
    companies: int = 5
    countries: int = 3
    look_alikes: float = 0.3
    middles: int = 0
    homonyms: float = 0.0
    density: float = 0.8
    changes: float = 0.5
    branching: int = 3

    def __post_init__(self) -> None:
        for name in ("people", "cities", "companies", "countries"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, not {getattr(self, name)}")
        if not 0 <= self.middles <= 2:
            raise ValueError(f"middles must be 0 to 2, not {self.middles}")
        for name in ("look_alikes", "homonyms"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 < self.density <= 1:
            raise ValueError(f"density must lie in (0, 1], not {self.density}")
        if self.changes < 0:
            raise ValueError(f"changes must not be negative, not {self.changes}")
        if self.branching < 1:
            raise ValueError(f"branching must be at least 1, not {self.branching}")


@dataclass(frozen=True)
class World:
    """Entities by type and the facts about them.

    Attributes:
        entities: type -> names, in the order drawn.
        facts: (entity, relation) -> its facts, oldest first. Symmetric facts stand under both entities.
    """

    split: Split
    entities: dict[str, list[str]]
    facts: dict[tuple[str, str], list[Fact]] = field(default_factory=dict)

    def of(self, entity: str, relation: str) -> list[Fact]:
        """All facts of the relation, superseded ones included, oldest first; empty when there is none."""
        return self.facts.get((entity, relation), [])

    def current(self, entity: str, relation: str, day: int = LAST_DAY) -> list[str]:
        """Objects that hold on a day: the newest for a functional relation, all for a multi-valued one."""
        return current(self.of(entity, relation), entity, RELATIONS[relation], day)

    def relations(self, entity: str) -> list[Relation]:
        """Relations of which the entity has a fact."""
        return [r for r in BY_SUBJECT[kind_of(entity)] if (entity, r.name) in self.facts]

    def all_facts(self) -> list[Fact]:
        """Every fact once, in the order drawn."""
        return list(dict.fromkeys(fact for facts in self.facts.values() for fact in facts))


def current(facts: Iterable[Fact], entity: str, relation: Relation, day: int = LAST_DAY) -> list[str]:
    """Objects that hold on `day`, among facts of one entity and relation; a later statement wins a tie of days."""
    known = [fact for fact in facts if fact.day is None or fact.day <= day]
    if relation.multi:
        return list(dict.fromkeys(fact.from_side(entity) for fact in known))
    return [max(reversed(known), key=lambda fact: fact.day or 0).from_side(entity)] if known else []


def kind_of(entity: str) -> str:
    """Type of an entity by its name, epithet or not."""
    return type_of(short_name(entity))


def short_name(entity: str) -> str:
    """The name without an epithet: `Balman the elder` -> `Balman`."""
    return entity.split(" the ", 1)[0]


def make_world(seed: int | str, split: Split, dials: Dials | None = None) -> World:
    """The world of a seed: the same arguments give the same world."""
    dials = dials or Dials()
    rng = random.Random(f"{split}/{seed}")
    sizes = dict(zip(TYPES, (dials.people, dials.cities, dials.companies, dials.countries), strict=True))
    world = World(split, {kind: _names(rng, kind, count, split, dials) for kind, count in sizes.items()})
    for kind in TYPES:
        for entity in world.entities[kind]:
            for relation in BY_SUBJECT[kind]:
                if rng.random() < dials.density:
                    _draw(rng, world, entity, relation, dials)
    return world


def _names(rng: random.Random, kind: str, count: int, split: Split, dials: Dials) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        like = rng.choice(list(names)) if len(names) < 200 and names and rng.random() < dials.look_alikes else ""
        names[new_name(rng, kind, split, names, dials.middles, like)] = None
    entities = list(names)
    if kind == "person" and dials.homonyms:
        for i in range(0, count - 1, 2):
            if rng.random() < dials.homonyms:
                first, second = rng.sample(EPITHETS, 2)
                entities[i], entities[i + 1] = f"{entities[i]} the {first}", f"{entities[i]} the {second}"
    return entities


def _draw(rng: random.Random, world: World, entity: str, relation: Relation, dials: Dials) -> None:
    """Facts of one entity and relation; nothing when a symmetric functional fact stands already."""
    wanted = rng.randint(1, dials.branching) if relation.multi else 1
    if relation.symmetric:
        if not relation.multi and world.of(entity, relation.name):
            return
        for _ in range(wanted):
            other = rng.choice(world.entities[relation.object])
            known = [fact.from_side(entity) for fact in world.of(entity, relation.name)]
            full = not relation.multi and world.of(other, relation.name)
            if other == entity or other in known or full:
                continue
            fact = Fact(entity, relation.name, other)
            for side in (entity, other):
                world.facts.setdefault((side, relation.name), []).append(fact)
        return
    values = _values(rng, world, relation, wanted)
    facts = [Fact(entity, relation.name, value) for value in values]
    if relation.changes and not relation.multi:
        facts += _changes(rng, world, facts[0], relation, dials.changes)
    world.facts[entity, relation.name] = facts


def _values(rng: random.Random, world: World, relation: Relation, count: int) -> list[str]:
    if relation.object == "year":
        return [str(rng.randint(1000, 1999))]
    pool = world.entities[relation.object] if relation.object in TYPES else CLOSED[relation.object]
    return [rng.choice(pool)] if count == 1 else rng.sample(pool, min(count, len(pool)))


def _changes(rng: random.Random, world: World, first: Fact, relation: Relation, expected: float) -> list[Fact]:
    """Dated changes after `first`, a geometric number of them; each differs from the state before it."""
    changes: list[Fact] = []
    days: list[int] = []
    while rng.random() < expected / (1 + expected) and len(days) < 8:
        days.append(rng.randint(1, LAST_DAY))
    before = first.object
    for day in sorted(set(days)):
        value = _values(rng, world, relation, 1)[0]
        if value != before:
            changes.append(Fact(first.subject, relation.name, value, day))
            before = value
    return changes
