"""SQuAD v1.1, dev part (Rajpurkar et al., EMNLP 2016; arXiv:1606.05250): questions over Wikipedia paragraphs.

- `load`: 240 paragraphs (5 from each of 48 articles) with 1,190 questions, the English side of XQuAD
  (arXiv:1910.11856).
- `load_dev_questions`: all 10,570 dev questions with their annotators' answers, without paragraphs.

Split: both come from the published validation split. Nothing here is from train: never train a reported model on
them.
Traps: one gold answer per question in XQuAD, one per annotator (repeats included) in the question list: take the
maximum over the list. 10,570 lines hold 10,533 distinct question strings (blanks stripped): key rows by position.
Licence: CC BY-SA 4.0 (attribution, share-alike).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, read_json
from common.data.rows import OpenQuestion, read_open_questions

DATASET = Dataset(
    name="squad",
    title="SQuAD v1.1 (dev part)",
    source="arXiv:1606.05250, rajpurkar/SQuAD-explorer; google-deepmind/xquad; castorini/anserini-tools",
    revision="google-deepmind/xquad 7d30520c; castorini/anserini-tools 5b819c1a",
    licence="CC BY-SA 4.0",
    non_commercial=False,
    files=(
        DataFile(
            "xquad.en.json",
            "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
            rows=240,
            split="validation (sample)",
        ),
        DataFile(
            "squad_v1.1_dev_questions_answers.jsonl",
            "380c71fadfe5230412b170d87e2373f3bb90027b6121afd21be92a60cf7b2af8",
            rows=10570,
            split="validation",
        ),
    ),
    splits={"train": 87599, "validation": 10570},
    papers=("amber", "cmt", "dsi_pp", "mem_alpha"),
    canonical="Hugging Face rajpurkar/squad",
    bytes_full=35_000_000,
)


@dataclass(frozen=True)
class Answer:
    """Answer text and its character offset: `context[start:start + len(text)] == text`."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """One question on a paragraph; `id` is SQuAD's."""

    id: str
    question: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of the article `title` with its questions."""

    title: str
    context: str
    questions: tuple[Question, ...]


def load(data: Path | None) -> list[Paragraph]:
    """The 240 paragraphs of `xquad.en.json` in file order, articles together. Errors: `registry.find`."""
    return [
        Paragraph(article["title"], paragraph["context"], tuple(_question(row) for row in paragraph["qas"]))
        for article in read_json(DATASET, "xquad.en.json", data)["data"]
        for paragraph in article["paragraphs"]
    ]


def load_dev_questions(data: Path | None) -> list[OpenQuestion]:
    """All 10,570 dev questions in file order. Errors: `registry.find`."""
    return read_open_questions(DATASET, "squad_v1.1_dev_questions_answers.jsonl", data)


def _question(row: dict[str, Any]) -> Question:
    answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in row["answers"])
    return Question(row["id"], row["question"], answers)
