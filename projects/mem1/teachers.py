"""Demonstrations by teachers that know the text world: for the warm start, and for the SFT arm.

A teacher works through the questions in order, one query for each fact, and writes what it found as a note, in words of
the passage: `Kelan home: Dertona`. Of two hops the second takes the place of the first, `Kelan Balman home: Dertona`
that of `Kelan spouse: Balman`.
Teachers differ in what they keep, so that the base has every skill and no good memory policy: which of them earns the
reward is for RL to find out.

    accumulating    keeps every entry
    forgetful       keeps the newest alone; what it lacks it answers with `unknown`
    premature       keeps every entry, and answers before all is found
    full            has all turns in its context: it writes the newest entry and answers from what it read

Some of the turns have a fault, from which the teacher goes on: an older entry lost, a wrong value noted, a query about
another entity, a tag left out.

Reading is what a small model learns last, and a turn reads one fact. So there is `reading` beside the teachers: turns
after a query for several facts at once, which the state then names. No teacher makes such a query.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from common.data.text_world.names import new_name, type_of
from common.data.text_world.questions import UNKNOWN, Question
from common.data.text_world.relations import BY_SUBJECT, RELATIONS, Relation
from common.data.text_world.search import QUERY, oracle_queries
from common.data.text_world.text import Passage
from common.data.text_world.world import Fact
from common.experiments.errors import UserError
from common.models.language_model import Message
from common.models.microlm.demonstrations import Demonstration, Teacher
from projects.mem1.data import JOINER, Asked, Made, Task, Worlds, note, told
from projects.mem1.method import Step, budget, messages, observation, reward, well_formed
from projects.mem1.settings import READING, Imitation, Rules, Settings

FAULTS = ("lost", "wrong", "stray", "malformed")


@dataclass(frozen=True)
class Habits:
    """What a teacher does.

    Attributes:
        keeps: `all` entries, or the `newest`.
        answers_from: `state`, or `all` that it ever found.
        early: chance to answer after each fact although questions are open.
        faults: chance of a fault in each turn.
    """

    keeps: str = "all"
    answers_from: str = "state"
    early: float = 0.0
    faults: float = 0.0


HABITS = {
    "accumulating": Habits(),
    "forgetful": Habits(keeps="newest"),
    "premature": Habits(early=0.3),
    "full": Habits(keeps="newest", answers_from="all"),
}


@dataclass(frozen=True)
class Entry:
    """What is known of a question: the entity reached by so many hops."""

    hops: int
    value: str


Notes = dict[int, Entry]  # number of a question -> its entry, in the order in which they were first noted


def written(notes: Notes, questions: Sequence[Question]) -> str:
    """A state as text; `none` where nothing is known."""
    return JOINER.join(noted_of(questions[i], entry.hops, entry.value) for i, entry in notes.items()) or "none"


def noted_of(question: Question, hops: int, value: str) -> str:
    """What so many hops led to: the last fact as its passage has it, and before it the entity that is asked about."""
    fact = note(oracle_queries(question)[hops - 1], value)
    return fact if hops == 1 else f"{question.query.entities[0]} {fact}"


def answer_of(notes: Notes, questions: Sequence[Question]) -> str:
    """The answers in order; unknown where a question is open."""
    known = {i: entry.value for i, entry in notes.items() if entry.hops == questions[i].hops}
    return JOINER.join(known.get(i, UNKNOWN) for i in range(len(questions)))


def trajectory(rng: random.Random, task: Task, rules: Rules, habits: Habits) -> list[Step]:
    """All turns of a teacher on a task, to its answer; the turns of one with a fault in its tags end there."""
    assert task.truth is not None and task.retrieve is not None
    questions = task.truth.questions
    turns, tags = budget(len(questions), rules.turns), rules.tags
    notes: Notes = {}
    found: Notes = {}
    brought: list[Passage] = []
    at, hop = 0, 0  # the question that is worked on, and the next of its facts
    steps: list[Step] = []
    while True:
        fault = rng.choice(FAULTS) if rng.random() < habits.faults else ""
        if brought and (fact := questions[at].evidence[hop]) in {f for p in brought for f in p.facts}:
            value = _value(questions[at], hop)
            if fault == "wrong" and hop + 1 == questions[at].hops:
                value = _another(rng, brought, fact, value)
            hop += 1
            entry = Entry(hop, value)
            notes = {**(notes if habits.keeps == "all" else {}), at: entry}
            found[at] = entry
            if hop == questions[at].hops:
                at, hop = at + 1, 0
        older = list(notes)[:-1]
        if fault == "lost" and older:
            notes = dict(notes)
            del notes[rng.choice(older)]
        state = f"<{tags.state}> {written(notes, questions)} </{tags.state}>"
        early = bool(notes) and rng.random() < habits.early
        if at == len(questions) or len(steps) == turns - 1 or early:
            answers = answer_of(found if habits.answers_from == "all" else notes, questions)
            text = f"{state} <{tags.answer}> {answers} </{tags.answer}>"
            return [*steps, Step(tagged(rng, text) if fault == "malformed" else text)]
        query = oracle_queries(questions[at])[hop]
        if fault == "stray":
            query = rng.choice(oracle_queries(rng.choice(questions)))
        text = f"{state} <{tags.query}> {query} </{tags.query}>"
        if fault == "malformed":
            text = tagged(rng, text)
        if not well_formed(text, tags):
            return [*steps, Step(text)]
        brought = task.retrieve(query)
        steps.append(Step(text, query, observation(task.search(query), turns - len(steps) - 1, tags)))


def _value(question: Question, hop: int) -> str:
    """The entity that a question's first hop + 1 facts lead to."""
    entity = question.query.entities[0]
    for fact in question.evidence[: hop + 1]:
        entity = fact.from_side(entity)
    return entity


def _another(rng: random.Random, passages: Sequence[Passage], fact: Fact, value: str) -> str:
    """The object of another fact that was read, of the same relation where there is one; or the value itself."""
    read = [f for passage in passages for sentence in passage.sentences for f in sentence.facts]
    others = [f for f in read if value not in (f.subject, f.object)]
    alike = [f.object for f in others if f.relation == fact.relation]
    return rng.choice(alike or [f.object for f in others] or [value])


def tagged(rng: random.Random, text: str) -> str:
    """The text, with one of its tags left out."""
    marks = [i for i, character in enumerate(text) if character == "<"]
    start = rng.choice(marks)
    return text[:start] + text[text.index(">", start) + 1 :]


# --- what is taught -------------------------------------------------------------------------------------------------


def snippet(name: str, worlds: Worlds, settings: Settings, rng: random.Random) -> Demonstration:
    """One turn of one teacher: its context and what it wrote."""
    full = name == "full"
    objectives = rng.choice(settings.taught_full if full else settings.taught_pruned)
    rules = replace(settings.rules, context="full" if full else "pruned")
    task = worlds.task(rng, objectives)
    steps = trajectory(rng, task, rules, replace(HABITS[name], faults=settings.faults))
    # The answering turn is one of many, and what is paid for: it is shown more often than it occurs.
    number = len(steps) - 1 if rng.random() < settings.taught_answers else rng.randrange(len(steps))
    return turn_of(task, steps, number, rules)


def reading(worlds: Worlds, settings: Settings, rng: random.Random) -> Demonstration | None:
    """A turn after a query for several facts, all of them found: what was known, and them, written as a state."""
    rules, tags = replace(settings.rules, context="pruned"), settings.rules.tags
    objectives = rng.choice(settings.taught_pruned)
    task = worlds.task(rng, objectives)
    assert task.truth is not None and task.retrieve is not None
    asked = task.truth.questions
    passages = task.retrieve(oracle_queries(rng.choice(asked))[0])[: rng.randint(1, settings.questions.k)]
    facts = list(dict.fromkeys(fact for passage in passages for fact in told(passage)))
    facts = [fact for fact in facts if sum(other[:2] == fact[:2] for other in facts) == 1]
    items = rng.sample(facts, min(len(facts), rng.randint(2, 8)))
    if len(items) < 2:
        return None
    known = rng.randint(0, max(0, objectives - len(items)))
    sought = [_sought(rng, *item) for item in items]
    sought.sort(key=lambda one: not one.before)
    questions = [*task.questions[:known], *(one.question for one in sought)]
    questions += task.questions[len(questions) : objectives]
    old = [noted_of(question, question.hops, question.answer) for question in asked[:known]]
    before = [*old, *(one.before for one in sought if one.before)]
    after = [*old, *(one.after for one in sought)]
    query = JOINER.join(one.query for one in sought)
    left = rng.randint(2, budget(len(questions), rules.turns))
    turn = f"<{tags.state}> {JOINER.join(before) or 'none'} </{tags.state}> <{tags.query}> {query} </{tags.query}>"
    shown = [worlds.said(passage) for passage in passages]
    prompt = messages(
        replace(task, questions=tuple(questions)), [Step(turn, query, observation(shown, left, tags))], rules
    )
    following = [one.following for one in sought if one.following]
    if len(questions) > known + len(sought):
        following.append(oracle_queries(asked[known + len(sought)])[0])
    answers = [*(question.answer for question in asked[:known]), *(one.value for one in sought)]
    action = f"<{tags.answer}> {JOINER.join(answers)} </{tags.answer}>"
    if following:
        action = f"<{tags.query}> {following[0]} </{tags.query}>"
    return Demonstration(tuple(prompt), f"<{tags.state}> {JOINER.join(after)} </{tags.state}> {action}")


@dataclass(frozen=True)
class Sought:
    """A question that one fact answers, or brings nearer: its note in the state before and after, the fact's query
    and value, and the query that follows where the question stays open."""

    question: str
    query: str
    value: str
    before: str
    after: str
    following: str


def _sought(rng: random.Random, about: str, relation: Relation, value: str) -> Sought:
    """A question of one hop or two, the fact being either of them."""
    query = QUERY.format(s=about, key=relation.key)
    onward = BY_SUBJECT.get(relation.object, ())
    leading = [r for r in RELATIONS.values() if r.object == type_of(about)]
    form = rng.choice(("one hop", "first of two", "second of two"))
    if form == "first of two" and onward:
        second = rng.choice(onward).key
        return Sought(f"{query} {second}", query, value, "", note(query, value), QUERY.format(s=value, key=second))
    if form == "second of two" and leading:
        first = rng.choice(leading)
        start = new_name(rng, first.subject, "train", taken=())
        before = note(QUERY.format(s=start, key=first.key), about)
        return Sought(f"{start} {first.key} {relation.key}", query, value, before, f"{start} {note(query, value)}", "")
    return Sought(query, query, value, "", note(query, value), "")


def turn_of(task: Asked, steps: Sequence[Step], number: int, rules: Rules) -> Demonstration:
    """A turn of a trajectory as an example: context -> state and action."""
    prompt: tuple[Message, ...] = tuple(messages(task, steps[:number], rules))
    return Demonstration(prompt, steps[number].text)


def teachers(worlds: Worlds, settings: Settings) -> Mapping[str, Teacher]:
    """Name -> teacher, for `demonstrations.teach`."""
    return {
        **{name: partial(snippet, name, worlds, settings) for name in HABITS},
        READING: partial(reading, worlds, settings),
    }


def performed(rng: random.Random, task: Task, rules: Rules, faults: float) -> list[Step]:
    """The trajectory of the accumulating teacher, with faults at this share of its turns."""
    return trajectory(rng, task, rules, replace(HABITS["accumulating"], faults=faults))


def right(task: Task, steps: Sequence[Step], rules: Rules) -> bool:
    """Whether a trajectory answers every question."""
    return earned(task, steps, rules) == len(task.questions)


def earned(task: Task, steps: Sequence[Step], rules: Rules) -> float:
    """Reward of a trajectory."""
    tags = rules.tags
    answer = steps[-1].text.rpartition(f"<{tags.answer}>")[2].removesuffix(f"</{tags.answer}>")
    return reward(answer, task.golds, all(well_formed(step.text, tags) for step in steps))


def imitated(
    source: Made,
    sft: Imitation,
    rules: Rules,
    seed: int,
    performed: Callable[[random.Random, Any, Rules, float], list[Step]],
    right: Callable[[Any, Sequence[Step], Rules], bool],
) -> list[Demonstration]:
    """Every turn of the trajectories of a faulty accumulating teacher that are right (Sec. 4.4).

    Args:
        performed, right: the teacher of such tasks, and the filter.

    Raises:
        UserError: no trajectory passed the filter.
    """
    rules = replace(rules, context="pruned")
    shown: list[Demonstration] = []
    for number in range(sft.trajectories):
        rng = random.Random(f"imitated/{seed}/{number}")
        task = source.task(rng, sft.objectives[number % len(sft.objectives)])
        steps = performed(rng, task, rules, sft.faults)
        if right(task, steps, rules):
            shown += [turn_of(task, steps, turn, rules) for turn in range(len(steps))]
    if not shown:
        raise UserError(f"none of {sft.trajectories} trajectories was right: lower sft.faults, or raise their number")
    return shown
