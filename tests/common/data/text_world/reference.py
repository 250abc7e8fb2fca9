"""Slow, obvious counterparts: read facts out of a text by its templates, answer a query by loops over facts.

Written from the meaning of the relations, not from the library's code: nothing of `solve` or `current` is used.
"""

import itertools
import random
import re
from collections.abc import Iterable, Sequence

import networkx

from common.data.text_world.questions import Query
from common.data.text_world.relations import CLOSED, RELATIONS
from common.data.text_world.world import Fact, World

SLOTS = {"s": r"(?P<s>\w+(?: the \w+)?)", "o": r"(?P<o>\w+(?: the \w+)?)", "d": r"(?P<d>\d+)", "p": r"(?P<p>\w+)"}


def pattern(template: str) -> re.Pattern[str]:
    """The template as a pattern with groups for its fields."""
    parts = re.split(r"\{(\w)\}", template)
    return re.compile("".join(re.escape(p) if i % 2 == 0 else SLOTS[p] for i, p in enumerate(parts)))


def literal(template: str) -> str:
    """The longest piece of a template between its fields: a text without it need not be matched."""
    return max(re.split(r"\{\w\}", template), key=len)


PATTERNS = [
    (r.name, pattern(text), literal(text)) for r in RELATIONS.values() for text in (*r.statements, *r.changes)
]  # fmt: skip


def has_type(world: World, value: str, kind: str) -> bool:
    if kind == "year":
        return re.fullmatch(r"1\d\d\d", value) is not None
    return value in (CLOSED[kind] if kind in CLOSED else world.entities[kind])


def read(world: World, sentence: str) -> set[Fact]:
    """Every fact that the sentence can be read as; a symmetric one from both sides."""
    found = set()
    for text in {sentence, sentence[0].lower() + sentence[1:]}:
        for name, form, piece in PATTERNS:
            match = form.fullmatch(text) if piece in text else None
            relation = RELATIONS[name]
            if match and has_type(world, match["s"], relation.subject) and has_type(world, match["o"], relation.object):
                day = match.groupdict().get("d")
                found.add(Fact(match["s"], name, match["o"], int(day) if day else None))
    return found


def both_sides(fact: Fact) -> set[Fact]:
    turned = Fact(fact.object, fact.relation, fact.subject, fact.day)
    return {fact, turned} if RELATIONS[fact.relation].symmetric else {fact}


def told_of(facts: Iterable[Fact], entity: str, relation: str) -> list[tuple[int, str]]:
    """(day, object) of everything said about one entity and relation, oldest first, undated as day 0."""
    said = []
    for fact in facts:
        for side in both_sides(fact):
            pair = (side.day or 0, side.object)
            if side.subject == entity and side.relation == relation and pair not in said:
                said.append(pair)
    return sorted(said, key=lambda pair: pair[0])


def objects(facts: Iterable[Fact], entity: str, relation: str, day: int = 365) -> list[str]:
    known = [value for at, value in told_of(facts, entity, relation) if at <= day]
    return list(dict.fromkeys(known)) if RELATIONS[relation].multi else known[-1:]


def answer(query: Query, facts: Sequence[Fact]) -> set[str]:
    """Answers that follow from the facts, by loops."""
    first, name = query.entities[0], query.relations[0]
    everyone = {end for fact in facts for side in both_sides(fact) for end in [side.subject]}
    states = told_of(facts, first, name)
    match query.kind:
        case "hop":
            graph = networkx.MultiDiGraph()
            for subject in everyone:
                for relation in set(query.relations):
                    for value in objects(facts, subject, relation):
                        graph.add_edge(subject, value, key=relation)
            reached = {first}
            for relation in query.relations:
                reached = {b for a, b, key in graph.out_edges(reached, keys=True) if key == relation}
            return reached
        case "list" | "now":
            return set(objects(facts, first, name))
        case "at":
            return set(objects(facts, first, name, query.day))
        case "inverse":
            return {subject for subject in everyone if first in objects(facts, subject, name)}
        case "ambiguous":
            namesakes = [e for e in everyone if re.sub(" the .*", "", e) == first]
            return {value for e in namesakes for value in objects(facts, e, name)}
        case "same":
            values = [objects(facts, entity, name) for entity in query.entities]
            return {"yes" if values[0] == values[1] else "no"} if all(values) else set()
        case "earlier":
            years = {entity: objects(facts, entity, name) for entity in query.entities}
            return {min(years, key=lambda entity: int(years[entity][0]))} if all(years.values()) else set()
        case "first":
            return {states[0][1]} if states else set()
        case "count":
            return {str(len(states) - 1)} if states else set()
        case "before":
            return {a[1] for a, b in itertools.pairwise(states) if b[1] == query.value}
        case "when":
            return {str(at) for at, value in states if value == query.value and at}
    raise AssertionError(query.kind)


def replay(facts: Iterable[Fact]) -> tuple[set[Fact], set[Fact]]:
    """What holds after all facts, and what held before: each fact against all others."""
    said = list(dict.fromkeys(facts))
    holds = set()
    for i, fact in enumerate(said):
        rivals = [
            (other.day or 0, j) for j, other in enumerate(said)
            if (other.subject, other.relation) == (fact.subject, fact.relation)
        ]  # fmt: skip
        if RELATIONS[fact.relation].multi or max(rivals) == (fact.day or 0, i):
            holds.add(fact)
    return holds, set(said) - holds


def any_part(rng: random.Random, facts: Sequence[Fact]) -> list[Fact]:
    """Some of the facts, in any order."""
    return rng.sample(facts, rng.randint(0, len(facts)))
