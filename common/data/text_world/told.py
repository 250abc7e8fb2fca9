"""What a stream or a dialogue has told so far: the gold memory state, and questions that it answers."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.data.text_world.names import TYPES
from common.data.text_world.questions import KINDS, UNKNOWN, Query, Question, make_question
from common.data.text_world.relations import BY_SUBJECT, RELATIONS
from common.data.text_world.text import note_line
from common.data.text_world.world import Fact, World, kind_of


@dataclass(frozen=True)
class MemoryState:
    """What a perfect memory holds.

    Attributes:
        holds: facts that hold now, in the order first told; a newer state stands in the place of the older one.
        superseded: facts that held once, in the order in which that became known.
    """

    holds: tuple[Fact, ...] = ()
    superseded: tuple[Fact, ...] = ()

    def after(self, facts: Iterable[Fact]) -> "MemoryState":
        """The state once `facts` are told, in their order.

        Undated facts are older than dated ones; of two facts of one day the later told wins.
        """
        holds = {_slot(fact): fact for fact in self.holds}
        superseded = dict.fromkeys(self.superseded)
        for fact in facts:
            known = holds.get(_slot(fact))
            if fact == known or fact in superseded:
                continue
            if known is None or (fact.day or 0) >= (known.day or 0):
                holds[_slot(fact)] = fact
                older = known
            else:
                older = fact
            if older is not None:
                superseded[older] = None
        return MemoryState(tuple(holds.values()), tuple(superseded))

    def lines(self) -> list[str]:
        """What holds now, as note lines."""
        return [note_line(fact.subject, fact.relation, fact.object) for fact in self.holds]


def _slot(fact: Fact) -> tuple[str, ...]:
    """What of a memory a fact fills: two facts of one slot exclude each other."""
    return fact[:3] if RELATIONS[fact.relation].multi else fact[:2]


def told_world(world: World, facts: Iterable[Fact]) -> World:
    """The world as far as `facts` tell it: its entities are those that they mention (of a type without any: all)."""
    known: dict[tuple[str, str], list[Fact]] = {}
    mentioned: dict[str, dict[str, None]] = {kind: {} for kind in TYPES}
    for fact in sorted(dict.fromkeys(facts), key=lambda fact: fact.day or 0):
        relation = RELATIONS[fact.relation]
        for entity in (fact.subject, fact.object) if relation.symmetric else (fact.subject,):
            known.setdefault((entity, fact.relation), []).append(fact)
        mentioned[relation.subject][fact.subject] = None
        if relation.object in TYPES:
            mentioned[relation.object][fact.object] = None
    return World(world.split, {kind: list(mentioned[kind]) or world.entities[kind] for kind in TYPES}, known)


@dataclass(frozen=True)
class Asked:
    """A question about what was told.

    Attributes:
        places: for each fact of the evidence, the numbers of the parts (chunks, turns) that state it, first told first.
    """

    question: Question
    places: tuple[tuple[int, ...], ...]


def ask(
    rng: random.Random, world: World, told: Sequence[Sequence[Fact]], kinds: Sequence[str], count: int, hops: int = 1
) -> list[Asked]:
    """Distinct questions, `kinds` in turn, answered by what was told; fewer than `count` when it answers no more.

    Args:
        world: the world that was told; its names serve for types of which nothing was told.
        told: the facts of each part, in order.
        kinds: of `questions.KINDS`, or "unknown": a fact of a known entity that was not told.
        hops: of the questions of kind `hop`, 1 to 4.

    Raises:
        ValueError: an unknown kind, or none; hops out of range.
    """
    if not kinds:
        raise ValueError("kinds must name at least one kind of question")
    if unknown := [kind for kind in kinds if kind not in KINDS and kind != UNKNOWN]:
        raise ValueError(f"kinds must be of {', '.join((*KINDS, UNKNOWN))}, not '{unknown[0]}'")
    known = told_world(world, (fact for part in told for fact in part))
    if not known.facts:
        return []
    found: dict[Query, Question] = {}
    for draw in range(200 + 20 * count):
        kind = kinds[draw % len(kinds)]
        question = _untold(rng, known) if kind == UNKNOWN else make_question(rng, known, kind, hops)
        if question is not None:
            found.setdefault(question.query, question)
        if len(found) == count:
            break
    return _placed(found.values(), told)


def ask_each(rng: random.Random, world: World, told: Sequence[Sequence[Fact]]) -> list[Asked]:
    """One question for each state told: the object that holds now, or all objects of a multi-valued relation."""
    known = told_world(world, (fact for part in told for fact in part))
    questions = []
    seen: set[Fact] = set()
    for (entity, name), facts in known.facts.items():
        if seen.issuperset(facts):
            continue  # a symmetric fact, asked from its other side
        seen.update(facts)
        relation = RELATIONS[name]
        query = Query("list" if relation.multi else "hop", (entity,), (name,))
        evidence = facts if relation.multi else facts[-1:]
        text = rng.choice(relation.questions).format(s=entity)
        questions.append(Question(text, query, tuple(known.current(entity, name)), tuple(evidence), 1))
    return _placed(questions, told)


def _untold(rng: random.Random, known: World) -> Question | None:
    entity = rng.choice(list(known.facts))[0]
    choices = [relation for relation in BY_SUBJECT[kind_of(entity)] if not known.of(entity, relation.name)]
    if not choices:
        return None
    relation = rng.choice(choices)
    query = Query("list" if relation.multi else "hop", (entity,), (relation.name,))
    return Question(rng.choice(relation.questions).format(s=entity), query, (UNKNOWN,), (), 1)


def _placed(questions: Iterable[Question], told: Sequence[Sequence[Fact]]) -> list[Asked]:
    places: dict[Fact, list[int]] = {}
    for number, part in enumerate(told):
        for fact in dict.fromkeys(part):
            places.setdefault(fact, []).append(number)
    return [Asked(q, tuple(tuple(places[fact]) for fact in q.evidence)) for q in questions]
