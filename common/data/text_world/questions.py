"""Questions about a world with their gold answers and the facts that the answers follow from.

A question carries a structured `query`; `solve` answers it from any set of facts, so that "the answer follows from the
evidence and from nothing less" is a property, not a hope.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from common.data.text_world.names import TYPES
from common.data.text_world.relations import BY_SUBJECT, RELATIONS, Relation
from common.data.text_world.world import LAST_DAY, Fact, World, current, short_name

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Query:
    """What is asked, apart from its words.

    Attributes:
        kind: a key of KINDS.
        entities: the entities that the question names; for `inverse` the object.
        relations: the path of relations, first hop first.
        day: for `at`, the day asked about.
        value: for `before`, the state whose predecessor is asked; for `when`, the state whose day is asked.
    """

    kind: str
    entities: tuple[str, ...]
    relations: tuple[str, ...]
    day: int | None = None
    value: str = ""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        answers: gold answer, several for a list (each wanted, in the order in which they were drawn); `("unknown",)`
            for an unanswerable question.
        evidence: the facts that the answer follows from; empty for an unanswerable question.
        hops: facts on the longest chain.
    """

    text: str
    query: Query
    answers: tuple[str, ...]
    evidence: tuple[Fact, ...]
    hops: int

    @property
    def kind(self) -> str:
        return self.query.kind

    @property
    def answer(self) -> str:
        """The gold answer as one string; several are joined by `; `."""
        return "; ".join(self.answers)


def solve(query: Query, facts: Iterable[Fact]) -> tuple[str, ...]:
    """Answers that follow from the facts; empty when they do not suffice.

    Raises:
        ValueError: an unknown kind of question.
    """
    index: dict[tuple[str, str], list[Fact]] = {}
    for fact in dict.fromkeys(facts):
        index.setdefault((fact.subject, fact.relation), []).append(fact)
        if RELATIONS[fact.relation].symmetric:
            index.setdefault((fact.object, fact.relation), []).append(fact)
    for known in index.values():
        known.sort(key=lambda fact: fact.day or 0)

    def follow(entity: str, relation: str, day: int = LAST_DAY) -> list[str]:
        return current(index.get((entity, relation), []), entity, RELATIONS[relation], day)

    entities, relations = query.entities, query.relations
    match query.kind:
        case "hop":
            places = [entities[0]]
            for relation in relations:
                places = [o for place in places for o in follow(place, relation)]
            return tuple(places)
        case "list":
            return tuple(follow(entities[0], relations[0]))
        case "inverse":
            known_subjects = dict.fromkeys(s for s, r in index if r == relations[0])
            return tuple(s for s in known_subjects if entities[0] in follow(s, relations[0]))
        case "ambiguous":
            found = [(s, follow(s, r)) for s, r in index if r == relations[0] and short_name(s) == entities[0]]
            return tuple(dict.fromkeys(o for _, objects in found for o in objects))
        case "same":
            a, b = (follow(entity, relations[0]) for entity in entities)
            return ("yes" if a == b else "no",) if a and b else ()
        case "earlier":
            years = [follow(entity, relations[0]) for entity in entities]
            if not all(years):
                return ()
            return (entities[0] if int(years[0][0]) < int(years[1][0]) else entities[1],)
        case "now":
            return tuple(follow(entities[0], relations[0]))
        case "at":
            return tuple(follow(entities[0], relations[0], query.day or 0))
        case "when":
            known = index.get((entities[0], relations[0]), [])
            return tuple(str(fact.day) for fact in known if fact.object == query.value and fact.day is not None)[:1]
        case "first" | "before" | "count":
            states = [fact.object for fact in index.get((entities[0], relations[0]), [])]
            if query.kind == "first":
                return tuple(states[:1])
            if query.kind == "count":
                return (str(len(states) - 1),) if states else ()
            return (states[states.index(query.value, 1) - 1],) if query.value in states[1:] else ()
    raise ValueError(f"unknown kind of question '{query.kind}'")


def make_question(rng: random.Random, world: World, kind: str, hops: int = 1) -> Question | None:
    """A question of the kind about the world, None when this draw found none (draw again).

    Args:
        kind: a key of KINDS.
        hops: 1 to 4, for kind `hop`.

    Raises:
        ValueError: unknown kind, hops out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not '{kind}'")
    if not 1 <= hops <= 4:
        raise ValueError(f"hops must be 1 to 4, not {hops}")
    return KINDS[kind](rng, world, hops)


def unanswerable(question: Question) -> Question:
    """The same words, for a text that lacks some of the evidence."""
    return Question(question.text, question.query, (UNKNOWN,), (), question.hops)


def _evidence(world: World, entity: str, relation: str) -> list[Fact]:
    """Facts that the current objects follow from: the newest of a functional relation, all of a multi-valued one."""
    facts = world.of(entity, relation)
    return facts if RELATIONS[relation].multi else facts[-1:]


def _hop(rng: random.Random, world: World, hops: int) -> Question | None:
    start = _anyone(rng, world, "person" if hops > 1 else "")
    phrase, entity, seen, evidence, path = start, start, {start}, [], []
    for hop in range(hops):
        last = hop == hops - 1
        choices = [
            r for r in world.relations(entity)
            if not r.multi and (last or r.object in TYPES)
        ]  # fmt: skip
        if not last:  # the walk must be able to go on
            choices = [r for r in choices if world.relations(world.current(entity, r.name)[0])]
        if not choices:
            return None
        relation = rng.choice(choices)
        value = world.current(entity, relation.name)[0]
        if value in seen:
            return None
        evidence += _evidence(world, entity, relation.name)
        path.append(relation)
        if not last:
            phrase = rng.choice(relation.phrases).format(s=phrase)
        entity = value
        seen.add(value)
    text = rng.choice(path[-1].questions).format(s=phrase)
    query = Query("hop", (start,), tuple(r.name for r in path))
    return Question(text, query, (entity,), tuple(evidence), hops)


def _list(rng: random.Random, world: World, hops: int) -> Question | None:
    entity = _anyone(rng, world)
    choices = [r for r in world.relations(entity) if r.multi]
    if not choices:
        return None
    relation = rng.choice(choices)
    text = rng.choice(relation.questions).format(s=entity)
    evidence = _evidence(world, entity, relation.name)
    answers = tuple(world.current(entity, relation.name))
    return Question(text, Query("list", (entity,), (relation.name,)), answers, tuple(evidence), 1)


def _inverse(rng: random.Random, world: World, hops: int) -> Question | None:
    relation = rng.choice([r for r in RELATIONS.values() if r.who])
    value = rng.choice(world.entities[relation.object])
    subjects = [s for s in world.entities[relation.subject] if value in world.current(s, relation.name)]
    if not subjects or len(subjects) > 4:
        return None
    evidence = tuple(fact for s in subjects for fact in _evidence(world, s, relation.name))
    text = rng.choice(relation.who).format(o=value)
    return Question(text, Query("inverse", (value,), (relation.name,)), tuple(subjects), evidence, 1)


def _ambiguous(rng: random.Random, world: World, hops: int) -> Question | None:
    namesakes: dict[str, list[str]] = {}
    for person in world.entities["person"]:
        if person != short_name(person):
            namesakes.setdefault(short_name(person), []).append(person)
    if not namesakes:
        return None
    name, people = rng.choice(list(namesakes.items()))
    relation = rng.choice([r for r in BY_SUBJECT["person"] if not r.multi and not r.symmetric])
    answers = [o for person in people for o in world.current(person, relation.name)]
    if len(answers) < len(people) or len(set(answers)) < len(people):
        return None
    evidence = tuple(fact for person in people for fact in _evidence(world, person, relation.name))
    text = rng.choice(relation.questions).format(s=name)
    return Question(text, Query("ambiguous", (name,), (relation.name,)), tuple(answers), evidence, 1)


def _pair(rng: random.Random, world: World, relations: Collection[str]) -> tuple[str, str, Relation] | None:
    relation = RELATIONS[rng.choice(sorted(relations))]
    having = [e for e in world.entities[relation.subject] if world.of(e, relation.name)]
    if len(having) < 2:
        return None
    a, b = rng.sample(having, 2)
    return a, b, relation


def _same(rng: random.Random, world: World, hops: int) -> Question | None:
    pair = _pair(rng, world, {"born_in", "works_at", "located_in", "lives_in", "occupation"})
    if pair is None:
        return None
    a, b, relation = pair
    if rng.random() < 0.5:  # chance would say no far more often
        value = world.current(a, relation.name)
        alike = [
            e for e in world.entities[relation.subject] if e != a and world.current(e, relation.name) == value
        ]  # fmt: skip
        b = rng.choice(alike) if alike else b
    answer = "yes" if world.current(a, relation.name) == world.current(b, relation.name) else "no"
    evidence = tuple(_evidence(world, a, relation.name) + _evidence(world, b, relation.name))
    text = f"Do {a} and {b} have the same {relation.key}?"
    return Question(text, Query("same", (a, b), (relation.name,)), (answer,), evidence, 1)


def _earlier(rng: random.Random, world: World, hops: int) -> Question | None:
    pair = _pair(rng, world, {"born_year", "founded_city"})
    if pair is None:
        return None
    a, b, relation = pair
    years = [int(world.current(e, relation.name)[0]) for e in (a, b)]
    if years[0] == years[1]:
        return None
    verb = "born" if relation.name == "born_year" else "founded"
    text = f"Who was {verb} earlier, {a} or {b}?" if verb == "born" else f"Which was {verb} earlier, {a} or {b}?"
    evidence = tuple(_evidence(world, a, relation.name) + _evidence(world, b, relation.name))
    answer = a if years[0] < years[1] else b
    return Question(text, Query("earlier", (a, b), (relation.name,)), (answer,), evidence, 1)


def _changing(rng: random.Random, world: World, fewest: int) -> tuple[str, Relation, list[Fact]] | None:
    choices = [
        (entity, relation)
        for kind in TYPES for entity in world.entities[kind]
        for relation in BY_SUBJECT[kind] if relation.changes and len(world.of(entity, relation.name)) >= fewest
    ]  # fmt: skip
    if not choices:
        return None
    entity, relation = rng.choice(choices)
    return entity, relation, world.of(entity, relation.name)


def _now(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    text = f"What is the {relation.key} of {entity} now?"
    return Question(text, Query("now", (entity,), (relation.name,)), (facts[-1].object,), tuple(facts[-1:]), 1)


def _at(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    day = rng.randint(1, LAST_DAY)
    fact = max((f for f in facts if (f.day or 0) <= day), key=lambda f: f.day or 0)
    text = f"What was the {relation.key} of {entity} on day {day}?"
    return Question(text, Query("at", (entity,), (relation.name,), day=day), (fact.object,), (fact,), 1)


def _first(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    text = f"What was the {relation.key} of {entity} at first?"
    return Question(text, Query("first", (entity,), (relation.name,)), (facts[0].object,), (facts[0],), 1)


def _before(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    states = [fact.object for fact in facts]
    unique = [i for i in range(1, len(states)) if states.count(states[i]) == 1]
    if not unique:
        return None
    i = rng.choice(unique)
    text = f"What was the {relation.key} of {entity} before {states[i]}?"
    query = Query("before", (entity,), (relation.name,), value=states[i])
    return Question(text, query, (states[i - 1],), (facts[i - 1], facts[i]), 1)


def _count(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    text = f"How many times did the {relation.key} of {entity} change?"
    return Question(text, Query("count", (entity,), (relation.name,)), (str(len(facts) - 1),), tuple(facts), 1)


def _when(rng: random.Random, world: World, hops: int) -> Question | None:
    drawn = _changing(rng, world, 2)
    if drawn is None:
        return None
    entity, relation, facts = drawn
    dated = [fact for fact in facts if fact.day is not None]
    unique = [fact for fact in dated if [other.object for other in dated].count(fact.object) == 1]
    if not unique:
        return None
    fact = rng.choice(unique)
    text = f"On which day did the {relation.key} of {entity} change to {fact.object}?"
    query = Query("when", (entity,), (relation.name,), value=fact.object)
    return Question(text, query, (str(fact.day),), (fact,), 1)


def _anyone(rng: random.Random, world: World, kind: str = "") -> str:
    if not kind:
        kind = rng.choices(TYPES, [len(world.entities[k]) for k in TYPES])[0]
    return rng.choice(world.entities[kind])


KINDS: Mapping[str, Callable[[random.Random, World, int], Question | None]] = {
    "hop": _hop,
    "list": _list,
    "inverse": _inverse,
    "ambiguous": _ambiguous,
    "same": _same,
    "earlier": _earlier,
    "now": _now,
    "at": _at,
    "first": _first,
    "before": _before,
    "count": _count,
    "when": _when,
}
