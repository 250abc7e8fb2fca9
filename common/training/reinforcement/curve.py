"""What reinforcement learning did, in the record of a cell: its learning curve, and episodes to be read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from common.training.reinforcement.train import CURVE, EPISODES


class Records(Protocol):
    """What keeps the record of a cell: a `Context` of `common.experiments`."""

    def log(self, step: int, **metrics: float) -> None: ...

    def save_items(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None: ...


def learning_curve(policy: Path, context: Records, *ends: str, means: tuple[str, ...] = ()) -> dict[str, float]:
    """Log every number of the learning curve of a policy, and give some figures of it as metrics.

    The episodes that the training kept are saved as items `episodes`, those of its first step before those of its last.

    Args:
        policy: a folder of `train_policy`; it may be another cell's that shares the policy.
        ends: names of the curve. Of `reward.r1` the means over its first and its last tenth are `r1_start` and
            `r1_end`.
        means: names of the curve, each averaged over all steps that tell it; left out where none does.
    """
    lines = [json.loads(line) for line in (policy / CURVE).read_text().splitlines()]
    for line in lines:
        context.log(line["step"], **{name: value for name, value in line.items() if name != "step" and _number(value)})
    kept = [json.loads(line) for line in (policy / EPISODES).read_text().splitlines()]
    context.save_items("episodes", [{"step": each["step"], **one} for each in kept for one in each["episodes"]])
    tenth = max(1, len(lines) // 10)
    parts = {"start": lines[:tenth], "end": lines[-tenth:]}
    found = {
        f"{name.rpartition('.')[2]}_{when}": fmean(line[name] for line in part)
        for name in ends
        for when, part in parts.items()
    }
    told = {name: [line[name] for line in lines if name in line] for name in means}
    return found | {name: fmean(values) for name, values in told.items() if values}


def _number(value: Any) -> bool:
    return isinstance(value, int | float)
