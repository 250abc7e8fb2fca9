"""Question sets with their corpora and searches: six sets on the text world, and samples of real ones.

A question knows its evidence hop by hop: where it is stated, the query that finds it, the note that keeps it. That is
world truth for labels, measurements and the oracle control; no method sees it.
"""

import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.data import hotpotqa, musique
from common.data.own_files import own_file, read_lines
from common.data.text_world import text as world_text
from common.data.text_world.names import Split
from common.data.text_world.questions import Question, make_question
from common.data.text_world.relations import RELATIONS
from common.data.text_world.search import QUERY, gold_places
from common.data.text_world.text import Noise, corpus, note_line
from common.data.text_world.world import Dials, World, kind_of, make_world
from common.experiments.errors import UserError, nearest
from common.models.microlm.skills import taught_world
from common.retrievers.retriever import Retriever
from projects.amber.settings import Questions, TextWorld


@dataclass(frozen=True)
class Hop:
    """One piece of evidence.

    Attributes:
        places: (id of a passage, the sentence in it) wherever the corpus states it.
        query: what to search for when the hops before are known.
        note: how the memory keeps it; empty where there is no world that knows.
    """

    places: tuple[tuple[str, str], ...]
    query: str
    note: str

    @property
    def passages(self) -> frozenset[str]:
        return frozenset(passage for passage, _ in self.places)


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        golds: the wanted answers, each with its accepted strings.
        hops: its evidence, first hop first.
        chain: whether each hop but the first can be known only after the one before.
    """

    id: str
    text: str
    golds: tuple[tuple[str, ...], ...]
    hops: tuple[Hop, ...]
    chain: bool

    @property
    def answer(self) -> str:
        """The gold answer as a model would write it."""
        return "; ".join(accepted[0] for accepted in self.golds)

    def learnt(self, notes: Collection[str], text: str) -> list[str]:
        """Notes that `text` adds to what a memory holds: of a chain, only as far as it can be followed."""
        new: list[str] = []
        for hop in self.hops:
            if hop.note in notes:
                continue
            if any(sentence in text for _, sentence in hop.places):
                new.append(hop.note)
            elif self.chain:
                break
        return new


@dataclass(frozen=True)
class Passage:
    """What a retrieval brings; `text` is one line."""

    id: str
    text: str


class Search:
    """A retriever that hands out texts.

    Args:
        texts: of the passages that the retriever holds, by id.
        characters: longer texts are cut; `cut` counts how many passages were.

    A text is put on one line and its `<|` parted, so that a passage cannot forge the fields of a prompt or the marks
    of a chat template. What it then says is up to the reader.
    """

    def __init__(self, retriever: Retriever, texts: Mapping[str, str], characters: int) -> None:
        self.retriever, self.texts, self.characters = retriever, texts, characters
        self.cut = 0

    def __call__(self, queries: Sequence[str], k: int, without: Sequence[set[str]] = ()) -> list[list[Passage]]:
        """The best k passages for each query, those `without` left out; fewer where fewer are found."""
        gone = without or [set()] * len(queries)
        most = k + max(map(len, gone), default=0)
        rankings = self.retriever.search(queries, most).rankings() if queries else []
        return [
            [self.passage(name) for name in [name for name in ranking if name not in out][:k]]
            for ranking, out in zip(rankings, gone, strict=True)
        ]

    def passage(self, name: str) -> Passage:
        """The passage of an id."""
        text = " ".join(self.texts[name].split()).replace("<|", "< |")
        self.cut += len(text) > self.characters
        return Passage(name, text[: self.characters])


@dataclass(frozen=True)
class Corpus:
    """Passages by id: their sentences. A passage's text is its sentences, joined by spaces."""

    sentences: Mapping[str, tuple[str, ...]]

    @property
    def texts(self) -> dict[str, str]:
        return {name: " ".join(sentences) for name, sentences in self.sentences.items()}


@dataclass(frozen=True)
class QuestionSet:
    """Questions on one corpus."""

    name: str
    questions: tuple[Asked, ...]
    corpus: Corpus


def load(choice: Questions, dials: TextWorld, name: str, split: Split, seed: int, data: Path | None) -> QuestionSet:
    """A question set; equal arguments give an equal one.

    Args:
        split: worlds of different splits share no name; of real sets only files have a validation split.

    Raises:
        UserError: unknown set, or missing data; validation questions of a set of the mirror.
    """
    if choice.source == "text_world":
        if name not in SETS:
            raise UserError(f"unknown question set '{name}'{nearest(name, SETS)}")
        return text_world_set(dials, name, split, seed, choice.count)
    if choice.source == "mirror":
        if name not in MIRROR:
            raise UserError(f"unknown question set '{name}' of the mirror{nearest(name, MIRROR)}")
        if split == "validation":
            raise UserError(f"question set '{name}' of the mirror has no validation questions")
        whole = MIRROR[name](data)
    else:
        whole = _files(choice, name, split, data)
    rng = random.Random(f"{split}/{seed}")
    chosen = rng.sample(whole.questions, min(choice.count, len(whole.questions)))
    return QuestionSet(name, tuple(chosen), whole.corpus)


# --- the text world -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Library:
    """A world and the passages that state it."""

    world: World
    passages: tuple[world_text.Passage, ...]

    @property
    def corpus(self) -> Corpus:
        return Corpus({p.id: tuple(sentence.text for sentence in p.sentences) for p in self.passages})

    def draw(self, rng: random.Random, name: str, id: str = "") -> Asked | None:
        """A question of the set `name`; None when this draw found none."""
        question = SETS[name](rng, self.world)
        if question is None:
            return None
        asked = _asked(question, self.passages, id)
        return None if name in FITS and not FITS[name](asked) else asked


@cache
def library(dials: TextWorld, split: Split, seed: int | str, taught: bool = False) -> Library:
    """The corpus of a seed: about a world of its own, or about the world that MicroLM was taught."""
    rng = random.Random(f"amber/{split}/{seed}/{taught}")
    world = taught_world() if taught else make_world(f"amber/{seed}", split, _dials(dials))
    count = max(dials.passages, len(world.all_facts()) // 3) if taught else dials.passages
    noise = Noise(others=dials.others, fillers=dials.fillers)
    return Library(world, tuple(corpus(rng, world, count, (dials.fewest, dials.most), noise)))


def library_of(dials: TextWorld, name: str, split: Split, seed: int | str) -> Library:
    """The library that a question set asks about."""
    return library(dials, split, seed, taught=name == "triviaqa")


def text_world_set(dials: TextWorld, name: str, split: Split, seed: int, count: int) -> QuestionSet:
    """`count` different questions. UserError: the world has not as many."""
    books = library_of(dials, name, split, seed)
    rng = random.Random(f"amber/{split}/{seed}/{name}")
    found: dict[str, Asked] = {}
    for _ in range(300 * count):
        asked = books.draw(rng, name, f"{name}/{seed}/{len(found)}")
        if asked is not None:
            found.setdefault(asked.text, asked)
        if len(found) == count:
            return QuestionSet(name, tuple(found.values()), books.corpus)
    raise UserError(f"the world has only {len(found)} questions of set '{name}', not {count}: make it larger")


def _dials(dials: TextWorld) -> Dials:
    return Dials(
        people=dials.people,
        cities=dials.cities,
        companies=dials.companies,
        countries=dials.countries,
        look_alikes=dials.look_alikes,
        homonyms=dials.homonyms,
        density=dials.density,
        changes=0.0,
    )


def _two_wiki(rng: random.Random, world: World) -> Question | None:
    """Two facts: composed, or compared."""
    kind = rng.choices(("hop", "same", "earlier"), (0.6, 0.2, 0.2))[0]
    return make_question(rng, world, kind, 2)


def _asqa(rng: random.Random, world: World) -> Question | None:
    """Several answers, all wanted: a name that two people bear, or a relation with several objects."""
    question = make_question(rng, world, rng.choice(("ambiguous", "list")))
    return question if question and 2 <= len(set(question.answers)) <= 4 else None


SETS: Mapping[str, Callable[[random.Random, World], Question | None]] = {
    "squad": lambda rng, world: make_question(rng, world, "hop", 1),
    "nq": lambda rng, world: make_question(rng, world, "hop", 1),
    "triviaqa": lambda rng, world: make_question(rng, world, "hop", 1),
    "2wiki": _two_wiki,
    "hotpotqa": lambda rng, world: make_question(rng, world, "hop", rng.choice((2, 3))),
    "asqa": _asqa,
}
_COMMON = frozenset(
    "a as by did do does for from has have how in is most of on the to was what when where which who whom".split()  # noqa: SIM905
)


def _shared(asked: Asked) -> bool:
    """Whether a sentence that answers shares a word of the relation with the question, and not the name alone."""
    words = set(re.findall(r"\b[a-z]+\b", asked.text)) - _COMMON
    return any(words & set(re.findall(r"\b[a-z]+\b", text)) for hop in asked.hops for _, text in hop.places)


FITS: Mapping[str, Callable[[Asked], bool]] = {"squad": _shared, "nq": lambda asked: not _shared(asked)}


def _asked(question: Question, passages: Sequence[world_text.Passage], id: str) -> Asked:
    entity = question.query.entities[0]
    hops = []
    for fact, places in zip(question.evidence, gold_places(question, passages), strict=True):
        if question.kind != "hop":  # facts side by side, each about its own subject
            entity = fact.object if fact.object in question.query.entities else fact.subject
        stated = tuple((passages[i].id, passages[i].sentences[j].text) for i, j in places)
        query = QUERY.format(s=entity, key=RELATIONS[fact.relation].key)
        value = fact.from_side(entity)
        hops.append(Hop(stated, query, note_line(entity, fact.relation, value)))
        entity = value
    golds = tuple((answer,) for answer in question.answers)
    return Asked(id, question.text, golds, tuple(hops), question.kind == "hop")


def rivals(world: World, note: str) -> list[str]:
    """Notes that come near a note: of the same relation, another subject or another value."""
    subject, key, _ = note.split(" | ")
    relation = next(r for r in RELATIONS.values() if r.key == key and r.subject == kind_of(subject))
    subjects = world.entities[relation.subject]
    found = [note_line(e, relation.name, o) for e in subjects for o in world.current(e, relation.name)]
    return [other for other in found if other != note]


# --- real sets ------------------------------------------------------------------------------------------------------


def _hotpotqa(data: Path | None) -> QuestionSet:
    """100 training questions on the 994 articles of their contexts."""
    articles = hotpotqa.load_corpus(data)
    sentences = {article.title: (f"{article.title}.", *(s.strip() for s in article.sentences)) for article in articles}
    asked = []
    for row in hotpotqa.load(data):
        hops = []
        for title in dict.fromkeys(title for title, _ in row.supporting_facts):
            stated = [(title, sentences[title][i + 1]) for t, i in row.supporting_facts if t == title]
            hops.append(Hop(tuple(stated), f"{row.question} {title}", ""))
        asked.append(Asked(row.id, row.question, ((row.answer,),), tuple(hops), row.type == "bridge"))
    return QuestionSet("hotpotqa", tuple(asked), Corpus(sentences))


def _musique(data: Path | None) -> QuestionSet:
    """100 training questions on the 1,890 passages of their contexts; queries are the gold decomposition."""
    passages = musique.load_corpus(data)
    sentences = {f"p{i}": (f"{p.title}.", *_split(p.text)) for i, p in enumerate(passages)}
    number = {(p.title, p.text): f"p{i}" for i, p in enumerate(passages)}
    asked = []
    for row in musique.load(data):
        hops = []
        for hop in row.hops:
            gold, query = row.paragraphs[hop.paragraph], hop.question
            for i, before in enumerate(row.hops, 1):
                query = query.replace(f"#{i}", before.answer)
            name = number[gold.title, gold.text]
            stated = tuple((name, s) for s in sentences[name] if hop.answer in s) or ((name, sentences[name][0]),)
            hops.append(Hop(stated, query, ""))
        asked.append(Asked(row.id, row.question, (tuple(row.answers),), tuple(hops), True))
    return QuestionSet("musique", tuple(asked), Corpus(sentences))


def files_of(choice: Questions, name: str, split: Split, data: Path | None) -> tuple[Path, Path]:
    """Questions and passages of a set of source jsonl. UserError: one is missing."""
    part = "validation" if split == "validation" else "questions"
    return (
        own_file(data, choice.folder, f"{name}/{part}.jsonl", "amber"),
        own_file(data, choice.folder, "passages.jsonl", "amber"),
    )


def _files(choice: Questions, name: str, split: Split, data: Path | None) -> QuestionSet:
    """Lines of JSON: questions (id, question, answers: a list of lists) and passages (id, text)."""
    asked, passages = files_of(choice, name, split, data)
    return QuestionSet(name, tuple(read_lines(asked, _question)), Corpus(dict(read_lines(passages, _passage))))


def _question(row: Any) -> Asked:
    """A line of questions. ValueError: it is none."""
    try:
        id, text, answers = row["id"], row["question"], row["answers"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no question: {type(error).__name__}: {error}") from None
    if not isinstance(answers, list) or not all(isinstance(golds, list) and golds for golds in answers):
        raise ValueError(f"answers must be a list of lists of accepted texts, not {answers!r}")
    if not all(isinstance(value, str) for value in (id, text, *(gold for golds in answers for gold in golds))):
        raise ValueError("id, question and every accepted answer must be text")
    return Asked(id, text, tuple(map(tuple, answers)), (), False)


def _passage(row: Any) -> tuple[str, tuple[str, ...]]:
    """A line of passages. ValueError: it is none."""
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("id", "text")):
        raise ValueError("id and text must be there, as text")
    return row["id"], tuple(_split(row["text"]))


MIRROR: Mapping[str, Callable[[Path | None], QuestionSet]] = {"hotpotqa": _hotpotqa, "musique": _musique}


def _split(text: str) -> list[str]:
    return re.split(r"(?<=[.?!]) +(?=[A-Z\"(])", text.strip())
