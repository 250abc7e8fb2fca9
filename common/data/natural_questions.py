"""Natural Questions (Kwiatkowski et al., TACL 2019): questions with their whole Wikipedia page; paper scale only.

Row of the Hub's parquet files (general knowledge of the card, not verified against the files): `id`, `question.text`,
`document.{title, url, tokens.{token, is_html}}`, `annotations.{long_answer[].{start_token, end_token},
short_answers[].text[]}`, one entry per annotator (one in train, five in validation).

Split: train 307,373, validation 7,830; the test set is hidden. DSI++ splits train 80/20 and tests on validation.
Traps: rows are pages with questions: several rows share a page, count documents by title or URL. A long answer with
`start_token` -1 is 'none'. Files here carry no checksum; the revision is not pinned to a commit.
Licence: CC BY-SA 3.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from common.data.parquet import stream_rows
from common.data.registry import Dataset, Hub, pick

REPO = "google-research-datasets/natural_questions"
REVISION = "main"  # no commit on record yet: pin it with the first paper-scale run

DATASET = Dataset(
    name="natural_questions",
    title="Natural Questions",
    source=f"TACL 2019, google-research-datasets/natural-questions; Hugging Face {REPO}",
    revision=f"{REVISION} (not pinned to a commit)",
    licence="CC BY-SA 3.0",
    non_commercial=False,
    files=(),
    splits={"train": 307373, "validation": 7830},
    papers=("dsi_pp",),
    canonical=f"hf download {REPO} --repo-type dataset --include 'default/*'",
    bytes_full=45_000_000_000,
    hub=Hub(REPO, REVISION, "default"),
)


@dataclass(frozen=True)
class Example:
    """A question and the page it was annotated on.

    Attributes:
        title, url: of the Wikipedia page.
        text: the page's visible tokens joined by spaces, cut to `words` of them when `load` was told so.
        long_answers: the annotated paragraphs, one per annotator who found one.
        short_answers: the annotated spans, repeats included.
    """

    id: str
    question: str
    title: str
    url: str
    text: str
    long_answers: tuple[str, ...]
    short_answers: tuple[str, ...]


def stream(data: Path | None, split: str = "train", words: int | None = None) -> Iterator[Example]:
    """Rows one by one, in file order (the whole train split with full text is about 15 GB in memory).

    Args:
        words: keep this many tokens of each page (DSI reads the first 32), None for all.

    Raises:
        UserError: unknown split, files missing, incomplete or unreadable; one line.
    """
    pick("split of natural_questions", split, DATASET.splits)
    for row in stream_rows(DATASET, split, ["id", "question", "document", "annotations"], data):
        yield _example(row, words)


def load(data: Path | None, split: str = "train", rows: int | None = None, words: int | None = None) -> list[Example]:
    """The first `rows` rows (None: all) of `stream`. Errors as there."""
    return list(islice(stream(data, split, words), rows))


def _example(row: dict[str, Any], words: int | None) -> Example:
    tokens = row["document"]["tokens"]
    visible = (token for token, is_html in zip(tokens["token"], tokens["is_html"], strict=True) if not is_html)
    annotations = row["annotations"]
    return Example(
        id=row["id"],
        question=row["question"]["text"],
        title=row["document"]["title"],
        url=row["document"]["url"],
        text=" ".join(islice(visible, words)),
        long_answers=tuple(
            _span(tokens, long["start_token"], long["end_token"])
            for long in annotations["long_answer"]
            if long["start_token"] >= 0
        ),
        short_answers=tuple(text for short in annotations["short_answers"] for text in short["text"]),
    )


def _span(tokens: dict[str, list[Any]], start: int, end: int) -> str:
    return " ".join(tokens["token"][i] for i in range(start, end) if not tokens["is_html"][i])
