"""What the truth of the text world is for: demonstrations for writer and reader, the oracle, the scripted judge of r4.

A scripted writer acts by `Habits`: it stores a statement or not, in the right store or not, and rewrites core with what
the family needs there, or with a placeholder. Imperfect habits teach the tools and no good policy; which contents and
which store earn the reward is for reinforcement to find out.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from common.data.text_world.questions import UNKNOWN
from common.models.microlm.demonstrations import Demonstration
from projects.mem_alpha.data import Instance, Item, Question, Worlds
from projects.mem_alpha.method import Call, Count, Evidence, Memory, judgeable, recall, top
from projects.mem_alpha.prompts import DIALECTS, DONE, compact
from projects.mem_alpha.settings import FAMILIES, Habits, Rules, Settings

PLACEHOLDERS = ("core memory is empty", "nothing is here yet")
ORACLE = Habits(store=1.0, typed=1.0, filler=0.0, malformed=0.0, core=1.0, placeholder=0.0)
COMPACT = DIALECTS["compact"]


# --- the scripted writer --------------------------------------------------------------------------------------------


def calls(rng: random.Random, items: Sequence[Item], memory: Memory, habits: Habits) -> list[Call]:
    """What a scripted writer calls for a chunk."""
    if memory.rules.stores == ["core"]:
        return _paragraph(rng, items, memory, habits)
    made = []
    for item in items:
        filler = item.kind in ("filler", "topic")  # topics go to core
        if rng.random() < (habits.filler if filler else habits.store):
            right = "episodic" if item.kind == "event" else "semantic"
            wrong = "semantic" if item.kind == "event" else "episodic"
            made.append(Call("insert", right if rng.random() < habits.typed else wrong, item.text))
    if rng.random() < habits.core:
        if rng.random() < habits.placeholder:
            made.append(Call("update", "core", rng.choice(PLACEHOLDERS)))
        elif new := [text for item in items if rng.random() < habits.store and (text := _digest(item))]:
            old = "" if memory.core in PLACEHOLDERS else memory.core
            made.append(Call("update", "core", joined(old, new)))
    return made


def _digest(item: Item) -> str:
    """What core keeps of a statement: the rule of a sample, a topic, whom a fact is about."""
    if item.kind == "sample":
        return f"{item.about} {item.says}"
    if item.kind == "topic":
        return item.about
    return item.about.split()[0] if item.kind in ("fact", "event") else ""


def joined(old: str, new: Sequence[str]) -> str:
    """A core with what it does not hold yet at its end."""
    held = f" {old} "
    for text in new:
        if f" {text} " not in held:
            held += f"{text} "
    return " ".join(held.split())


def _paragraph(rng: random.Random, items: Sequence[Item], memory: Memory, habits: Habits) -> list[Call]:
    """The one paragraph of a flat memory: old words go first where there is no room."""
    new = [
        _digest(item) if item.kind in ("sample", "topic") else item.text
        for item in items
        if item.kind != "filler" and rng.random() < habits.store
    ]
    words = joined(memory.core, new).split()
    while words and memory.count(" ".join(words)) > memory.rules.core_tokens:
        words.pop(0)
    return [Call("update", "core", " ".join(words))] if words else []


def broken(rng: random.Random, text: str, habits: Habits) -> str:
    """The words of a call, without its tool or without its store where it is to be malformed."""
    if rng.random() >= habits.malformed:
        return text
    words = text.split()
    del words[rng.choice((0, 1))]
    return " ".join(words)


def written(rng: random.Random, instance: Instance, rules: Rules, habits: Habits, count: Count) -> Memory:
    """The memory of a scripted writer after the whole stream."""
    memory = Memory(rules, count)
    for items in instance.items:
        for call in calls(rng, items, memory, habits):
            memory.apply(call)
    return memory


def demonstrated(
    rng: random.Random, instance: Instance, rules: Rules, habits: Habits, count: Count
) -> list[Demonstration]:
    """A turn for each chunk; what is malformed is executed as it is read."""
    memory, shown = Memory(rules, count), []
    for chunk, items in zip(instance.chunks, instance.items, strict=True):
        texts = [broken(rng, compact(call), habits) for call in calls(rng, items, memory, habits)]
        answer = " ".join(texts) or DONE
        shown.append(Demonstration(tuple(COMPACT.writer(memory, chunk, rules.shown)), answer, instance.family))
        for call in COMPACT.parse(answer):
            memory.apply(call)
    return shown


def writer_lessons(settings: Settings, count: Count) -> list[Demonstration]:
    """The warm start: streams of the training split, of the length that reinforcement has."""
    worlds, lessons = Worlds(settings.streams, "train"), []
    for instance in worlds.draw(settings.warm.count, "warm", settings.rl.chunks):
        rng = random.Random(f"warm/{instance.id}")
        lessons += demonstrated(rng, instance, settings.rules, settings.warm.habits, count)
    return lessons


# --- the reader -----------------------------------------------------------------------------------------------------


def reader_lessons(settings: Settings, count: Count) -> list[Demonstration]:
    """Questions on memories and on passages of every quality; what the evidence does not hold is `unknown`."""
    worlds, lessons = Worlds(settings.streams, "train"), []
    for number in range(settings.reading.count):
        rng = random.Random(f"reader/{number}")
        family, chunks = FAMILIES[number % len(FAMILIES)], rng.choice(settings.reading.chunks)
        instance = worlds.one(family, f"reader/{number}", chunks)
        question = rng.choice(instance.questions or (Question("fact ?", ((UNKNOWN,),), "?"),))
        rules = Rules(core_tokens=settings.reading.core_tokens, k=settings.rules.k)
        evidence = _some_evidence(rng, instance, question, rules, count)
        prompt = tuple(COMPACT.reader(evidence, question.text))
        lessons.append(Demonstration(prompt, readable(instance, question, evidence), family))
    return lessons


def _some_evidence(rng: random.Random, instance: Instance, question: Question, rules: Rules, count: Count) -> Evidence:
    kind = rng.random()
    if kind < 0.25:
        k = rng.randint(1, 3)
        if rng.random() < 0.5:
            [best] = top(instance.chunks, [question.text], k)
            return Evidence(passages=tuple(instance.chunks[place] for place in best))
        return Evidence(passages=(" . ".join(instance.chunks[-k:]),))
    habits = Habits(rng.uniform(0.3, 1.0), rng.uniform(0.5, 1.0), 0.15, 0.0, 0.8, 0.2)
    if kind < 0.4:
        rules = replace(rules, stores=["core"], core_tokens=rng.randint(4, rules.core_tokens))
    memory = written(rng, instance, rules, habits, count)
    [evidence] = recall(memory, [question.text], rules.k)
    return evidence


def readable(instance: Instance, question: Question, evidence: Evidence) -> str:
    """What a reader can answer from the evidence: facts and samples from semantic, events from episodic, all from core.

    A statement in the wrong store is not read (README, Deviation 4).
    """
    free = " ".join((evidence.core, *evidence.passages)).split()
    if instance.family == "lru":
        return " ".join(dict.fromkeys(word for word in free if (word,) in question.golds)) or UNKNOWN
    if instance.family == "ttl":
        for text in (free, *(entry.split() for entry in evidence.semantic)):
            after = text[text.index(question.about) + 1 :] if question.about in text else []
            if found := next((word for word in after if word.isdecimal()), ""):
                return found
        return UNKNOWN
    for item in (item for items in instance.items for item in items):
        store = evidence.episodic if item.kind == "event" else evidence.semantic
        if item.about == question.about and (item.text in store or _within(item, free)):
            return item.says
    return UNKNOWN


def _within(item: Item, words: Sequence[str]) -> bool:
    """Whether a text holds what a fact or an event says; the day of an event may have gone."""
    return f" {item.about} {item.says} " in f" {' '.join(words)} "


# --- the scripted judge ---------------------------------------------------------------------------------------------


def valid(call: Call, instance: Instance) -> bool:
    """r4's verdict by the truth of the world, in place of an LM (README, Deviation 3).

    Core: not empty, no placeholder. Semantic: a fact, a sample or a sentence about a topic of this stream, word for
    word. Episodic: one of its events. What has no content to judge is not valid.
    """
    if not judgeable(call):
        return False
    content = " ".join(call.content.split())
    if call.store == "core":
        return content not in PLACEHOLDERS
    kinds = ("event",) if call.store == "episodic" else ("fact", "sample", "topic")
    return any(item.kind in kinds and item.text == content for items in instance.items for item in items)
