"""Instances: a stream of chunks and questions about it, of one family each (App. A of the paper).

    ar    accurate retrieval: facts, some with a day, among sentences that say nothing; a question for each fact
    ttl   test-time learning: labelled samples; the label hangs on a keyword, by a map that is drawn for each instance
    lru   long-range understanding: topics in sentences; which came up?

On the text world facts are told as notes (`Balman employer Dertex`, `day 12 Balman home Dertona`), and the truth of
every sentence is known to teachers, to the oracle and to the scripted judge of r4; no model sees it. Of files, see
`read`.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from common.data.own_files import read_lines, sha256
from common.data.text_world.names import Split
from common.data.text_world.relations import CLOSED, FILLERS, RELATIONS
from common.data.text_world.streams import StreamDials, make_stream
from common.data.text_world.topics import QUESTION as TOPICS_QUESTION
from common.data.text_world.topics import TopicDials, make_topics
from common.data.text_world.world import Fact
from common.evaluators.answers import contains_first, contains_normalised, contains_share, em
from projects.mem_alpha.settings import FAMILIES, KEYWORDS, Streams

Kind = Literal["fact", "event", "sample", "topic", "filler"]

NEUTRAL = (*CLOSED["colour"], *CLOSED["food"], *CLOSED["instrument"])  # beside them, and saying nothing
WORDS = ("fact", "event", "day", "label", "of")  # of sentences and questions here, beside those of the text world


@dataclass(frozen=True)
class Item:
    """A sentence of a chunk, and what it says.

    Attributes:
        about: what decides a question: `subject key` of facts and events, the keyword of samples, the topic.
        says: the object, the label, the topic; "" of fillers.
    """

    kind: Kind
    text: str
    about: str = ""
    says: str = ""


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        text: what is searched for and read.
        golds: of each wanted answer the accepted strings; one but for lists.
        about: as of its item; "" of lists and files.
    """

    text: str
    golds: tuple[tuple[str, ...], ...]
    about: str = ""


@dataclass(frozen=True)
class Instance:
    """One stream.

    Attributes:
        id: rollouts of one instance share it.
        dataset: name of what it counts for in a table: the family, or a data set of files.
        metric: a key of METRICS.
        items: of each chunk what its sentences say; empty of files.
    """

    id: str
    family: str
    dataset: str
    metric: str
    chunks: tuple[str, ...]
    questions: tuple[Question, ...]
    items: tuple[tuple[Item, ...], ...] = ()


Metric = Callable[[str, Sequence[Sequence[str]]], float]
METRICS: dict[str, Metric] = {
    "sub_em": lambda answer, golds: contains_first(answer, golds[0]),
    "sub_em_normalised": lambda answer, golds: contains_normalised(answer, golds[0]),
    "label": lambda answer, golds: em(label(answer), golds[0]),
    "keywords": contains_share,
}  # Sec. 3.3 of the dossier: SQuAD and HotpotQA; RULER; TTL; PerLTQA, BookSum and InfBench


def label(answer: str) -> str:
    """The label of an answer: what stands in the last box, or all of it; "" unless that is a whole number."""
    inside = answer.rpartition("\\boxed{")[2].partition("}")[0] if "\\boxed{" in answer else answer
    found = inside.strip().strip("'\"")
    return found if found.isdecimal() else ""


class Source(Protocol):
    """Where instances come from."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, for keys of what is learned from it; "" of the text world, which is code."""
        ...

    def draw(self, count: int, seed: str, chunks: int) -> list[Instance]:
        """`count` instances in all; a function of its arguments."""
        ...

    def all(self, count: int, seed: str, chunks: int) -> list[Instance]:
        """For an evaluation: `count` of each family, or all of the files."""
        ...


# --- the text world -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worlds:
    """Streams of a split of the text world; families in turn."""

    dials: Streams
    split: Split
    digest = ""

    def draw(self, count: int, seed: str, chunks: int) -> list[Instance]:
        first = random.Random(seed).randrange(len(FAMILIES))
        return [self.one(FAMILIES[(first + i) % len(FAMILIES)], f"{seed}/{i}", chunks) for i in range(count)]

    def all(self, count: int, seed: str, chunks: int) -> list[Instance]:
        return [self.one(family, f"{seed}/{family}/{i}", chunks) for family in FAMILIES for i in range(count)]

    def one(self, family: str, seed: str, chunks: int) -> Instance:
        """One instance of a family."""
        return MAKERS[family](seed, self.split, self.dials, chunks)


def retrieval(seed: str, split: Split, dials: Streams, chunks: int) -> Instance:
    """Family ar; facts are never superseded, and of a subject and relation with several objects nothing is asked."""
    world = StreamDials(chunks, dials.timeless, dials.dated, fillers=0, updates=0.0)
    rng = random.Random(f"ar/{split}/{seed}")
    told = [[noted(fact) for fact in facts] for facts in make_stream(seed, split, world).told()]
    items = tuple(_chunk(rng, facts, dials.fillers) for facts in told)
    known = [item for facts in told for item in facts]
    alone = Counter(item.about for item in known)
    questions = [
        Question(f"{item.kind} {item.about} ?", ((item.says,),), item.about) for item in known if alone[item.about] == 1
    ]
    return _instance(seed, "ar", "sub_em", items, questions)


def noted(fact: Fact) -> Item:
    """A fact as a note; with its day, an event."""
    about = f"{fact.subject} {RELATIONS[fact.relation].key}"
    when = "" if fact.day is None else f"day {fact.day} "
    return Item("event" if when else "fact", f"{when}{about} {fact.object}", about, fact.object)


def labelling(seed: str, split: Split, dials: Streams, chunks: int) -> Instance:
    """Family ttl; keywords and neutral words never mix, so that a reader may know which is which."""
    rng = random.Random(f"ttl/{split}/{seed}")
    words = rng.sample(KEYWORDS, dials.labels * dials.keywords)
    labels = {word: str(i % dials.labels) for i, word in enumerate(words)}

    def sample() -> Item:
        keyword = rng.choice(words)
        pair = [keyword, rng.choice(NEUTRAL)]
        rng.shuffle(pair)
        return Item("sample", f"{' '.join(pair)} label {labels[keyword]}", keyword, labels[keyword])

    items = tuple(tuple(sample() for _ in range(dials.samples)) for _ in range(chunks))
    shown = sorted({item.about for chunk in items for item in chunk})
    said = {item.text for chunk in items for item in chunk}
    questions: list[Question] = []
    for _ in range(dials.asked):
        keyword = rng.choice(shown)
        # A combination that no sample shows, where there is one.
        free = [word for word in NEUTRAL if not _shown(said, keyword, word, labels[keyword])]
        pair = [keyword, rng.choice(free or NEUTRAL)]
        rng.shuffle(pair)
        questions.append(Question(f"label of {' '.join(pair)} ?", ((labels[keyword],),), keyword))
    return _instance(seed, "ttl", "label", items, questions)


def _shown(said: set[str], keyword: str, word: str, label: str) -> bool:
    return f"{keyword} {word} label {label}" in said or f"{word} {keyword} label {label}" in said


def summary(seed: str, split: Split, dials: Streams, chunks: int) -> Instance:
    """Family lru: one question, answered by the list of topics."""
    stream = make_topics(seed, split, TopicDials(chunks, dials.topics, fillers=0))
    rng = random.Random(f"lru/{split}/{seed}")
    items = tuple(
        _chunk(
            rng,
            [Item("topic", _plain(s), t, t) for s, t in zip(chunk.sentences, chunk.topics, strict=True)],
            dials.fillers,
        )
        for chunk in stream.chunks
    )
    golds = tuple((topic,) for topic in stream.topics())
    return _instance(seed, "lru", "keywords", items, [Question(TOPICS_QUESTION, golds)])


MAKERS: dict[str, Callable[[str, Split, Streams, int], Instance]] = {
    "ar": retrieval,
    "ttl": labelling,
    "lru": summary,
}


def _chunk(rng: random.Random, items: Sequence[Item], fillers: int) -> tuple[Item, ...]:
    mixed = [*items, *(Item("filler", _plain(text)) for text in rng.sample(FILLERS, min(fillers, len(FILLERS))))]
    rng.shuffle(mixed)
    return tuple(mixed)


def _plain(sentence: str) -> str:
    return sentence.rstrip(".")


def _instance(
    seed: str, family: str, metric: str, items: tuple[tuple[Item, ...], ...], questions: Sequence[Question]
) -> Instance:
    chunks = tuple(" . ".join(item.text for item in chunk) for chunk in items)
    return Instance(f"{family}/{seed}", family, family, metric, chunks, tuple(questions), items)


# --- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Instances of a file, in its order; draws are without replacement until the file is used up."""

    instances: Sequence[Instance]
    digest: str

    def draw(self, count: int, seed: str, chunks: int) -> list[Instance]:
        rng = random.Random(seed)
        rounds = -(-count // len(self.instances))
        return [one for _ in range(rounds) for one in rng.sample(self.instances, len(self.instances))][:count]

    def all(self, count: int, seed: str, chunks: int) -> list[Instance]:
        return list(self.instances)


def read(path: Path) -> Files:
    """Instances of a file of JSON lines. Errors: `read_lines`.

    {"id", "family", "dataset", "metric", "chunks": [text, ...],
     "questions": [{"question": text, "answers": [[text, ...], ...]}, ...]}
    """
    return Files(read_lines(path, _row), sha256(path))


def _row(row: Any) -> Instance:
    try:
        questions = tuple(
            Question(one["question"], tuple(tuple(_listed(accepted)) for accepted in _listed(one["answers"])))
            for one in _listed(row["questions"])
        )
        chunks = tuple(_listed(row["chunks"]))
        id, family, dataset, metric = row["id"], row["family"], row["dataset"], row["metric"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no instance: {type(error).__name__}: {error}") from None
    texts = [
        id,
        family,
        dataset,
        metric,
        *chunks,
        *(q.text for q in questions),
        *(g for q in questions for a in q.golds for g in a),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("every value must be text or a list of texts")
    if family not in FAMILIES or metric not in METRICS:
        raise ValueError(f"family must be of {', '.join(FAMILIES)}, metric of {', '.join(METRICS)}")
    if not chunks or not questions or not all(question.golds for question in questions):
        raise ValueError("chunks, questions and answers must not be empty")
    return Instance(id, family, dataset, metric, chunks, questions)


def _listed(value: Any) -> list[Any]:
    """A list as it is; a text would be taken for its letters."""
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {value!r}")
    return value
