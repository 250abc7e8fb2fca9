"""ARC-AGI-1 (Chollet 2019; arXiv:1911.01547): all 400 public training and 400 public evaluation tasks.

Traps: a task is solved only if **every** test pair is right (416 and 419 outputs for 400 tasks). One or two attempts
per test input (ARC Prize: two)? State it beside the number.
Licence: Apache-2.0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.registry import DataFile, Dataset, pick, read_json

DATASET = Dataset(
    name="arc_agi_1",
    title="ARC-AGI-1",
    source="arXiv:1911.01547, fchollet/ARC-AGI (data/), packed into one object per split",
    revision="fchollet/ARC-AGI 39903044",
    licence="Apache-2.0",
    non_commercial=False,
    files=(
        DataFile(
            "training.json.gz",
            "743dc273e8a3a41b740defd9716c0596b5977c3e5935f2852a8b36806ac98c20",
            rows=400,
            split="training",
        ),
        DataFile(
            "evaluation.json.gz",
            "fd2b8e03c44bcdd2f8e37a169c92f9175630444d3754281dda13ccc6d9494db2",
            rows=400,
            split="evaluation",
        ),
    ),
    splits={"training": 400, "evaluation": 400},
    papers=("arcmemo",),
    canonical="GitHub fchollet/ARC-AGI (data/)",
    bytes_full=2_634_212,
)

SPLITS = {"training": "training.json.gz", "evaluation": "evaluation.json.gz"}

Grid = tuple[tuple[int, ...], ...]
"""Rows of colours 0-9; at most 30 x 30."""


@dataclass(frozen=True)
class Pair:
    """An input grid and its output grid."""

    input: Grid
    output: Grid


@dataclass(frozen=True)
class Task:
    """Demonstrations and test pairs of one task; `id` is 8 hex digits."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def load(data: Path | None, split: str = "training") -> list[Task]:
    """The 400 tasks of `training` or `evaluation`, by id. Errors: `registry.find`; UserError for another split."""
    tasks = read_json(DATASET, pick("split of arc_agi_1", split, SPLITS), data)
    return [Task(name, _pairs(task["train"]), _pairs(task["test"])) for name, task in sorted(tasks.items())]


def _pairs(rows: list[dict[str, Any]]) -> tuple[Pair, ...]:
    return tuple(Pair(_grid(row["input"]), _grid(row["output"])) for row in rows)


def _grid(rows: list[list[int]]) -> Grid:
    return tuple(tuple(row) for row in rows)
