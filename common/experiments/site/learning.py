"""Curves as a page draws them: lines and bands in percent of a chart, from what a report keeps of its runs."""

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


SHOWN = 6  # charts of a column; the others are folded away


@dataclass(frozen=True)
class Line:
    """A curve: `number` is its colour; `points` and `band` as SVG has them, the band empty for one seed."""

    name: str
    number: int
    points: str
    band: str


@dataclass(frozen=True)
class Chart:
    """All curves of one metric: ticks (label, percent), and in words where each begins and ends.

    Attributes:
        coincide: names of the lines that stand for several entries of the key.
    """

    title: str
    coincide: list[str]
    lines: list[Line]
    across: list[tuple[str, float]]
    up: list[tuple[str, float]]
    words: str


@dataclass(frozen=True)
class Block:
    """Charts with a key: name and colour of each row that has a line in them; rows that never part share an entry."""

    key: list[tuple[str, int]]
    charts: list[Chart]


@dataclass(frozen=True)
class Charts:
    """Charts of the columns whose curves are equal.

    Attributes:
        columns: their labels, empty when they are all.
        rest: charts beyond the first ones, None without.
    """

    columns: str
    first: Block
    rest: Block | None


def learning(report: Report) -> Iterable[Charts]:
    """Columns with equal curves share charts, rows with equal curves a line; a row has one colour in all of them."""
    rows, columns, metrics = (labels(report[kind]) for kind in ("rows", "columns", "metrics"))
    kept = report.get("curves", [])
    of_column: dict[str, dict[int, list[str]]] = {}
    for number, curve in enumerate(kept):
        for row, column in curve["conditions"]:
            of_column.setdefault(column, {}).setdefault(number, []).append(row)
    together: dict[tuple[tuple[int, tuple[str, ...]], ...], list[str]] = {}
    for column, curves in of_column.items():
        drawn = tuple((number, tuple(names)) for number, names in curves.items())
        together.setdefault(drawn, []).append(columns.get(column) or plain(column, 80))
    logged = {row for curve in kept for row, _ in curve["conditions"]}
    ordered = [*(row for row in rows if row in logged), *sorted(logged - rows.keys())]
    entries = {row: (rows.get(row) or plain(row, 80), color) for color, row in enumerate(ordered)}
    for drawn, names in together.items():
        by_metric: dict[str, list[tuple[Sequence[str], Mapping[str, Any]]]] = {}
        for number, sharing in drawn:
            by_metric.setdefault(plain(kept[number]["metric"], 60), []).append((sharing, kept[number]))
        charts = list(by_metric.items())
        rest = _block(charts[SHOWN:], entries, metrics) if charts[SHOWN:] else None
        yield Charts("" if len(together) == 1 else ", ".join(names), _block(charts[:SHOWN], entries, metrics), rest)


def _block(
    charts: Sequence[tuple[str, Sequence[tuple[Sequence[str], Mapping[str, Any]]]]],
    entries: Mapping[str, tuple[str, int]],
    metrics: Mapping[str, str],
) -> Block:
    """Metric -> its curves, each with the rows that share it; `entries`: label and colour of each row.

    Args:
        metrics: labels of those that the table declares.
    """
    lines: dict[str, list[tuple[str, int]]] = {row: [] for row in entries}
    for metric, curves in charts:
        for number, (sharing, _) in enumerate(curves):
            for row in sharing:
                lines[row].append((metric, number))
    classes: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for row, own in lines.items():
        if own:
            classes.setdefault(tuple(own), []).append(row)
    key = {rows[0]: (", ".join(entries[row][0] for row in rows), entries[rows[0]][1]) for rows in classes.values()}
    drawn = []
    for metric, curves in charts:
        named = [([key[row] for row in key if row in sharing], curve) for sharing, curve in curves]
        drawn.append(_chart(_title(metric, metrics), named))
    return Block(list(key.values()), drawn)


def _title(logged: str, metrics: Mapping[str, str]) -> str:
    """What a run logged, in words: ours, else the label of the table's metric of this name, else the name itself."""
    name = logged.removeprefix("val_")
    if logged in NAMES or name not in metrics:
        return NAMES.get(logged) or logged.replace("_", " ").replace(".", ", ")
    return metrics[name] if name == logged else f"{metrics[name]}, on validation data"


def _chart(title: str, curves: Sequence[tuple[Sequence[tuple[str, int]], Mapping[str, Any]]]) -> Chart:
    """`curves`: each with the entries of the key that it stands for, in the colour of the first."""
    across = Axis.around(step for _, curve in curves for step in curve["steps"])
    up = Axis.around(value for _, curve in curves for end in ("low", "high") for value in curve[end])

    def points(curve: Mapping[str, Any], values: str) -> list[str]:
        places = zip(curve["steps"], curve[values], strict=True)
        return [f"{across.place(step):.1f},{100 - up.place(value):.1f}" for step, value in places]

    def band(curve: Mapping[str, Any]) -> str:
        several = curve["low"] != curve["high"]
        return " ".join([*points(curve, "high"), *reversed(points(curve, "low"))]) if several else ""

    lines = [
        Line(", ".join(name for name, _ in shared), shared[0][1], " ".join(points(curve, "mean")), band(curve))
        for shared, curve in curves
    ]
    ends = [(line.name, curve["mean"]) for line, (_, curve) in zip(lines, curves, strict=True)]
    return Chart(
        title=title,
        coincide=[line.name for line, (shared, _) in zip(lines, curves, strict=True) if len(shared) > 1],
        lines=lines,
        across=[(f"{tick:,.6g}", place) for tick, place in across.ticks()],
        up=[(f"{tick:,.6g}", place) for tick, place in up.ticks()],
        words="; ".join(f"{name} from {mean[0]:g} to {mean[-1]:g}" for name, mean in ends),
    )
