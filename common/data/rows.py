"""Row types that several data sets share: a question with accepted answers, a titled passage."""

from dataclasses import dataclass
from pathlib import Path

from common.data.registry import Dataset, read_jsonl


@dataclass(frozen=True)
class OpenQuestion:
    """A question without its passage. `answers` are accepted strings: EM and F1 take the maximum over them."""

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """A passage of a corpus. Titles repeat in some sets: identity is title and text together."""

    title: str
    text: str


def read_open_questions(dataset: Dataset, file: str, data: Path | None) -> list[OpenQuestion]:
    """Rows of a JSONL file of `{"question": str, "answer": [str, ...]}`, in file order. Errors: `registry.find`."""
    return [OpenQuestion(row["question"], tuple(row["answer"])) for row in read_jsonl(dataset, file, data)]
