"""MuSiQue (Trivedi et al., TACL 2022; arXiv:2108.00573): questions composed of 2-4 single hops; subsets.

- `load`: 100 answerable training questions (68 two-hop, 27 three-hop, 5 four-hop), 20 paragraphs each, gold
  decomposition.
- `load_corpus`: the 1,890 passages their paragraphs unite to.
- `load_triples`: entities and relation triples gpt-3.5-turbo extracted from these passages (HippoRAG,
  arXiv:2405.14831): a graph memory without any call to a language model.
- `load_test200`: 200 questions with answer aliases, no paragraphs.

Split: 100 rows of published train (MuSiQue-Ans); `test200` is said to be dev (not verified).
Traps: titles repeat with different text: recall@k counts title and text together. EM and F1 take the maximum over
answer and aliases. 185 of 17,419 triples do not have three parts (raw output); two passages have none.
Licence: CC BY 4.0; triples MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, read_json
from common.data.rows import OpenQuestion, Passage, read_open_questions

DATASET = Dataset(
    name="musique",
    title="MuSiQue (subsets)",
    source="arXiv:2108.00573, StonyBrookNLP/musique; copies of OSU-NLP-Group/HippoRAG, dongguanting/Tool-Star",
    revision="OSU-NLP-Group/HippoRAG b144c46d; dongguanting/Tool-Star d12222c7",
    licence="CC BY 4.0; extracted triples MIT",
    non_commercial=False,
    files=(
        DataFile(
            "musique_train.json",
            "bca674746844637f5c68408a96b67bc0542d98e7c53715f3acafe144bd5e4ff4",
            rows=100,
            split="train (sample)",
        ),
        DataFile(
            "musique_train_corpus.json",
            "79845dd085f9df49c8ce440208763e2611aeb86c81ee0bdad2094504381bb651",
            rows=1890,
            split="train (paragraphs of the sample)",
        ),
        DataFile(
            "openie_musique_train_gpt-3.5-turbo-1106.json.gz",
            "7e3008dee6e5555651ea4c944330e8e6c47f852d990ad4a973c9b86e3b13d84f",
            rows=1890,
            split="train (paragraphs of the sample)",
        ),
        DataFile(
            "test200.jsonl",
            "d238f3c3b34347019bf84136eaca6fc34882d2263fbcd3dc352ad85eb80cf1dc",
            rows=200,
            split="dev (sample, not verified)",
        ),
    ),
    splits={"train": 19938, "dev": 2417, "test": 2459},
    papers=("mem1",),
    canonical="GitHub StonyBrookNLP/musique (download script); 1,000-question sample: Hugging Face osunlp/HippoRAG_2",
    bytes_full=740_000_000,
)


@dataclass(frozen=True)
class Paragraph:
    """One of the 20 paragraphs of a question."""

    title: str
    text: str
    is_supporting: bool


@dataclass(frozen=True)
class Hop:
    """One single-hop question of the decomposition.

    Attributes:
        question: `#1` refers to the answer of the first hop.
        paragraph: index of the supporting paragraph in `Example.paragraphs`.
    """

    question: str
    answer: str
    paragraph: int


@dataclass(frozen=True)
class Example:
    """A composed question; `answers` is the answer followed by its aliases."""

    id: str
    question: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class PassageTriples:
    """What a model extracted from a passage; `triples` as printed, mostly but not always of three parts."""

    title: str
    text: str
    entities: tuple[str, ...]
    triples: tuple[tuple[str, ...], ...]


def load(data: Path | None) -> list[Example]:
    """The 100 training questions with paragraphs. Errors: `registry.find`."""
    return [_example(row) for row in read_json(DATASET, "musique_train.json", data)]


def load_corpus(data: Path | None) -> list[Passage]:
    """The 1,890 passages, in file order. Errors: `registry.find`."""
    return [Passage(row["title"], row["text"]) for row in read_json(DATASET, "musique_train_corpus.json", data)]


def load_triples(data: Path | None) -> list[PassageTriples]:
    """Entities and triples of each of the 1,890 passages. Errors: `registry.find`."""
    return [
        PassageTriples(
            title=row["title"],
            text=row["text"],
            entities=tuple(row["extracted_entities"]),
            triples=tuple(tuple(triple) for triple in row["extracted_triples"]),
        )
        for row in read_json(DATASET, "openie_musique_train_gpt-3.5-turbo-1106.json.gz", data)["docs"]
    ]


def load_test200(data: Path | None) -> list[OpenQuestion]:
    """200 questions without paragraphs. Errors: `registry.find`."""
    return read_open_questions(DATASET, "test200.jsonl", data)


def _example(row: dict[str, Any]) -> Example:
    hops = row["question_decomposition"]
    return Example(
        id=row["id"],
        question=row["question"],
        answers=(row["answer"], *row["answer_aliases"]),
        paragraphs=tuple(Paragraph(p["title"], p["paragraph_text"], p["is_supporting"]) for p in row["paragraphs"]),
        hops=tuple(Hop(hop["question"], hop["answer"], hop["paragraph_support_idx"]) for hop in hops),
    )
