"""`repro sweep`: a grid over a table's conditions, on seeds of its own, selected on a validation metric.

`search.py` draws points of the same grammar instead of taking them all.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.evaluators.statistics import Estimate, mean_interval
from common.experiments import render
from common.experiments.cluster import scripts
from common.experiments.commands import Following, announce, check_needs, mirror, run_cells, submit_cells
from common.experiments.compose import DATA, Table, compose_table, parse_override
from common.experiments.context import VALIDATION_SEED
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import digest
from common.experiments.records import Cell, Record
from common.experiments.reproduce import freeze, manifest_head, plan_cells
from common.files import write_atomically


@dataclass(frozen=True)
class Entry:
    """One line of the result: a condition at a point, its number of seeds and its metrics over them."""

    row: str
    column: str
    values: tuple[str, ...]
    n: int
    estimates: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Point:
    """One point of the grid: its overrides, and the table they make."""

    overrides: tuple[str, ...]
    table: Table


def parse(overrides: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
    """Fixed overrides, and those that sweep a key over several values (Hydra's sweep grammar).

    Raises:
        UserError: an override that cannot be read or listed, or none that sweeps.
    """
    parsed = [parse_override(override) for override in overrides]
    swept = [override for override in parsed if override.is_sweep_override()]
    try:
        for override in swept:
            if not override.is_interval_sweep():
                next(override.sweep_string_iterator(), None)  # complains of what cannot be listed
    except HydraException as error:
        reason = " ".join(str(error).split("See https")[0].split())
        raise UserError(f"cannot sweep {' '.join(overrides)}: {reason}") from error
    if not swept:
        raise UserError("nothing to sweep: give at least one KEY with several values, such as settings.lr=0.01,0.003")
    return tuple(str(override.input_line) for override in parsed if not override.is_sweep_override()), swept


def check_selection(table: Table) -> None:
    """UserError unless the table names a metric to select on, and of which items it is (`DATA`)."""
    metric, name = table.selection.metric, f"{table.paper}/{table.table} at {table.scale} scale"
    if not metric:
        raise UserError(f"{name} names no validation metric to select on; set 'selection: {{metric: …}}' in its config")
    if table.selection.data == "own" and metric in table.metrics:
        raise UserError(
            f"{name} has no validation items to select on: '{metric}' is of the items that it is tested on "
            "(selection.data: split or draw would say that its sweeps measure it on others)"
        )
    if table.selection.data == "split" and metric not in table.metrics:
        raise UserError(
            f"{name} does not report '{metric}', which 'selection: {{data: split}}' wants of its cells"
            f"{nearest(metric, table.metrics)}"
        )


def selected_on(table: Table) -> str:
    """Which items, at which seeds, a sweep chooses by."""
    return f"{DATA[table.selection.data]}, at seeds from {VALIDATION_SEED} (tables report those from 0)"


def grid(name: str, scale: str, overrides: Sequence[str]) -> tuple[list[str], list[Point]]:
    """Swept keys, and a point for every combination of their values (Hydra's sweep grammar).

    Raises:
        UserError: as `parse`; or a key is swept over an interval.
    """
    fixed, swept = parse(overrides)
    for override in swept:
        if override.is_interval_sweep():
            raise UserError(f"{override.input_line}: an interval is no grid: add --search random, or --search tpe")
    choices = [[f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()] for override in swept]
    combinations = dict.fromkeys(itertools.product(*choices))
    points = [Point(chosen, compose_table(name, scale, (*fixed, *chosen))) for chosen in combinations]
    return [override.get_key_element() for override in swept], points


def run_sweep(
    name: str, scale: str, overrides: Sequence[str], seeds: int, rows: Sequence[str] | None, following: Following
) -> int:
    """Compute every point, print and write the table sorted by the selection metric; 1 when a cell failed.

    Raises:
        UserError: the sweep makes equal cells; and the errors of `grid`, `check_needs` and `Table.check_rows`.
    """
    console = Console()
    keys, points = grid(name, scale, overrides)
    table = points[0].table
    check_selection(table)
    table.check_rows(rows or [])
    check_needs(table, following)
    chosen = range(VALIDATION_SEED, VALIDATION_SEED + seeds)
    owned = [(point, cell) for point in points for cell in point.table.cells(rows, chosen)]
    owned.sort(key=lambda pair: pair[1].row)  # stable: points stay in the order of the grid
    plan = plan_cells(table, [cell for _, cell in owned])
    if len({record for _, record in plan.records}) < len(owned):
        raise UserError(
            f"sweeping {', '.join(keys)} makes equal cells: some rows set these keys themselves; see --rows"
        )
    if following.dry_run:
        print(scripts(table, plan.missing))
        return 0
    sweep_name = f"{table.table}.{table.scale}+sweep-{digest(sorted(overrides), 6)}"
    freeze(table, plan, sweep_name, _manifest_head(table, overrides, owned), [_row(*pair) for pair in owned])
    announce(console, table, plan)
    if plan.missing and following.detached(table):
        return submit_cells(console, table, plan)
    failed = run_cells(console, table, plan)

    records = {cell.key: record for cell, record in plan.records}
    results = summarise(table, [(point, cell, records[cell.key]) for point, cell in owned])
    _print(console, table, keys, results)
    path = table.runs / table.paper / "reports" / f"{sweep_name}.md"
    write_atomically(path, _markdown(table, name, overrides, keys, results, seeds))
    console.print(Text(f"report: {os.path.relpath(path)}"), soft_wrap=True)
    mirror(console, table, sweep_name)
    return 1 if failed else 0


def _row(point: Point, cell: Cell) -> str:
    """What a cell's row is called in the sweep's manifest: with the values of its point."""
    return " ".join((cell.row, *point.overrides))


def _manifest_head(table: Table, overrides: Sequence[str], owned: Sequence[tuple[Point, Cell]]) -> dict[str, Any]:
    """What the manifest says of a sweep: its own overrides and rows, and that it is no table."""
    rows = list(dict.fromkeys(_row(*pair) for pair in owned))
    return {**manifest_head(table), "kind": "sweep", "overrides": list(overrides), "rows": rows}


def summarise(table: Table, cells: Sequence[tuple[Point, Cell, Record]]) -> list[Entry]:
    """One entry per point and condition, best first by the mean of the selection metric over seeds.

    Raises:
        UserError: no cell reports the selection metric.
    """
    metric, sign = table.selection.metric, -1 if table.selection.better == "higher" else 1
    groups: dict[tuple[tuple[str, ...], str, str], list[dict[str, float]]] = {}
    for point, cell, record in cells:
        group = groups.setdefault((point.overrides, cell.row, cell.column), [])
        if record.done:
            group.append(record.result()["metrics"])
    if any(groups.values()) and not any(metric in each for group in groups.values() for each in group):
        raise UserError(f"no cell reports the validation metric '{metric}'")
    names = dict.fromkeys([metric, *table.metrics])
    found = []
    for (overrides, row, column), group in groups.items():
        values = {name: [each[name] for each in group if name in each] for name in names}
        estimates = {name: mean_interval(sample) if sample else None for name, sample in values.items()}
        swept = tuple(override.split("=", 1)[1] for override in overrides)
        found.append(Entry(row, column, swept, len(group), estimates))

    def order(entry: Entry) -> float:
        estimate = entry.estimates[metric]
        return math.inf if estimate is None else sign * estimate.mean

    return sorted(found, key=order)


def _cells(table: Table, results: Sequence[Entry], metrics: Sequence[str]) -> list[list[str]]:
    """Texts of the result table with these metrics; the best point of each row and column carries a star."""
    best: set[tuple[str, str]] = set()
    lines = []
    for entry in results:
        place = (entry.row, entry.column)
        measured = entry.estimates[table.selection.metric] is not None
        star = "★" if measured and place not in best else ""
        if measured:
            best.add(place)
        figures = []
        for name in metrics:
            estimate = entry.estimates[name]
            unit = table.metrics[name].unit if name in table.metrics else table.selection.unit
            figures.append(render.format_value(estimate.mean, estimate.low, estimate.high, unit) if estimate else "—")
        lines.append([star, *place, *entry.values, *figures, str(entry.n)])
    return lines


def _headings(table: Table, keys: Sequence[str], metrics: Sequence[str]) -> list[str]:
    labels = [table.metrics[name].label if name in table.metrics else name for name in metrics]
    return ["", "row", "column", *short(keys), *labels, "n"]


def short(keys: Sequence[str]) -> list[str]:
    """Each key's last part; the whole key where several end in it."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [
        name if last.count(name) == 1 else key.removeprefix("settings.") for name, key in zip(last, keys, strict=True)
    ]


def _print(console: Console, table: Table, keys: Sequence[str], results: Sequence[Entry]) -> None:
    metric = table.selection.metric
    view = Grid(box=None, padding=(0, 2, 0, 0))
    for heading in _headings(table, keys, [metric]):
        view.add_column(Text(heading), overflow="fold")
    for line in _cells(table, results, [metric]):
        view.add_row(*map(Text, line))
    console.print(view)
    console.print(Text(f"★ best by {metric} of {selected_on(table)}; other metrics are in the report"))


def _markdown(
    table: Table,
    name: str,
    overrides: Sequence[str],
    keys: Sequence[str],
    results: Sequence[Entry],
    seeds: int,
) -> str:
    metrics = list(results[0].estimates)
    lines = [
        f"# Sweep of {name} at {table.scale} scale",
        f"Selected on {table.selection.metric} ({table.selection.better} is better) of {selected_on(table)}; "
        f"{seeds} seed{'s' * (seeds > 1)}.",
        f"\n    repro sweep {name} --scale {table.scale} {' '.join(overrides)}\n",
        render.markdown_table(render.Grid(_headings(table, keys, metrics), _cells(table, results, metrics))),
    ]
    return "\n".join(lines) + "\n"
