"""SQuAD v1.1 in full (Rajpurkar et al., EMNLP 2016; arXiv:1606.05250); paper scale only. The mirror's part: `squad`.

Row of the Hub's parquet files (general knowledge of the card, not verified against the files): `id`, `title`,
`context`, `question`, `answers.{text[], answer_start[]}`.

Split: train 87,599, validation 10,570; the test set is hidden.
Traps: a paragraph stands in as many rows as it has questions. Files here carry no checksum; the revision is not pinned
to a commit. Code that cuts train by row number counts rows in file order.
Licence: CC BY-SA 4.0 (attribution, share-alike).
"""

from dataclasses import dataclass
from pathlib import Path

from common.data.parquet import stream_rows
from common.data.registry import Dataset, Hub, pick

REPO = "rajpurkar/squad"
REVISION = "main"  # no commit on record yet: pin it with the first paper-scale run

DATASET = Dataset(
    name="squad_full",
    title="SQuAD v1.1",
    source=f"arXiv:1606.05250; Hugging Face {REPO}",
    revision=f"{REVISION} (not pinned to a commit)",
    licence="CC BY-SA 4.0",
    non_commercial=False,
    files=(),
    splits={"train": 87599, "validation": 10570},
    papers=("cmt",),
    canonical=f"hf download {REPO} --repo-type dataset --include 'plain_text/*'",
    bytes_full=16_000_000,
    hub=Hub(REPO, REVISION, "plain_text"),
)


@dataclass(frozen=True)
class Row:
    """A question with its paragraph; `answers`: one per annotator, repeats included."""

    title: str
    context: str
    question: str
    answers: tuple[str, ...]


def load(data: Path | None, split: str = "train") -> list[Row]:
    """All rows in file order. UserError: unknown split, files missing, incomplete or unreadable; one line."""
    pick("split of squad_full", split, DATASET.splits)
    return [
        Row(row["title"], row["context"], row["question"], tuple(row["answers"]["text"]))
        for row in stream_rows(DATASET, split, ["title", "context", "question", "answers"], data)
    ]
