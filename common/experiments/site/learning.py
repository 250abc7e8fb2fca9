"""Learning curves as a page draws them: lines and bands in percent of a chart, from the curves that a report keeps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.experiments.render import Report, labels, plain
from common.experiments.site.charts import Axis

NAMES = {  # what our training logs (`common/training/reinforcement`), in words
    "approx_kl": "approximate KL of an update",
    "clipped": "share of clipped tokens",
    "cut": "share of answers cut off",
    "gap": "gap of log-probabilities, sampled and scored",
    "grad_norm": "gradient norm",
    "longest": "longest context (tokens)",
    "lr": "learning rate",
    "rollout_seconds": "seconds of the rollout",
    "tokens": "tokens generated",
    "update_seconds": "seconds of the update",
}


@dataclass(frozen=True)
class Line:
    """A curve: `number` of its entry in the key; `points` and `band` as SVG has them, the band empty for one seed."""

    name: str
    number: int
    points: str
    band: str


@dataclass(frozen=True)
class Chart:
    """All curves of one metric: ticks (label, percent), and in words where each begins and ends."""

    metric: str
    lines: list[Line]
    across: list[tuple[str, float]]
    up: list[tuple[str, float]]
    words: str


@dataclass(frozen=True)
class Charts:
    """Charts of the columns that stand on the same trainings.

    Attributes:
        columns: their labels, empty when they are all.
        key: names of the lines, by number.
    """

    columns: str
    key: list[str]
    charts: list[Chart]


def learning(report: Report) -> Iterable[Charts]:
    """Columns with equal curves share charts, rows with equal curves a line."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    kept = report.get("curves", [])
    of_column: dict[str, dict[int, list[str]]] = {}
    for number, curve in enumerate(kept):
        for row, column in curve["conditions"]:
            of_column.setdefault(column, {}).setdefault(number, []).append(rows.get(row) or plain(row, 80))
    together: dict[tuple[tuple[int, str], ...], list[str]] = {}
    for column, curves in of_column.items():
        drawn = tuple((number, ", ".join(names)) for number, names in curves.items())
        together.setdefault(drawn, []).append(columns.get(column) or plain(column, 80))
    for drawn, names in together.items():
        key = list(dict.fromkeys(name for _, name in drawn))
        by_metric: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for number, name in drawn:
            by_metric.setdefault(plain(kept[number]["metric"], 60), []).append((name, kept[number]))
        charts = [_chart(metric, curves, key) for metric, curves in by_metric.items()]
        yield Charts("" if len(together) == 1 else ", ".join(names), key, charts)


def _chart(metric: str, curves: Sequence[tuple[str, Mapping[str, Any]]], key: Sequence[str]) -> Chart:
    across = Axis.around(step for _, curve in curves for step in curve["steps"])
    up = Axis.around(value for _, curve in curves for end in ("low", "high") for value in curve[end])

    def points(curve: Mapping[str, Any], values: str) -> list[str]:
        places = zip(curve["steps"], curve[values], strict=True)
        return [f"{across.place(step):.1f},{100 - up.place(value):.1f}" for step, value in places]

    def band(curve: Mapping[str, Any]) -> str:
        several = curve["low"] != curve["high"]
        return " ".join([*points(curve, "high"), *reversed(points(curve, "low"))]) if several else ""

    return Chart(
        metric=NAMES.get(metric) or metric.replace("_", " ").replace(".", ", "),
        lines=[Line(name, key.index(name), " ".join(points(curve, "mean")), band(curve)) for name, curve in curves],
        across=[(f"{tick:,.6g}", place) for tick, place in across.ticks()],
        up=[(f"{tick:,.6g}", place) for tick, place in up.ticks()],
        words="; ".join(f"{name} from {curve['mean'][0]:g} to {curve['mean'][-1]:g}" for name, curve in curves),
    )
