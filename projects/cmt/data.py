"""Streams of documents with questions: two styles of the text world, and real sets.

| set | document | question | where from |
|---|---|---|---|
| notes | note lines of one entity | a question of the text world | drawn |
| prose | sentences about one entity, a distractor and a filler among them | as notes | drawn |
| squad_sample | 240 dev paragraphs | SQuAD's | mirror |
| squad | paragraphs | SQuAD's, in the ranges of MAC's code | hub |
| archivalqa, streamingqa | paragraphs, articles | generated, written | CSV files of the user, in MAC's format |

Documents of the text world are about new entities, or about entities that the frozen model knows (MicroLM's taught
world), with new facts: an update. Training, validation and test have no entity in common.
"""

import csv
import random
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

from common.data import archivalqa, squad, squad_full
from common.data.own_files import sha256
from common.data.registry import cache_folder
from common.data.text_world.names import TYPES, Split, new_name
from common.data.text_world.relations import BY_SUBJECT, CLOSED, RELATIONS, Relation
from common.data.text_world.text import filler, note_line, state
from common.data.text_world.world import EPITHETS, Fact, World
from common.experiments.errors import UserError
from common.models.microlm.skills import taught_world
from projects.cmt.settings import Data

# --- what a stream is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A question, its accepted answers, and whether it is about a `new` fact or one that was `updated`."""

    text: str
    answers: tuple[str, ...]
    kind: str = "new"

    @property
    def target(self) -> str:
        """The shortest answer, the first of several: what is trained on."""
        return min(self.answers, key=len)


@dataclass(frozen=True)
class Document:
    """A text, questions about it, and its salient spans as character ranges."""

    text: str
    questions: tuple[Question, ...]
    spans: tuple[tuple[int, int], ...] = ()


Draw = Callable[[random.Random, int], list[Document]]  # so many different documents to train on


@dataclass(frozen=True)
class Streams:
    """Everything that a cell reads.

    Attributes:
        draw: documents for a step of meta-training.
        validation, test: streams, in order.
        old: questions that the frozen model may know and that no document touches.
    """

    draw: Draw
    validation: tuple[Document, ...]
    test: tuple[Document, ...]
    old: tuple[Question, ...] = ()


def load_streams(data: Data, seed: int, folder: Path | None) -> Streams:
    """The streams of a column at one seed; the same arguments give the same.

    Raises:
        UserError: files that are missing.
    """
    return SETS[data.name](data, seed, folder)


def load_draw(data: Data, folder: Path | None) -> Draw:
    """Meta-training documents of all the sets in `data.train`, in equal shares; the text world's styles are one set.

    Raises:
        UserError: what its loader raises.
    """
    names = data.train or [data.name]
    styles = [name for name in names if name in STYLES]
    draws = [SETS[name](data, 0, folder).draw for name in names if name not in STYLES]
    draws += [drawing(styles, data)] if styles else []

    def draw(rng: random.Random, count: int) -> list[Document]:
        shares = [count // len(draws) + (i < count % len(draws)) for i in range(len(draws))]
        return [document for one, share in zip(draws, shares, strict=True) for document in one(rng, share)]

    return draw


# --- the text world -----------------------------------------------------------------------------------------------

STYLES = ("notes", "prose")
TOLD = ("born_in", "lives_in", "works_at", "occupation", "pet", "likes", "colour", "plays")  # in notes
KNOWN = {"train": 12, "validation": 12, "test": 24}  # of the 48 people whom MicroLM was taught


@cache
def _taught() -> World:
    return taught_world()


def known_people(split: Split) -> list[str]:
    """People whom the frozen model knows, divided among the splits."""
    people = _taught().entities["person"]
    start = sum(KNOWN[before] for before in KNOWN if list(KNOWN).index(before) < list(KNOWN).index(split))
    return people[start : start + KNOWN[split]]


def drawing(styles: Sequence[str], data: Data) -> Draw:
    """New documents at every call, in each style as many, no two about one entity; known ones get other facts.

    A question names an entity: were there two documents about it in a batch, nothing could tell which is asked about.
    """

    def draw(rng: random.Random, count: int) -> list[Document]:
        known = known_people("train")
        chosen = rng.sample(known, min(len(known), sum(rng.random() < data.updated for _ in range(count))))
        return _documents(rng, styles, "train", data.facts, count, chosen)

    return draw


def _world_stream(style: str) -> Callable[[Data, int, Path | None], Streams]:
    def load(data: Data, seed: int, folder: Path | None) -> Streams:
        if max(data.known, 0) > min(data.documents, KNOWN["test"]):
            raise UserError(f"data.known must be at most {min(data.documents, KNOWN['test'])}, not {data.known}")
        streams = {}
        for split, count in (("validation", data.validation), ("test", data.documents)):
            rng = random.Random(f"cmt/{style}/{split}/{seed}")  # a paper's own stream
            known = known_people(split)  # type: ignore[arg-type]  # both are splits
            chosen = rng.sample(known, min(data.known, len(known), count))
            documents = _documents(rng, [style], split, data.facts, count, chosen)  # type: ignore[arg-type]
            streams[split] = tuple(asked(rng, documents, data.questions))
        old = _old_questions(random.Random(f"cmt/old/{seed}"), data.old)
        return Streams(drawing([style], data), streams["validation"], streams["test"], old)

    return load


def asked(rng: random.Random, documents: Sequence[Document], questions: int) -> list[Document]:
    """Documents with at most so many of their questions, drawn; those with updates keep all. 0: all keep all."""
    kept = []
    for document in documents:
        few = [question for question in document.questions if question.kind == "new"]
        few = rng.sample(few, questions) if questions and len(few) > questions else few
        updates = [question for question in document.questions if question.kind != "new"]
        kept.append(Document(document.text, (*few, *updates), document.spans))
    return kept


def _documents(
    rng: random.Random, styles: Sequence[str], split: Split, facts: int, count: int, known: Sequence[str]
) -> list[Document]:
    """`count` documents about different people, the known ones among them in random places, the styles in turn.

    No document names the person of another one.
    """
    taken = dict.fromkeys([*known, *_taught().entities["person"]])
    people = list(known)
    while len(people) < count:
        people.append(new_name(rng, "person", split, taken, middles=int(len(taken) > 1000)))
        taken[people[-1]] = None
    rng.shuffle(people)
    world = _taught()
    return [
        _document(rng, style, split, facts, person, world if person in known else None, taken)
        for person, style in zip(people, cycle(styles), strict=False)
    ]


def _document(
    rng: random.Random, style: str, split: Split, count: int, person: str, world: World | None, taken: Collection[str]
) -> Document:
    """New facts of a person in a style, none equal to what the world says of the same relation.

    Args:
        taken: people whom no spouse and no distractor may be named after.
    """
    names: tuple[str, ...] = TOLD if style == "notes" else (*TOLD, "spouse")
    if world is not None:  # relations of which the model knows an answer that may now be wrong
        names = tuple(name for name in TOLD if world.of(person, name))
    relations = [RELATIONS[name] for name in rng.sample(names, min(count, len(names)))]
    facts = []
    for relation in relations:
        old = world.current(person, relation.name) if world is not None else []
        facts.append(Fact(person, relation.name, _value(rng, relation, split, old, taken)))
    kind = "new" if world is None else "updated"
    questions = tuple(Question(_ask(rng, fact), (fact.object,), kind) for fact in facts)
    lines = (
        [note_line(fact.subject, fact.relation, fact.object) for fact in facts]
        if style == "notes"
        else [state(rng, fact).text for fact in facts]
    )
    if style == "prose":
        other = new_name(rng, "person", split, taken)
        relation = RELATIONS[rng.choice(TOLD)]
        distractor = state(rng, Fact(other, relation.name, _value(rng, relation, split, (), taken))).text
        for extra in (distractor, filler(rng).text):
            if rng.random() < 0.5:
                lines.insert(rng.randint(0, len(lines)), extra)
    text = ("\n" if style == "notes" else " ").join(lines)
    return Document(text, questions, tuple(_span(text, fact.object) for fact in facts))


def _value(rng: random.Random, relation: Relation, split: Split, old: Sequence[str], taken: Collection[str]) -> str:
    """An object of the relation that is none of `old`; spouses have an epithet, for answers of several words."""
    while True:
        if relation.object in TYPES:
            value = new_name(rng, relation.object, split, taken)
            value = f"{value} the {rng.choice(EPITHETS)}" if relation.name == "spouse" else value
        else:
            value = rng.choice(CLOSED[relation.object])
        if value not in old:
            return value


def _span(text: str, value: str) -> tuple[int, int]:
    start = text.find(value)
    if start < 0:  # at the start of a sentence, with a capital
        start = text.find(value[0].upper() + value[1:])
    return start, start + len(value)


def _ask(rng: random.Random, fact: Fact) -> str:
    return rng.choice(RELATIONS[fact.relation].questions).format(s=fact.subject)


def _old_questions(rng: random.Random, count: int) -> tuple[Question, ...]:
    """What MicroLM was taught about cities, companies, countries and people of no stream of this paper's tests."""
    world = _taught()
    people = set(known_people("train"))
    facts = [
        fact
        for kind in TYPES
        for entity in world.entities[kind]
        if kind != "person" or entity in people
        for relation in BY_SUBJECT[kind]
        if not relation.multi and not relation.symmetric
        for fact in world.of(entity, relation.name)
    ]
    chosen = rng.sample(facts, min(count, len(facts)))
    return tuple(Question(_ask(rng, fact), (fact.object,), "old") for fact in chosen)


# --- real sets ----------------------------------------------------------------------------------------------------

SQUAD_RANGES = {"train": (42118, 82011), "validation": (82011, 87599)}  # rows; those before tune the base model to QA
SAMPLE_ARTICLES = {"train": 34, "validation": 4}  # of 48 articles of five paragraphs; the rest is the test stream


def _squad_sample(data: Data, seed: int, folder: Path | None) -> Streams:
    """240 paragraphs, divided by article: the division is the same for all seeds, the order of streams is not."""
    articles: dict[str, list[Document]] = {}
    for paragraph in squad.load(folder):
        questions = tuple(
            Question(q.question.strip(), tuple(capitalised(answer.text) for answer in q.answers))
            for q in paragraph.questions
        )
        document = Document(paragraph.context, questions, salient_spans(paragraph.context))
        articles.setdefault(paragraph.title, []).append(document)
    groups = list(articles.values())
    random.Random("cmt/squad_sample").shuffle(groups)
    first, second = SAMPLE_ARTICLES["train"], SAMPLE_ARTICLES["train"] + SAMPLE_ARTICLES["validation"]
    return _of_groups(data, seed, groups[:first], groups[first:second], groups[second:])


def _squad(data: Data, seed: int, folder: Path | None) -> Streams:
    """SQuAD 1.1 in MAC's index ranges of the training split, and its validation split as test stream."""
    train = squad_full.load(folder, "train")
    parts = {name: _squad_groups(train[start:stop]) for name, (start, stop) in SQUAD_RANGES.items()}
    test = _squad_groups(squad_full.load(folder, "validation"))
    return _of_groups(data, seed, parts["train"], parts["validation"], test)


def _squad_groups(rows: Iterable[squad_full.Row]) -> list[list[Document]]:
    """Documents by title, each paragraph once with all its questions, in order of rows."""
    titles: dict[str, dict[str, list[Question]]] = {}
    for row in rows:
        question = Question(row.question.strip(), tuple(capitalised(text.strip()) for text in row.answers))
        titles.setdefault(row.title, {}).setdefault(row.context, []).append(question)
    return [
        [Document(text, tuple(questions), salient_spans(text)) for text, questions in paragraphs.items()]
        for paragraphs in titles.values()
    ]


def _csv_set(name: str, text: str, group: str, order: str) -> Callable[[Data, int, Path | None], Streams]:
    """A set whose `train.csv`, `validation.csv` and `test.csv` a user brings, with MAC's column names.

    Args:
        text, group, order: columns of the document, of what is shuffled together, and of the order within; "" for none.
    """

    def load(data: Data, seed: int, folder: Path | None) -> Streams:
        parts = []
        for split in ("train", "validation", "test"):
            groups: dict[str, dict[str, list[Question]]] = {}
            rows = read_csv(name, split, folder, {"question", text, *filter(None, (group, order))})
            for row in sorted(rows, key=lambda row: int(row[order])) if order else rows:
                answers = row["answers"].split("\\") if "answers" in row else [capitalised(row["answer"].strip())]
                question = Question(row["question"].strip(), tuple(answers))
                own = groups.setdefault(row[group] if group else row[text], {})
                own.setdefault(row[text], []).append(question)
            parts.append(
                [
                    [Document(body, tuple(questions), salient_spans(body)) for body, questions in documents.items()]
                    for documents in groups.values()
                ]
            )
        return _of_groups(data, seed, *parts)

    return load


def digests(data: Data, folder: Path | None) -> dict[str, str]:
    """Of the files of one's own among the sets of a column, for the keys of what is trained on them."""
    brought = sorted({data.name, *data.train} & BROUGHT.keys())
    splits = ("train", "validation")
    return {f"{name}/{split}": sha256(csv_file(name, split, folder)) for name in brought for split in splits}


def csv_file(name: str, split: str, folder: Path | None) -> Path:
    """`<name>/<split>.csv` in the mirror or the cache. UserError: it is missing."""
    places = [place / name / f"{split}.csv" for place in ([folder] if folder else []) + [cache_folder()]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        licence = f" ({archivalqa.DATASET.licence})" if name == "archivalqa" else ""
        raise UserError(
            f"data set '{name}': no {split}.csv in {' or '.join(str(place.parent) for place in places)}; "
            f"take the files that jihoontack/MAC links to{licence}"
        )
    return path


def read_csv(name: str, split: str, folder: Path | None, columns: set[str]) -> list[dict[str, str]]:
    """Rows of a `csv_file`; UserError when it lacks a column."""
    path = csv_file(name, split, folder)
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lacking = sorted(columns - set(rows[0])) if rows else sorted(columns)
    if lacking:
        raise UserError(f"data set '{name}': {path} has no column '{lacking[0]}'")
    return rows


def _of_groups(
    data: Data,
    seed: int,
    train: Sequence[Sequence[Document]],
    validation: Sequence[Sequence[Document]],
    test: Sequence[Sequence[Document]],
) -> Streams:
    """Streams of documents whose groups are shuffled and stay together; a training step takes different documents."""
    pool = [document for group in train for document in group if document.questions]

    def draw(rng: random.Random, count: int) -> list[Document]:
        if count > len(pool):
            raise UserError(f"a batch of {count} documents was asked for, and there are {len(pool)} to train on")
        return rng.sample(pool, count)

    def stream(split: str, groups: Sequence[Sequence[Document]], count: int) -> tuple[Document, ...]:
        rng = random.Random(f"cmt/{data.name}/{split}/{seed}")
        documents = [document for group in rng.sample(groups, len(groups)) for document in group]
        return tuple(asked(rng, documents[: count or len(documents)], data.questions))

    return Streams(draw, stream("validation", validation, data.validation), stream("test", test, data.documents))


def capitalised(answer: str) -> str:
    """With a capital first letter, as MAC has the answers of SQuAD and ArchivalQA."""
    return answer[:1].upper() + answer[1:]


_SALIENT = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'-]*(?:\s+[A-Z][\w'-]*)*|\b\d[\d,.]*\b")


def salient_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Names and numbers: runs of capitalised words inside a sentence, and figures (README, Deviation 7)."""
    return tuple(found.span() for found in _SALIENT.finditer(text))


BROUGHT: dict[str, Callable[[Data, int, Path | None], Streams]] = {  # files that a user brings
    "archivalqa": _csv_set("archivalqa", "ans_paragraph", "doc_id", "para_num"),
    "streamingqa": _csv_set("streamingqa", "text", "", ""),
}
SETS: dict[str, Callable[[Data, int, Path | None], Streams]] = {
    "notes": _world_stream("notes"),
    "prose": _world_stream("prose"),
    "squad_sample": _squad_sample,
    "squad": _squad,
    **BROUGHT,
}
