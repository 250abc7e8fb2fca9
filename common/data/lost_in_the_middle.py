"""Lost in the Middle (Liu et al., TACL 2024; arXiv:2307.03172): NQ questions with gold passages, key-value lists.

- `load_nq_oracle`: 2,655 NQ-open dev questions, each with the 100-word Wikipedia passage that holds the answer (2,600
  distinct passages): write the passages to a memory, ask the questions.
- `load_key_values`: 500 examples each of an ordered list of 75 or 140 UUID pairs and one key to find: exact recall
  without a language prior.

Split: derived from the NQ-open dev split (2,655 of 3,610 questions). The key-value files are synthetic.
Traps: reading comprehension, not retrieval: add other rows' passages as distractors. 49 passages serve two to four
questions, so count documents by text. The order of `pairs` matters for position curves.
Licence: MIT; questions CC BY-SA 3.0 (Natural Questions), passages CC BY-SA (Wikipedia).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, pick, read_jsonl

DATASET = Dataset(
    name="lost_in_the_middle",
    title="Lost in the Middle: NQ oracle passages and key-value retrieval",
    source="arXiv:2307.03172, nelson-liu/lost-in-the-middle",
    revision="nelson-liu/lost-in-the-middle 29b8a6d0",
    licence="MIT; questions CC BY-SA 3.0 (Natural Questions), passages CC BY-SA (Wikipedia)",
    non_commercial=False,
    files=(
        DataFile(
            "nq-open-oracle.jsonl.gz",
            "6a7f72b846f663a133ef952244e5a4e43f06bcf190afe34e8fbe687ce0d1653e",
            rows=2655,
            split="NQ-open dev (answerable by paragraph)",
        ),
        DataFile(
            "kv-retrieval-75_keys.jsonl.gz",
            "eb6d61fc3473349f2b86df76757c6ab659cc929d907d24caf1c69928e03f6203",
            rows=500,
            split="synthetic",
        ),
        DataFile(
            "kv-retrieval-140_keys.jsonl.gz",
            "66d54aae7e38779da482895ccd538faaf5309f144e54f30dc530a95091581fa1",
            rows=500,
            split="synthetic",
        ),
    ),
    splits={"nq-open-oracle": 2655, "kv-75": 500, "kv-140": 500, "kv-300": 500},
    papers=("dsi_pp",),
    canonical="GitHub nelson-liu/lost-in-the-middle (qa_data/, kv_retrieval_data/)",
    bytes_full=200_000_000,
)

KEY_VALUE_FILES = {75: "kv-retrieval-75_keys.jsonl.gz", 140: "kv-retrieval-140_keys.jsonl.gz"}


@dataclass(frozen=True)
class NQOracle:
    """A question and the passage that answers it.

    Attributes:
        answers: accepted strings (NQ-open dev); at least one occurs in `passage` word for word.
        title, passage: article title and the gold 100-word passage.
        annotated_title, long_answer: the article and paragraph NQ's annotators marked (another cut of the same page).
        short_answers: NQ's annotated spans.
    """

    question: str
    answers: tuple[str, ...]
    title: str
    passage: str
    annotated_title: str
    long_answer: str
    short_answers: tuple[str, ...]


@dataclass(frozen=True)
class KeyValue:
    """Find `value` of `key` in the ordered `(key, value)` pairs."""

    pairs: tuple[tuple[str, str], ...]
    key: str
    value: str


def load_nq_oracle(data: Path | None) -> list[NQOracle]:
    """The 2,655 questions with their gold passages, in file order. Errors: `registry.find`."""
    return [_oracle(row) for row in read_jsonl(DATASET, "nq-open-oracle.jsonl.gz", data)]


def load_key_values(data: Path | None, keys: int) -> list[KeyValue]:
    """500 examples with `keys` (75 or 140) pairs each. Errors: `registry.find`; UserError for another `keys`."""
    file = pick("number of keys", str(keys), {str(count): file for count, file in KEY_VALUE_FILES.items()})
    return [
        KeyValue(tuple((key, value) for key, value in row["ordered_kv_records"]), row["key"], row["value"])
        for row in read_jsonl(DATASET, file, data)
    ]


def _oracle(row: dict[str, Any]) -> NQOracle:
    (passage,) = row["ctxs"]
    gold = row["nq_annotated_gold"]
    return NQOracle(
        question=row["question"],
        answers=tuple(row["answers"]),
        title=passage["title"],
        passage=passage["text"],
        annotated_title=gold["title"],
        long_answer=gold["long_answer"],
        short_answers=tuple(gold["short_answers"]),
    )
