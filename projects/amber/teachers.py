"""Oracle demonstrations of every role, from worlds whose truth is known (tiny scale).

A teacher draws a question of a training world and a moment on the way to its answer: what the memory holds, what was
asked, what the retriever brings. The role's answer follows from world truth. Where a role judges the work of another
(review, challenge, refine), some of that work is made wrong first: a note is missing, names another value, or says what
has nothing to do with the question.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from common.data.text_world.questions import UNKNOWN, make_question
from common.experiments.context import Context
from common.models.microlm.demonstrations import Demonstration, Teacher, teach
from common.models.microlm.skills import taught_world
from common.models.microlm.specialise import artifact_key, specialise
from common.retrievers.bm25 import BM25
from projects.amber.data import SETS, Asked, Corpus, Library, Passage, Search, library_of, rivals
from projects.amber.prompts import NONE, numbered, prompt
from projects.amber.settings import GENERATOR, Loop, Settings, TextWorld

FAULTY = 0.45  # share of drafts under review that have a fault; the measured error rate of drafts is about half of it
FAULTS = ("missing", "wrong", "unsupported")
CORRECT = "correct"


def search_of(corpus: Corpus, loop: Loop) -> Search:
    """BM25 over a corpus."""
    index, texts = BM25(), corpus.texts
    index.build(list(texts), list(texts.values()))
    return Search(index, texts, loop.passage_characters)


@dataclass(frozen=True)
class Shelf:
    """A library with its search."""

    books: Library
    corpus: Corpus
    search: Search


@dataclass(frozen=True)
class Moment:
    """A question under way.

    Attributes:
        memory: notes held.
        queries: asked so far, the last is under way.
        passages: what it brought.
    """

    shelf: Shelf
    asked: Asked
    memory: list[str]
    queries: list[str]
    passages: list[Passage]

    @property
    def held(self) -> str:
        return "\n".join(self.memory)


class Classroom:
    """Training worlds, and what is taught about them.

    Args:
        split, seed: of the worlds.
    """

    def __init__(self, dials: TextWorld, loop: Loop, split: str = "train", worlds: int | None = None) -> None:
        self.dials, self.loop, self.split = dials, loop, split
        self.worlds = dials.train_worlds if worlds is None else worlds
        self._shelves: dict[tuple[bool, int], Shelf] = {}

    def shelf(self, name: str, number: int) -> Shelf:
        """The shelf of a question set and world; all questions of `triviaqa` are about one world."""
        place = (name == "triviaqa", 0 if name == "triviaqa" else number)
        if place not in self._shelves:
            books = library_of(self.dials, name, self.split, f"class {number}")  # type: ignore[arg-type]
            self._shelves[place] = Shelf(books, books.corpus, search_of(books.corpus, self.loop))
        return self._shelves[place]

    def moment(self, rng: random.Random, complete: bool = False, name: str = "") -> Moment | None:
        """A draw: a question with none, some or (`complete`) all of its notes, some that do not matter among them."""
        name = name or rng.choice(list(SETS))
        shelf = self.shelf(name, rng.randrange(self.worlds))
        asked = shelf.books.draw(rng, name)
        if asked is None:
            return None
        count = len(asked.hops) if complete else rng.randrange(len(asked.hops))
        hops = list(asked.hops) if asked.chain else rng.sample(asked.hops, len(asked.hops))
        memory = [hop.note for hop in hops[:count]]
        if rng.random() < 0.2:
            memory.insert(rng.randint(0, len(memory)), self.stray(rng, shelf, asked))
        queries = [asked.text, *(hop.query for hop in hops[1:count])]
        if 0 < count < len(hops):
            queries.append(hops[count].query)
        queries = list(dict.fromkeys(queries))
        [passages] = shelf.search([queries[-1]], self.loop.k)
        return Moment(shelf, asked, memory, queries, passages)

    def stray(self, rng: random.Random, shelf: Shelf, asked: Asked) -> str:
        """A true note that does not matter: it comes near the evidence."""
        own = {hop.note for hop in asked.hops}
        near = [note for note in rivals(shelf.books.world, rng.choice(asked.hops).note) if note not in own]
        return rng.choice(near) if near else f"{asked.hops[0].note.split(' | ')[0]} | {UNKNOWN} | {UNKNOWN}"

    def filtered(self, rng: random.Random, moment: Moment) -> str:
        """What a filter with faults lets through of the passages; sometimes all of it."""
        if rng.random() < 0.2:
            return " ".join(passage.text for passage in moment.passages)
        kept = []
        useful = {place for hop in moment.asked.hops for place in hop.places}
        for passage in moment.passages:
            sentences = moment.shelf.corpus.sentences[passage.id]
            chosen = [s for s in sentences if (passage.id, s) in useful]
            if rng.random() < (0.25 if chosen else 0.15):
                other = rng.choice(sentences)
                chosen = [s for s in sentences if s in chosen or s == other]
            kept += chosen
        return " ".join(kept)


def ask(role: str, answer: str, **fields: str) -> Demonstration:
    """A demonstration of a role, under its prompt as the method asks it."""
    return Demonstration(tuple(prompt(role, **fields)), answer)  # type: ignore[arg-type]


# --- AMU ------------------------------------------------------------------------------------------------------------


def draft(room: Classroom, rng: random.Random) -> Demonstration | None:
    """What is held, and what the text adds."""
    moment = room.moment(rng)
    text = room.filtered(rng, moment) if moment else ""
    if moment is None or not text:
        return None
    notes = [*moment.memory, *moment.asked.learnt(moment.memory, text)]
    return ask("draft", "\n".join(notes) or NONE, question=moment.asked.text, memory=moment.held, text=text)


@dataclass(frozen=True)
class _Draft:
    """A draft under review: the fields of its prompt, the fault's name, and the memory as it should be."""

    fields: Mapping[str, str]
    fault: str
    truth: str


def _drafted(room: Classroom, rng: random.Random) -> _Draft | None:
    moment = room.moment(rng)
    text = room.filtered(rng, moment) if moment else ""
    if moment is None or not text:
        return None
    new = moment.asked.learnt(moment.memory, text)
    notes, said = list(new), CORRECT
    if rng.random() < FAULTY:
        kind = rng.choice(FAULTS)
        if kind == "unsupported":
            extra = room.stray(rng, moment.shelf, moment.asked)
            notes.insert(rng.randint(0, len(notes)), extra)
            said = f"unsupported: {extra}"
        elif new:
            place = rng.randrange(len(new))
            if kind == "missing":
                said = f"missing: {notes.pop(place)}"
            else:
                subject, key, _ = notes[place].split(" | ")
                values = {n.split(" | ")[2] for n in rivals(moment.shelf.books.world, notes[place])}
                values -= {hop.note.split(" | ")[2] for hop in moment.asked.hops}
                near = sorted(v for v in values if v in text) or sorted(values)
                if not near:
                    return None
                notes[place] = f"{subject} | {key} | {rng.choice(near)}"
                said = f"wrong: {notes[place]}"
    fields = {"question": moment.asked.text, "memory": moment.held, "text": text}
    written = "\n".join([*moment.memory, *notes])
    return _Draft({**fields, "draft": written}, said, "\n".join([*moment.memory, *new]) or NONE)


def _said(rng: random.Random, drafted: _Draft, right: float) -> str:
    """A critique that is right with that probability; else it overlooks a fault, or finds one that is none."""
    if rng.random() < right:
        return drafted.fault
    notes = drafted.fields["draft"].splitlines()
    if drafted.fault != CORRECT or not notes:
        return CORRECT
    return f"{rng.choice(('wrong', 'unsupported'))}: {rng.choice(notes)}"


def review(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The fault of a draft, or that it has none."""
    drafted = _drafted(room, rng)
    return None if drafted is None else ask("review", drafted.fault, **drafted.fields)


def challenge(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The fault of a draft, whatever the review said of it."""
    drafted = _drafted(room, rng)
    if drafted is None:
        return None
    return ask("challenge", drafted.fault, **drafted.fields, review=_said(rng, drafted, 0.8))


def refine(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The memory as it should be, from a draft and two critiques, of which one may err."""
    drafted = _drafted(room, rng)
    if drafted is None:
        return None
    both = [_said(rng, drafted, 0.85), drafted.fault]
    rng.shuffle(both)
    return ask("refine", drafted.truth, **drafted.fields, review=both[0], challenge=both[1])


# --- AIC ------------------------------------------------------------------------------------------------------------


def sufficient(room: Classroom, rng: random.Random) -> Demonstration | None:
    """Whether all notes are there."""
    enough = rng.random() < 0.5
    moment = room.moment(rng, enough)
    if moment is None:
        return None
    return ask("sufficient", "yes" if enough else "no", question=moment.asked.text, memory=moment.held)


def query(room: Classroom, rng: random.Random) -> Demonstration | None:
    """What finds the next note."""
    moment = room.moment(rng)
    if moment is None:
        return None
    lacking = [hop.query for hop in moment.asked.hops if hop.note not in moment.memory]
    asked = list(moment.queries)
    if len(asked) > 1 and asked[-1] == lacking[0]:  # it has not been asked yet
        asked.pop()
    return ask("query", lacking[0], question=moment.asked.text, memory=moment.held, asked="; ".join(asked))


# --- MCF, before its own training --------------------------------------------------------------------------------


def _passage(room: Classroom, rng: random.Random) -> tuple[dict[str, str], list[str]] | None:
    """The fields of a filter's prompt and the useful sentences of its passage, as often some as none."""
    moment = room.moment(rng)
    if moment is None or not moment.passages:
        return None
    places = {place for hop in moment.asked.hops for place in hop.places}
    useful = {p.id: [s for s in moment.shelf.corpus.sentences[p.id] if (p.id, s) in places] for p in moment.passages}
    wanted = rng.random() < 0.5
    choice = [p for p in moment.passages if bool(useful[p.id]) == wanted]
    if not choice:
        return None
    passage = rng.choice(choice)
    fields = {"question": moment.asked.text, "query": moment.queries[-1], "passage": passage.text}
    return fields, useful[passage.id]


def chunk(room: Classroom, rng: random.Random) -> Demonstration | None:
    """Whether a passage that was retrieved states evidence."""
    drawn = _passage(room, rng)
    return None if drawn is None else ask("chunk", "yes" if drawn[1] else "no", **drawn[0])


def sentences(room: Classroom, rng: random.Random) -> Demonstration | None:
    """Its sentences that do; mostly of passages that have some."""
    drawn = _passage(room, rng)
    if drawn is None or (not drawn[1] and rng.random() < 0.75):
        return None
    return ask("sentences", " ".join(drawn[1]) or NONE, **drawn[0])


# --- answers --------------------------------------------------------------------------------------------------------


def answer_memory(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The answer from notes; unknown where they lack something."""
    complete = rng.random() < 0.85
    moment = room.moment(rng, complete)
    if moment is None:
        return None
    gold = moment.asked.answer if complete else UNKNOWN
    if not complete and len(moment.asked.golds) > 1:  # of several answers, those that are known
        known = [note.split(" | ")[2] for note in moment.memory]
        gold = "; ".join(a[0] for a in moment.asked.golds if a[0] in known) or UNKNOWN
    return ask("answer_memory", gold, question=moment.asked.text, memory=moment.held)


def answer_passages(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The answer from what one retrieval brings, or several; unknown where the evidence is not all there."""
    moment = room.moment(rng)
    if moment is None:
        return None
    asked, passages = moment.asked, list(moment.passages)
    if rng.random() < 0.6:  # the evidence, each piece once, among some of what was found
        evidence = [room_passage(moment.shelf, rng.choice(sorted(hop.passages))) for hop in asked.hops]
        passages = list(dict.fromkeys([*evidence, *rng.sample(passages, min(len(passages), rng.randint(0, 2)))]))
        rng.shuffle(passages)
    text = " ".join(passage.text for passage in passages)
    shown = [any(sentence in text for _, sentence in hop.places) for hop in asked.hops]
    gold = asked.answer if all(shown) else UNKNOWN
    if len(asked.golds) > 1 and any(shown):
        gold = "; ".join(a[0] for a, there in zip(asked.golds, shown, strict=False) if there)
    if gold == UNKNOWN and rng.random() < 0.5:
        return None
    return ask("answer_passages", gold, passages=numbered([p.text for p in passages]), question=asked.text)


def room_passage(shelf: Shelf, name: str) -> Passage:
    """A passage of the shelf, cut as a reader sees it."""
    return shelf.search.passage(name)


def closed_book(room: Classroom, rng: random.Random) -> Demonstration | None:
    """What MicroLM was taught, and unknown for the rest."""
    if rng.random() < 0.7:
        question = make_question(rng, taught_world(), "hop", 1)
        return None if question is None else ask("closed_book", question.answer, question=question.text)
    moment = room.moment(rng, name=rng.choice([name for name in SETS if name != "triviaqa"]))
    return None if moment is None else ask("closed_book", UNKNOWN, question=moment.asked.text)


# --- baselines ------------------------------------------------------------------------------------------------------


def act(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The next search of a chain, or the answer when all has been found."""
    moment = room.moment(rng, complete=rng.random() < 0.4)
    if moment is None:
        return None
    asked, steps = moment.asked, []
    found = [hop for hop in asked.hops if hop.note in moment.memory]
    for hop in found:
        steps += [f"search: {hop.query}", f"found: {room_passage(moment.shelf, rng.choice(sorted(hop.passages))).text}"]
    lacking = [hop for hop in asked.hops if hop not in found]
    answer = f"search: {lacking[0].query}" if lacking else f"answer: {asked.answer}"
    return ask("act", answer, question=asked.text, steps="\n".join(steps))


def reflect(room: Classroom, rng: random.Random) -> Demonstration | None:
    """The answer from one passage where it has one."""
    moment = room.moment(rng, name=rng.choice(("squad", "nq", "triviaqa", "asqa", "hotpotqa")))
    if moment is None or not moment.passages:
        return None
    last = {name for hop in moment.asked.hops[-1:] for name in hop.passages}
    passage = rng.choice(moment.passages)
    if rng.random() < 0.5:
        passage = room_passage(moment.shelf, rng.choice(sorted(last)))
    relevant = passage.id in last and len(moment.asked.hops) == 1
    answer = f"relevant: {moment.asked.answer}" if relevant else "irrelevant"
    return ask("reflect", answer, question=moment.asked.text, passage=passage.text)


def better(room: Classroom, rng: random.Random) -> Demonstration | None:
    """Whether a new memory holds a note of the evidence that the old one lacks."""
    moment = room.moment(rng)
    if moment is None:
        return None
    lacking = [hop.note for hop in moment.asked.hops if hop.note not in moment.memory]
    gain = rng.random() < 0.5
    extra = [lacking[0]] if gain else [room.stray(rng, moment.shelf, moment.asked)] if rng.random() < 0.5 else []
    new = [*moment.memory, *extra]
    return ask("better", "yes" if gain else "no", question=moment.asked.text, old=moment.held, new="\n".join(new))


ROLES: Mapping[str, Callable[[Classroom, random.Random], Demonstration | None]] = {
    "draft": draft,
    "review": review,
    "challenge": challenge,
    "refine": refine,
    "sufficient": sufficient,
    "query": query,
    "chunk": chunk,
    "sentences": sentences,
    "answer_memory": answer_memory,
    "answer_passages": answer_passages,
    "closed_book": closed_book,
    "act": act,
    "reflect": reflect,
    "better": better,
}
assert ROLES.keys() == GENERATOR.keys()


def teachers(room: Classroom) -> dict[str, Teacher]:
    """Role -> teacher, for `demonstrations.teach`."""
    return {role: partial(teacher, room) for role, teacher in ROLES.items()}


def generator(settings: Settings, context: Context) -> str:
    """Name of the model that speaks for the roles: the base, taught; or as it is, where nothing is to be taught."""
    if not settings.taught.count:
        return settings.lm.name
    loop = Loop(settings.loop.k, passage_characters=settings.loop.passage_characters)
    room = Classroom(settings.world, loop)

    def make(folder: Path) -> None:
        lessons = teach(teachers(room), settings.taught)
        specialise(settings.lm.name, lessons, settings.tuning, folder, settings.lm.revision)

    key = artifact_key(settings.lm.name, settings.tuning, settings.taught, settings.lm.revision) | {
        "world": asdict(settings.world),
        "loop": asdict(loop),
    }
    return str(context.artifact("generator", key, make))
