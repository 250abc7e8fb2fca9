"""What a run function receives and returns: `run(settings, context) -> Result`.

Plain enough for a notebook: `run(Settings(), Context(seed=0, folder=Path("out")))`.
"""

import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from common.experiments.fingerprint import code_fingerprint, digest
from common.experiments.randomness import isolated
from common.training.preemption import CHECKPOINT

VALIDATION_SEED = 1000  # sweeps use the seeds from here on; tables report those from 0
PRUNE = "prune"  # a file in the cell's folder, written by a search that has seen enough of its curve


class Pruned(BaseException):
    """A search gave the run up. Like KeyboardInterrupt no `Exception`: nothing on the way mistakes it for a failure."""


@dataclass(frozen=True)
class Result:
    """Figures of one cell.

    Attributes:
        metrics: name -> finite number; fractions in [0, 1] unless the table declares another unit.
            A metric that is not defined for a method is left out, never NaN.
        tokens: tokens in and out by purpose, for methods that call language models.
    """

    metrics: Mapping[str, float]
    tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Where one cell runs.

    Attributes:
        seed: the only source of randomness a run function may use.
        folder: the cell's own folder; curves, items and checkpoints go here.
        artifacts: folder of pieces shared between cells (see `artifact`); inside `folder` when not given.
        data: mirror of the data sets (`REPRO_DATA`), None when there is none.
        cpus: compute threads of the cell, and of each rank.
        tasks: ranks of a piece of work that they do together (`common.experiments.ranks`).
    """

    seed: int
    folder: Path
    artifacts: Path | None = None
    data: Path | None = None
    cpus: int = 1
    tasks: int = 1

    @property
    def validation(self) -> bool:
        """Whether the cell is one of a sweep: where the table selects on its `split`, it tests on validation items."""
        return self.seed >= VALIDATION_SEED

    @property
    def checkpoint(self) -> Path:
        """Folder for the checkpoint of a training that may be interrupted: `fit(…, folder=context.checkpoint)`.

        It outlives attempts of the cell and is removed when the cell is done.
        """
        return self.folder / "checkpoint"

    def log(self, step: int, **metrics: float) -> None:
        """Append one point of the run's curves to `metrics.jsonl`; `step` counts updates.

        Raises:
            Pruned: a search compared the curve so far with those of other runs, and gives this one up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        if (self.folder / PRUNE).exists():
            raise Pruned

    def save_items(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write per-item outputs (predictions, ranks, scores) to `items/<name>.jsonl`."""
        path = self.folder / "items" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows))

    def artifact(self, name: str, settings: Any, build: Callable[[Path], None]) -> Path:
        """A piece that several cells share (a pre-trained model, an index), built once and then reused.

        Args:
            name: what it is, e.g. `query-generator`.
            settings: everything the content depends on besides code, the seed included if it matters:
                a dataclass or JSON-serialisable mapping.
            build: writes the files of the piece into the folder it is given.

        Returns:
            The finished folder. Its key is `settings`, the threads, the ranks and the code that `build` can reach;
            concurrent cells wait for one builder, and a killed builder leaves nothing that is taken for done.
            Where it leaves a checkpoint of `fit`, the next builder starts in the same folder and goes on from it.
            `build` draws from generators seeded by the key, so it does not matter which cell builds.
        """
        values = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings
        builder: Any = build
        while isinstance(builder, functools.partial):
            builder = builder.func
        several = {"tasks": self.tasks} if self.tasks > 1 else {}
        key = digest({"settings": values, "cpus": self.cpus, **several, "code": code_fingerprint(builder.__module__)})
        root = self.artifacts or self.folder / "artifacts"
        root.mkdir(parents=True, exist_ok=True)
        done = root / f"{name}-{key}"
        if done.exists():
            return done
        with FileLock(root / f"{name}-{key}.lock"):
            if not done.exists():
                partial = root / f"{name}-{key}.partial"
                if not any(partial.rglob(CHECKPOINT)):
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                with isolated(int(key, 16)):
                    build(partial)
                os.replace(partial, done)
        return done


def check_finite(metrics: Mapping[str, float]) -> None:
    """Raise ValueError naming every metric that is not a finite number: NaN is a failure, not a figure."""
    bad = [f"{name}={value}" for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"metrics that are not finite: {', '.join(bad)}")
