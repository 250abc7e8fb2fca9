"""Curves of what cells log as they run (`Context.log`), as a report keeps them: over steps, of all seeds together.

Small on purpose (reports are committed): neighbouring steps share a point, conditions that logged the same, because
they stand on one training, share a curve, and a report has at most `ALL` points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from common.experiments.records import Cell, Record

POINTS, FEWEST = 60, 10  # of a curve, at most and at least
ALL = 6000  # points of all curves of a report


def curves(cells: Iterable[tuple[Cell, Record]]) -> list[dict[str, Any]]:
    """One entry per curve of finished cells: its conditions as (row, column), metric, number of seeds, and its points.

    A curve has the steps at which every seed logged a finite number, two at least. Each point stands for a run of
    neighbouring steps up to the one it names: the mean over steps and seeds, and the lowest and highest of a seed.
    """
    logged: dict[tuple[str, str], list[dict[str, dict[int, float]]]] = {}
    for cell, record in cells:
        if record.done:
            logged.setdefault((cell.row, cell.column), []).append(record.curves())
    found: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for at, seeds in logged.items():
        for metric in dict.fromkeys(name for seed in seeds for name in seed):
            own = [seed[metric] for seed in seeds if metric in seed]
            finite = [{step for step, value in seed.items() if math.isfinite(value)} for seed in own]
            steps = sorted(set.intersection(*finite))
            if len(steps) > 1:
                values = tuple(tuple(seed[step] for step in steps) for seed in own)
                found.setdefault((metric, tuple(steps), values), []).append(at)
    points = min(POINTS, max(FEWEST, ALL // max(len(found), 1)))
    return [
        {"conditions": [list(at) for at in conditions], "metric": metric, **_thinned(steps, values, points)}
        for (metric, steps, values), conditions in list(found.items())[: ALL // FEWEST]
    ]


def _thinned(steps: Sequence[int], seeds: Sequence[Sequence[float]], points: int) -> Mapping[str, Any]:
    """`seeds`: the values of each at all steps."""
    count = min(points, len(steps))
    ends = [number * len(steps) // count for number in range(count + 1)]
    runs = list(pairwise(ends))
    values = [[value for seed in seeds for value in seed[start:end]] for start, end in runs]
    return {
        "seeds": len(seeds),
        "steps": [steps[end - 1] for _, end in runs],
        **{name: [_short(of(each)) for each in values] for name, of in (("mean", fmean), ("low", min), ("high", max))},
    }


def _short(value: float) -> float:
    """Four digits, more than a plot can show."""
    return float(f"{value:.4g}")
