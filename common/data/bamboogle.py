"""Bamboogle (Press et al., Findings of EMNLP 2023; arXiv:2210.03350): 125 hand-written two-hop questions, complete.

Traps: one answer per question, in lower case for 28 of 125 only: normalise both sides. One question is 0.8 points:
report an interval.
Licence: MIT.
"""

from pathlib import Path

from common.data.registry import DataFile, Dataset
from common.data.rows import OpenQuestion, read_open_questions

DATASET = Dataset(
    name="bamboogle",
    title="Bamboogle",
    source="arXiv:2210.03350, ofirpress/self-ask; copy of dongguanting/Tool-Star (evaluation/data/bamboogle/)",
    revision="dongguanting/Tool-Star d12222c7",
    licence="MIT",
    non_commercial=False,
    files=(
        DataFile(
            "test125.jsonl",
            "e37b9c512f27f76f1bab1922972a0d7d48af8ac08dbdc41de56dcae45e5148c7",
            rows=125,
            split="test",
        ),
    ),
    splits={"test": 125},
    papers=("mem1",),
    canonical="GitHub ofirpress/self-ask",
    bytes_full=13_878,
)


def load(data: Path | None) -> list[OpenQuestion]:
    """The 125 questions, in file order. Errors: `registry.find`."""
    return read_open_questions(DATASET, "test125.jsonl", data)
