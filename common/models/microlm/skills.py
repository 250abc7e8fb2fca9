"""MicroLM's base skills: each with its own prompt and exact gold answers, on worlds of the text world.

An item is a conversation of user and assistant turns; the assistant's texts are the targets in training, and the last
one is what a test compares with (see `evaluate.py` for how).
"""

import json
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.data.text_world.names import TYPES, Split, look_alike, new_name
from common.data.text_world.questions import UNKNOWN, Query, Question, make_question, solve
from common.data.text_world.relations import BY_SUBJECT, RELATIONS
from common.data.text_world.text import Noise, Passage, filler, note_line, passage_about, state
from common.data.text_world.told import MemoryState
from common.data.text_world.topics import TOPIC_SENTENCES, TOPICS
from common.data.text_world.world import Dials, Fact, World, kind_of, make_world, short_name

# Prompts, whole.
READ = "Read the passages and answer the question.\n{passages}\nQuestion: {question}"
READ_NOTES = "Answer the question from the notes.\nNotes:\n{notes}\nQuestion: {question}"
ASK = "Question: {question}"
NEXT_PASSAGE = "Passage: {passage}"
RELEVANT = "Is the passage relevant to the question?\nQuestion: {question}\nNotes:\n{notes}\nPassage: {passage}"
EXTRACT = "Extract the sentences that help.\nQuestion: {question}\nNotes:\n{notes}\nPassage: {passage}"
SUFFICIENT = "Do the notes answer the question?\nQuestion: {question}\nNotes:\n{notes}"
NEXT_QUERY = "Write the next search query.\nQuestion: {question}\nNotes:\n{notes}"
UPDATE = "Update the notes with the text.\nNotes:\n{notes}\nText: {text}"
SUMMARISE = "List the topics so far.\nTopics: {topics}\nText: {text}"
TOOL = "Call the right tool: memory_insert, memory_update, memory_delete or search.\n{request}"
TOOL_READ = "{call}\n<tool_response>{response}</tool_response>\nQuestion: {question}"
CRITIQUE = "Check the notes against the text.\nText: {text}\nNotes:\n{notes}"
REPAIR = "Repair the notes.\nText: {text}\nNotes:\n{notes}\nReview: {review}"
RECALL = "Answer from memory.\nQuestion: {question}"
COPY = "Repeat: {text}"
REQUESTS = {
    "memory_insert": ("Remember this: {text}", "Store this: {text}", "Keep in mind: {text}"),
    "memory_update": ("Replace note {id} by this: {text}", "Note {id} changed: {text}"),
    "memory_delete": ("Forget note {id}.", "Delete note {id}."),
    "search": ("Find out: {text}", "Search for this: {text}"),
}
PROMPTS = (
    READ, READ_NOTES, ASK, NEXT_PASSAGE, RELEVANT, EXTRACT, SUFFICIENT, NEXT_QUERY, UPDATE, SUMMARISE, TOOL,
    TOOL_READ, CRITIQUE, REPAIR, RECALL, COPY, *(text for texts in REQUESTS.values() for text in texts),
    "yes no none correct wrong missing unsupported id content name arguments results query",
)  # fmt: skip
NONE = "none"  # empty notes, nothing to extract
PASSAGES = 8  # most passages under one question

TAUGHT = Dials(people=48, cities=16, companies=12, countries=6, changes=0.0)


@dataclass(frozen=True)
class Item:
    """One conversation.

    Attributes:
        skill: a key of SKILLS.
        turns: (user, assistant) texts, in order.
        either: whether the last answer is a list joined by `; ` whose order is free.
    """

    skill: str
    turns: tuple[tuple[str, str], ...]
    either: bool = False

    @property
    def prompt(self) -> list[dict[str, str]]:
        """Messages up to the last answer."""
        messages = []
        for user, assistant in self.turns:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        return messages[:-1]

    @property
    def answer(self) -> str:
        """The gold answer to the last turn."""
        return self.turns[-1][1]


@dataclass(frozen=True)
class Level:
    """Difficulty of what is drawn.

    Attributes:
        passages: numbers of passages to draw from.
        facts: most facts of a passage beside those that are needed.
        hops: numbers of hops to draw from.
        turns: most questions about one text, >= 1: the first shows it, later ones ask again without it; most passages
            under one question. In training every answer is a target, in tests the last alone.
        notes: most note lines.
        names: share of worlds, in [0, 1], whose names have a middle part.
    """

    passages: tuple[int, ...] = (2, 4, 8, 16)
    facts: int = 3
    hops: tuple[int, ...] = (1, 2, 3)
    turns: int = 1
    notes: int = 6
    names: float = 0.15


def draw_world(rng: random.Random, split: Split, level: Level) -> World:
    """A world for a few items, sizes and dials drawn."""
    dials = Dials(
        people=rng.randint(8, 20),
        cities=rng.randint(4, 10),
        companies=rng.randint(3, 8),
        countries=rng.randint(2, 5),
        look_alikes=rng.choice((0.0, 0.3, 0.6)),
        middles=int(rng.random() < level.names),
        homonyms=rng.choice((0.0, 0.0, 0.4)),
        density=rng.choice((0.6, 0.9)),
        changes=rng.choice((0.0, 0.5, 1.5)),
    )
    return make_world(rng.getrandbits(63), split, dials)


def taught_world() -> World:
    """The closed set of facts that the base is taught to answer without a text: one fixed world."""
    return make_world("taught", "train", TAUGHT)


# Reading.


def gather(
    rng: random.Random, world: World, question: Question, count: int, facts: int, drop: Fact | None = None
) -> list[Passage]:
    """`count` passages, in random order: the evidence of the question and distractors.

    Args:
        facts: most facts of a passage beside the evidence.
        drop: a fact of the evidence that no passage may state, nor any other fact of its entity and relation.
    """
    noise = Noise(others=0.15, fillers=0.15)
    banned = {(drop.subject, drop.relation)} if drop else set()
    if drop and RELATIONS[drop.relation].symmetric:
        banned.add((drop.object, drop.relation))
    needed = [fact for fact in question.evidence if fact != drop]
    groups: dict[str, list[Fact]] = {}
    for fact in needed:
        groups.setdefault(fact.subject, []).append(fact)
    speakers = list(groups)
    rivals = [
        (e, fact.relation)
        for fact in question.evidence
        for e in world.entities[kind_of(fact.subject)]
        if e not in groups and (drop is None or e != drop.subject)
    ]
    rivals.sort(
        key=lambda rival: (not any(look_alike(short_name(rival[0]), short_name(s)) for s in speakers), rng.random())
    )
    about = list(speakers[:count])
    if drop and drop.subject not in about and len(about) < count and rng.random() < 0.7:
        about.append(drop.subject)  # the right entity, without the fact
    while len(about) < count:
        entity, relation = rivals.pop(0) if rivals and rng.random() < 0.5 else (_anyone(rng, world), "")
        if entity in about and rng.random() < 0.7:
            continue
        about.append(entity)
        if relation:
            groups.setdefault(entity, []).extend(world.of(entity, relation)[-1:])
    passages = []
    inverse = question.query if question.query.kind == "inverse" else None
    for entity in about:
        stated = groups.pop(entity, [])
        own = [
            fact
            for relation in world.relations(entity)
            for fact in world.of(entity, relation.name)
            if fact not in stated and (entity, relation.name) not in banned
        ]
        if inverse:
            own = [f for f in own if not (f.relation in inverse.relations and inverse.entities[0] in f)]
        stated = [f for f in stated if (f.subject, f.relation) not in banned]
        stated += rng.sample(own, min(len(own), rng.randint(0 if stated else 1, facts)))
        passages.append(_clean(passage_about(rng, world, entity, stated, noise), banned, inverse, question))
    rng.shuffle(passages)
    return [passage for passage in passages if passage.sentences] or [Passage("", "", (filler(rng),))]


def _clean(passage: Passage, banned: Collection[tuple[str, str]], inverse: Query | None, question: Question) -> Passage:
    """The passage without noise that states what must not be stated."""
    kept = [
        sentence
        for sentence in passage.sentences
        if not any((f.subject, f.relation) in banned or (f.object, f.relation) in banned for f in sentence.facts)
        and not (
            inverse
            and any(
                f.relation in inverse.relations and inverse.entities[0] in f and f not in question.evidence
                for f in sentence.facts
            )
        )
    ]
    return Passage(passage.id, passage.title, tuple(kept))


def numbered(passages: Sequence[Passage]) -> str:
    """`[1] …` lines."""
    return "\n".join(f"[{i}] {passage.text}" for i, passage in enumerate(passages, 1))


def _shown(passages: Sequence[Passage]) -> list[Fact]:
    return [fact for passage in passages for sentence in passage.sentences for fact in sentence.facts]


def _reading(rng: random.Random, world: World, level: Level, skill: str, kind: str, hops: int = 1) -> Item | None:
    question = make_question(rng, world, kind, hops)
    if question is None:
        return None
    count = max(rng.choice(level.passages), len({fact.subject for fact in question.evidence}))
    if count > max(level.passages):
        return None
    passages = gather(rng, world, question, count, level.facts)
    shown = _shown(passages)
    found = solve(question.query, shown)
    if set(found) != set(question.answers):
        return None
    first = (READ.format(passages=numbered(passages), question=question.text), "; ".join(found))
    return Item(skill, (first, *_follow_ups(rng, shown, level)), len(question.answers) > 1)


def _follow_ups(rng: random.Random, shown: Sequence[Fact], level: Level) -> list[tuple[str, str]]:
    """More questions about the same text, answered by what the text says."""
    if not shown or level.turns == 1:
        return []
    return [
        (rng.random() < 0.3 and _chained(rng, shown)) or _follow_up(rng, shown)
        for _ in range(rng.randint(0, level.turns - 1))
    ]


def _chained(rng: random.Random, shown: Sequence[Fact]) -> tuple[str, str] | None:
    """A question of two hops about a text, most often about two facts of it of which one leads to the other."""
    single = [fact for fact in shown if not RELATIONS[fact.relation].multi]
    pairs = [(first, then.relation) for first in single for then in single if first.object == then.subject]
    if not pairs or rng.random() < 0.12:
        leads = [fact for fact in single if RELATIONS[fact.relation].object in TYPES]
        pairs = [(fact, r.name) for fact in leads for r in BY_SUBJECT[kind_of(fact.object)] if not r.multi]
    if not pairs:
        return None
    fact, then = rng.choice(pairs)
    found = solve(Query("hop", (fact.subject,), (fact.relation, then)), shown)
    if fact.subject in found:
        return None
    phrase = rng.choice(RELATIONS[fact.relation].phrases).format(s=fact.subject)
    return ASK.format(question=rng.choice(RELATIONS[then].questions).format(s=phrase)), "; ".join(found) or UNKNOWN


def _follow_up(rng: random.Random, shown: Sequence[Fact]) -> tuple[str, str]:
    """A question of one hop about a text."""
    fact = rng.choice(shown)
    entity = fact.object if RELATIONS[fact.relation].symmetric and rng.random() < 0.5 else fact.subject
    relation = RELATIONS[fact.relation]
    if rng.random() < 0.12:
        relation = rng.choice(BY_SUBJECT[kind_of(entity)])
    text = rng.choice(relation.questions).format(s=entity)
    found = solve(Query("list" if relation.multi else "hop", (entity,), (relation.name,)), shown)
    return ASK.format(question=text), "; ".join(found) or UNKNOWN


def read_hops(rng: random.Random, world: World, level: Level) -> Item | None:
    """Answer a question of one to three hops from passages."""
    return _reading(rng, world, level, "read", "hop", rng.choice(level.hops))


def read_compare(rng: random.Random, world: World, level: Level) -> Item | None:
    """Compare two entities: who was earlier, or whether they agree."""
    return _reading(rng, world, level, "compare", rng.choice(("same", "earlier")))


def read_list(rng: random.Random, world: World, level: Level) -> Item | None:
    """Give all answers: several objects, several subjects, several people of one name."""
    return _reading(rng, world, level, "list", rng.choice(("list", "list", "inverse", "ambiguous")))


def read_temporal(rng: random.Random, world: World, level: Level) -> Item | None:
    """Answer about states that changed: now, at first, before, on a day, how often."""
    kind = rng.choice(("now", "now", "first", "before", "at", "count"))
    return _reading(rng, world, level, "temporal", kind)


def read_unknown(rng: random.Random, world: World, level: Level) -> Item | None:
    """Say that the passages do not answer the question."""
    hops = rng.choice(level.hops)
    question = make_question(rng, world, "hop", hops)
    if question is None:
        return None
    count = rng.choice(level.passages) if rng.random() < 0.95 else 0
    passages = gather(rng, world, question, count, level.facts, rng.choice(question.evidence)) if count else []
    if solve(question.query, _shown(passages)):
        return None
    prompt = READ.format(passages=numbered(passages), question=question.text)
    return Item("unknown", ((prompt, UNKNOWN), *_follow_ups(rng, _shown(passages), level)))


def recall(rng: random.Random, world: World, level: Level) -> Item | None:
    """Tell many subjects of one relation apart: only the name says which sentence answers."""
    relation = rng.choice([r for r in RELATIONS.values() if not r.multi and not r.symmetric])
    subjects = [e for e in world.entities[relation.subject] if world.of(e, relation.name)]
    if len(subjects) < 2:
        return None
    chosen = rng.sample(subjects, min(len(subjects), rng.randint(2, 3 * max(level.passages))))
    facts = [world.of(subject, relation.name)[-1] for subject in chosen]
    sentences = [state(rng, fact) for fact in facts]
    passages = []
    while sentences:
        passages.append(Passage("", "", tuple(sentences[: (size := rng.randint(1, 3))])))
        sentences = sentences[size:]
    asked = rng.sample(facts, min(len(facts), rng.randint(1, max(2, level.turns))))
    texts = [rng.choice(relation.questions).format(s=fact.subject) for fact in asked]
    turns = [(READ.format(passages=numbered(passages), question=texts[0]), asked[0].object)]
    turns += [(ASK.format(question=text), fact.object) for text, fact in zip(texts[1:], asked[1:], strict=True)]
    return Item("recall", tuple(turns))


# Notes about a question under way.


@dataclass(frozen=True)
class _Search:
    """A question of which the first `found` facts stand in the notes."""

    question: Question
    found: int
    notes: str

    @property
    def needed(self) -> Fact:
        return self.question.evidence[self.found]


def _under_way(rng: random.Random, world: World, level: Level, complete: bool = False) -> _Search | None:
    """A hop question with all of its facts noted, or some, among notes that do not matter."""
    question = make_question(rng, world, "hop", rng.choice(level.hops))
    if question is None:
        return None
    found = len(question.evidence) if complete else rng.randrange(len(question.evidence))
    entity, lines = question.query.entities[0], []
    for fact in question.evidence[:found]:
        lines.append(note_line(entity, fact.relation, fact.from_side(entity)))
        entity = fact.from_side(entity)
    for fact in _other_facts(rng, world, question, rng.randint(0, 3) if rng.random() < 0.5 else 0):
        lines.insert(rng.randint(0, len(lines)), note_line(fact.subject, fact.relation, fact.object))
    return _Search(question, found, "\n".join(lines) or NONE)


def _other_facts(rng: random.Random, world: World, question: Question, count: int) -> list[Fact]:
    links = {(fact.subject, fact.relation) for fact in question.evidence}
    links |= {(fact.object, fact.relation) for fact in question.evidence}
    facts = [_any_fact(rng, world) for _ in range(count)]
    return [f for f in facts if (f.subject, f.relation) not in links and (f.object, f.relation) not in links]


def _any_fact(rng: random.Random, world: World) -> Fact:
    entity, relation = rng.choice(list(world.facts))
    return world.of(entity, relation)[-1]


def _subject_passage(
    rng: random.Random, world: World, search: _Search, level: Level, relevant: bool
) -> tuple[Passage, Fact] | None:
    """A passage that states the needed fact, or one that comes near without it."""
    needed, noise = search.needed, Noise(others=0.3, fillers=0.2)
    links = {(f.subject, f.relation) for f in search.question.evidence}
    links |= {(f.object, f.relation) for f in search.question.evidence}
    entity = needed.subject
    if not relevant:
        kind = kind_of(entity)
        alike = [e for e in world.entities[kind] if look_alike(short_name(e), short_name(entity))]
        roll = rng.random()
        if roll < 0.35 and alike:
            entity = rng.choice(alike)
        elif roll < 0.7:
            entity = rng.choice(world.entities[kind])
    own = [f for r in world.relations(entity) for f in world.of(entity, r.name) if (entity, r.name) not in links]
    if not relevant and entity != needed.subject:
        rival = [f for f in world.of(entity, needed.relation) if needed.subject not in f]
        stated = rival[-1:] if rng.random() < 0.6 else []
    else:
        stated = [needed] if relevant else []
    stated += rng.sample(own, min(len(own), rng.randint(0 if stated else 1, level.facts)))
    passage = passage_about(rng, world, entity, list(dict.fromkeys(stated)), noise)
    banned = links - {(needed.subject, needed.relation), (needed.object, needed.relation)} if relevant else links
    passage = _clean(passage, banned, None, search.question)
    if not passage.sentences or (needed in passage.facts) != relevant:
        return None
    return passage, needed


def relevance(rng: random.Random, world: World, level: Level) -> Item | None:
    """Whether a passage brings the next fact that the question needs."""
    search = _under_way(rng, world, level)
    relevant = rng.random() < 0.5
    drawn = _subject_passage(rng, world, search, level, relevant) if search else None
    if search is None or drawn is None:
        return None
    prompt = RELEVANT.format(question=search.question.text, notes=search.notes, passage=drawn[0].text)
    more = [(passage, "yes" if useful else "no") for passage, useful in _more_passages(rng, world, search, level, 0.5)]
    return Item("relevance", ((prompt, "yes" if relevant else "no"), *more))


def _more_passages(
    rng: random.Random, world: World, search: _Search, level: Level, share: float
) -> Iterator[tuple[str, str]]:
    """Prompts with further passages under the same question, that `share` of which bring the next fact, and the
    sentences that do."""
    for _ in range(rng.randint(0, min(level.turns, PASSAGES) - 1) if level.turns > 1 else 0):
        if drawn := _subject_passage(rng, world, search, level, rng.random() < share):
            yield NEXT_PASSAGE.format(passage=drawn[0].text), _useful(*drawn)


def _useful(passage: Passage, needed: Fact) -> str:
    """The sentences that state a fact."""
    return " ".join(sentence.text for sentence in passage.sentences if needed in sentence.facts)


def extract(rng: random.Random, world: World, level: Level) -> Item | None:
    """Copy the sentences of a passage that bring the next fact, or say that none does."""
    search = _under_way(rng, world, level)
    relevant = rng.random() < 0.8
    drawn = _subject_passage(rng, world, search, level, relevant) if search else None
    if search is None or drawn is None:
        return None
    prompt = EXTRACT.format(question=search.question.text, notes=search.notes, passage=drawn[0].text)
    more = [(shown, text or NONE) for shown, text in _more_passages(rng, world, search, level, 0.8)]
    return Item("extract", ((prompt, _useful(*drawn) or NONE), *more))


def sufficient(rng: random.Random, world: World, level: Level) -> Item | None:
    """Whether the notes hold every fact that the question needs."""
    enough = rng.random() < 0.5
    search = _under_way(rng, world, level, complete=enough)
    if search is None:
        return None
    prompt = SUFFICIENT.format(question=search.question.text, notes=search.notes)
    return Item("sufficient", ((prompt, "yes" if enough else "no"),))


def next_query(rng: random.Random, world: World, level: Level) -> Item | None:
    """Name the entity and the attribute to look for next: `Dertex headquarters`."""
    search = _under_way(rng, world, level)
    if search is None:
        return None
    question = search.question
    entity = question.query.entities[0]
    for fact in question.evidence[: search.found]:
        entity = fact.from_side(entity)
    answer = f"{entity} {RELATIONS[search.needed.relation].key}"
    prompt = NEXT_QUERY.format(question=question.text, notes=search.notes)
    return Item("next_query", ((prompt, answer),))


def read_notes(rng: random.Random, world: World, level: Level) -> Item | None:
    """Answer from notes alone, or say that they do not."""
    complete = rng.random() < 0.75
    search = _under_way(rng, world, level, complete)
    if search is None:
        return None
    prompt = READ_NOTES.format(question=search.question.text, notes=search.notes)
    answer = search.question.answer if complete else UNKNOWN
    return Item("read_notes", ((prompt, answer),))


# Keeping notes.


def dated_line(fact: Fact) -> str:
    """A note line; a dated fact keeps its day: `Balman | home | Dertona | day 12`."""
    line = note_line(fact.subject, fact.relation, fact.object)
    return line if fact.day is None else f"{line} | day {fact.day}"


def _noted(notes: Iterable[Fact], stated: Iterable[Fact]) -> list[Fact]:
    """Notes after a text, by the rule of the text world: a newer state takes the place of the older."""
    return list(MemoryState(tuple(notes)).after(stated).holds)


def _lines(facts: Sequence[Fact]) -> str:
    return "\n".join(dated_line(fact) for fact in facts) or NONE


def _notes_and_text(
    rng: random.Random, world: World, level: Level, changing: bool
) -> tuple[list[Fact], Passage] | None:
    """Noted facts and a text; `changing`: the text supersedes at least one of them."""
    entity = _anyone(rng, world)
    own = [f for r in world.relations(entity) for f in world.of(entity, r.name)]
    if changing:
        pairs = [
            (e, r) for (e, r), facts in world.facts.items() if len(facts) > 1 and not RELATIONS[r].multi
        ]  # fmt: skip
        if not pairs:
            return None
        entity, relation = rng.choice(pairs)
        i, j = sorted(rng.sample(range(len(world.of(entity, relation))), 2))
        if rng.random() < 0.2:  # an old state that comes late must not replace the newer one
            i, j = j, i
        old, new = world.of(entity, relation)[i], world.of(entity, relation)[j]
        own = [f for r in world.relations(entity) for f in world.of(entity, r.name) if r.name != relation]
        stated = [new, *rng.sample(own, min(len(own), rng.choice((0, 0, 1))))]
    else:
        if not own:
            return None
        stated, old = rng.sample(own, min(len(own), rng.randint(1, 3))), None
        if len({(f.subject, f.relation) for f in stated if not RELATIONS[f.relation].multi}) < sum(
            not RELATIONS[f.relation].multi for f in stated
        ):
            return None
    links = {f[:2] for f in stated if not RELATIONS[f.relation].multi}
    drawn = [_any_fact(rng, world) for _ in range(rng.randint(0, level.notes - 1))]
    others = [f for f in drawn if f[:2] not in links]
    if not changing and rng.random() < 0.2:
        others.append(rng.choice(stated))  # known already
    notes = _noted((), [*others, *([old] if old else [])])
    rng.shuffle(notes)
    passage = passage_about(rng, world, entity, stated, Noise(others=0.0, fillers=0.3))
    return notes, passage


def _note_item(rng: random.Random, world: World, level: Level, skill: str, changing: bool) -> Item | None:
    drawn = _notes_and_text(rng, world, level, changing)
    if drawn is None:
        return None
    notes, passage = drawn
    after = _noted(notes, _shown([passage]))
    prompt = UPDATE.format(notes=_lines(notes), text=passage.text)
    return Item(skill, ((prompt, _lines(after)),))


def merge(rng: random.Random, world: World, level: Level) -> Item | None:
    """Add the facts of a text to the notes."""
    return _note_item(rng, world, level, "merge", False)


def update(rng: random.Random, world: World, level: Level) -> Item | None:
    """Put a newer state in the place of an older one; keep the newer one when an old state comes late."""
    return _note_item(rng, world, level, "update", True)


def summarise(rng: random.Random, world: World, level: Level) -> Item | None:
    """Carry on the list of topics of a stream."""
    known = rng.sample(TOPICS, rng.randint(0, 5))
    new = rng.sample(TOPICS, rng.randint(1, 3))
    sentences = [rng.choice(TOPIC_SENTENCES).format(topic=topic) for topic in new]
    for _ in range(rng.randint(0, 2)):
        sentences.insert(rng.randint(0, len(sentences)), filler(rng).text)
    prompt = SUMMARISE.format(topics="; ".join(known) or NONE, text=" ".join(sentences))
    return Item("summarise", ((prompt, "; ".join(dict.fromkeys([*known, *new]))),))


# Tools.


def tool_call(name: str, **arguments: str | int) -> str:
    """A call in the form that Qwen and Hermes models use."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def call_tool(rng: random.Random, world: World, level: Level) -> Item | None:
    """Choose the tool and fill in its arguments."""
    name = rng.choice(list(REQUESTS))
    fact, number = _any_fact(rng, world), rng.randint(1, 40)
    request = rng.choice(REQUESTS[name])
    if name == "search":
        question = make_question(rng, world, "hop", 1)
        if question is None:
            return None
        key = RELATIONS[question.query.relations[0]].key
        text = request.format(text=question.text)
        call = tool_call(name, query=f"{question.query.entities[0]} {key}")
    elif name == "memory_delete":
        text, call = request.format(id=number), tool_call(name, id=number)
    else:
        text = request.format(id=number, text=state(rng, fact).text)
        fields: dict[str, str | int] = {"id": number} if name == "memory_update" else {}
        call = tool_call(name, **fields, content=dated_line(fact))
    return Item("tool_call", ((TOOL.format(request=text), call),))


def read_tool(rng: random.Random, world: World, level: Level) -> Item | None:
    """Answer from the result of a call."""
    question = make_question(rng, world, "hop", 1)
    if question is None:
        return None
    passages = gather(rng, world, question, rng.randint(1, 3), 2)
    if solve(question.query, _shown(passages)) != question.answers:
        return None
    call = tool_call("search", query=f"{question.query.entities[0]} {RELATIONS[question.query.relations[0]].key}")
    response = json.dumps({"results": [passage.text for passage in passages]})
    prompt = TOOL_READ.format(call=call, response=response, question=question.text)
    return Item("tool_read", ((prompt, question.answer),))


# Criticism.


def _draft(rng: random.Random, world: World, level: Level) -> tuple[Passage, list[Fact], list[Fact], str] | None:
    """A text, its true notes, a draft with at most one fault, and the review that names the fault."""
    entity = _anyone(rng, world)
    own = [f for r in world.relations(entity) for f in world.of(entity, r.name)[-1:]]
    if len(own) < 2:
        return None
    stated = rng.sample(own, rng.randint(2, min(len(own), 3)))
    passage = passage_about(rng, world, entity, stated, Noise(others=0.0, fillers=0.3))
    truth = _shown([passage])
    draft, fault = list(truth), rng.choice(("correct", "correct", "wrong", "missing", "unsupported"))
    place = rng.randrange(len(truth))
    if fault == "correct":
        return passage, truth, draft, "correct"
    if fault == "missing":
        lost = draft.pop(place)
        return passage, truth, draft, f"missing: {dated_line(lost)}"
    relation = RELATIONS[truth[place].relation]
    if fault == "wrong":
        others = [f.object for f in world.all_facts() if f.relation == relation.name and f.object not in truth[place]]
        if not others:
            return None
        draft[place] = truth[place]._replace(object=rng.choice(others))
        return passage, truth, draft, f"wrong: {dated_line(draft[place])}"
    extra = _any_fact(rng, world)
    if extra in truth or extra[:2] in {f[:2] for f in truth}:
        return None
    draft.insert(rng.randint(0, len(draft)), extra)
    return passage, truth, draft, f"unsupported: {dated_line(extra)}"


def critique(rng: random.Random, world: World, level: Level) -> Item | None:
    """Name the fault of a draft: a wrong line, a missing one, one that the text does not support, or none."""
    drawn = _draft(rng, world, level)
    if drawn is None:
        return None
    passage, _, draft, review = drawn
    prompt = CRITIQUE.format(text=passage.text, notes=_lines(draft))
    return Item("critique", ((prompt, review),))


def repair(rng: random.Random, world: World, level: Level) -> Item | None:
    """Give the notes that follow from the text, a review at hand."""
    drawn = _draft(rng, world, level)
    if drawn is None:
        return None
    passage, truth, draft, review = drawn
    prompt = REPAIR.format(text=passage.text, notes=_lines(draft), review=review)
    # A repaired line keeps its place, a missing one comes where the text states it: the order of the text.
    return Item("repair", ((prompt, _lines(truth)),))


# Without a text, and copying.


def closed_book(rng: random.Random, world: World, level: Level) -> Item | None:
    """Recall a taught fact. `world` is the taught world; in a test of unseen facts any other."""
    question = make_question(rng, world, "hop", 1)
    if question is None:
        return None
    return Item("closed_book", ((RECALL.format(question=question.text), question.answer),))


def copy(rng: random.Random, world: World, level: Level) -> Item | None:
    """Repeat a text: what copying grows from in the first stage."""
    if rng.random() < 0.5:
        words: list[str] = []
        for _ in range(rng.randint(2, 12)):
            words.append(new_name(rng, rng.choice(TYPES), world.split, words, rng.choice((0, 0, 1))))
        text = " ".join(words)
    else:
        text = " ".join(state(rng, _any_fact(rng, world)).text for _ in range(rng.randint(1, 3)))
    return Item("copy", ((COPY.format(text=text), text),))


def _anyone(rng: random.Random, world: World) -> str:
    entities = [e for kind in TYPES for e in world.entities[kind]]
    while True:
        entity = rng.choice(entities)
        if world.relations(entity):
            return entity


Builder = Callable[[random.Random, World, Level], Item | None]
SKILLS: Mapping[str, Builder] = {
    "recall": recall,
    "read": read_hops,
    "compare": read_compare,
    "list": read_list,
    "temporal": read_temporal,
    "unknown": read_unknown,
    "relevance": relevance,
    "extract": extract,
    "sufficient": sufficient,
    "next_query": next_query,
    "read_notes": read_notes,
    "merge": merge,
    "update": update,
    "summarise": summarise,
    "tool_call": call_tool,
    "tool_read": read_tool,
    "critique": critique,
    "repair": repair,
    "closed_book": closed_book,
    "copy": copy,
}


def draw(rng: random.Random, skill: str, world: World, level: Level, tries: int = 200) -> Item:
    """An item of the skill about the world. RuntimeError when the world has none in that many draws."""
    for _ in range(tries):
        if item := SKILLS[skill](rng, world, level):
            return item
    raise RuntimeError(f"no item of skill '{skill}' in {tries} draws from this world")
