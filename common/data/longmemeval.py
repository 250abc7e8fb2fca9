"""LongMemEval (Wu et al., ICLR 2025; arXiv:2410.10813): one instance of LongMemEval-S with its full haystack.

Question `e47becba` (single-session-user): 53 dated sessions, 550 turns, two of which carry the evidence. Enough to
test loaders, recall, chunking and cost on a real haystack; **not** enough for any accuracy.

Split: 1 of the 500 questions of LongMemEval-S (original or cleaned release: not known).
Traps: ids ending in `_abs` (full set) are abstention questions, scored differently and left out of retrieval recall.
S and M haystacks are sorted by time, the oracle file is not.
Licence: MIT.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, read_json

DATASET = Dataset(
    name="longmemeval",
    title="LongMemEval (one instance)",
    source="arXiv:2410.10813, xiaowu0162/LongMemEval; copy of zjunlp/LightMem (tutorial-notebooks/)",
    revision="zjunlp/LightMem 8fc9a917",
    licence="MIT",
    non_commercial=False,
    files=(
        DataFile(
            "longmemeval_s_single.json",
            "9c5d1cd86db0d66671786bae984d94337cde306f1235a14bb12bd6a958b27d81",
            rows=1,
            split="LongMemEval-S (one question)",
        ),
    ),
    splits={"oracle": 500, "s": 500, "m": 500},
    papers=("mem_alpha", "memforest"),
    canonical="Hugging Face xiaowu0162/longmemeval-cleaned",
    bytes_full=3_000_000_000,
)


@dataclass(frozen=True)
class Turn:
    """One turn; `role` is user or assistant, `has_answer` marks evidence."""

    role: str
    content: str
    has_answer: bool


@dataclass(frozen=True)
class Session:
    """One session of the haystack; `date` as printed, e.g. `2023/05/20 (Sat) 02:21`."""

    id: str
    date: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Instance:
    """A question with its haystack; `answer_session_ids` name the evidence sessions."""

    id: str
    type: str
    question: str
    date: str
    answer: str
    answer_session_ids: tuple[str, ...]
    sessions: tuple[Session, ...]


def load(data: Path | None) -> list[Instance]:
    """The one instance, as a list like the full files. Errors: `registry.find`."""
    return [_instance(row) for row in read_json(DATASET, "longmemeval_s_single.json", data)]


def _instance(row: dict[str, Any]) -> Instance:
    haystack = zip(row["haystack_session_ids"], row["haystack_dates"], row["haystack_sessions"], strict=True)
    return Instance(
        id=row["question_id"],
        type=row["question_type"],
        question=row["question"],
        date=row["question_date"],
        answer=str(row["answer"]),  # integers occur in the full set
        answer_session_ids=tuple(row["answer_session_ids"]),
        sessions=tuple(Session(name, date, tuple(_turn(turn) for turn in turns)) for name, date, turns in haystack),
    )


def _turn(row: dict[str, Any]) -> Turn:
    return Turn(row["role"], row["content"], row.get("has_answer", False))
