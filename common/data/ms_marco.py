"""MS MARCO question answering (Bajaj et al. 2016; arXiv:1611.09268), v2.1: queries with passages; paper scale only.

Row of the Hub's parquet files (general knowledge of the card, not verified against the files): `query_id`, `query`,
`query_type`, `answers[]`, `passages.{is_selected[], passage_text[], url[]}`.

Split: train 808,731, validation 101,093, test 101,092 (test without labels).
Traps: passages have no ids: identity is the text. A query without selected passage has the answer 'No Answer
Present.'. This is the QA release, not the passage-ranking collection of 8.8M passages. Files here carry no checksum;
the revision pins them.
Licence: **non-commercial** research use (Microsoft's terms).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from common.data.parquet import stream_rows
from common.data.registry import Dataset, Hub, pick

REPO = "microsoft/ms_marco"
REVISION = "86db073e1f9e9d2add57e03fee802e005f244c2e"  # "Add v2.1 data files"
CONFIG = "v2.1"

DATASET = Dataset(
    name="ms_marco",
    title="MS MARCO v2.1 (question answering)",
    source="arXiv:1611.09268; Hugging Face microsoft/ms_marco",
    revision=REVISION,
    licence="Microsoft's terms of research use",
    non_commercial=True,
    files=(),
    splits={"train": 808731, "validation": 101093, "test": 101092},
    papers=("dsi_pp",),
    canonical=f"hf download {REPO} --repo-type dataset --revision {REVISION} --include '{CONFIG}/*'",
    bytes_full=2_100_000_000,
    hub=Hub(REPO, REVISION, CONFIG),
)


@dataclass(frozen=True)
class Passage:
    """A passage shown with a query; `selected`: the annotator used it for the answer."""

    text: str
    url: str
    selected: bool


@dataclass(frozen=True)
class Example:
    """A query with its passages; `type` like DESCRIPTION, NUMERIC, ENTITY."""

    id: int
    query: str
    type: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]


def stream(data: Path | None, split: str = "train") -> Iterator[Example]:
    """Rows one by one, in file order. UserError: unknown split, files missing, incomplete or unreadable; one line."""
    pick("split of ms_marco", split, DATASET.splits)
    for row in stream_rows(DATASET, split, ["query_id", "query", "query_type", "answers", "passages"], data):
        yield _example(row)


def load(data: Path | None, split: str = "train", rows: int | None = None) -> list[Example]:
    """The first `rows` rows (None: all) of `stream`. Errors as there."""
    return list(islice(stream(data, split), rows))


def _example(row: dict[str, Any]) -> Example:
    shown = row["passages"]
    columns = zip(shown["passage_text"], shown["url"], shown["is_selected"], strict=True)
    return Example(
        id=row["query_id"],
        query=row["query"],
        type=row["query_type"],
        answers=tuple(row["answers"]),
        passages=tuple(Passage(text, url, selected == 1) for text, url, selected in columns),
    )
