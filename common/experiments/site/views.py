"""What the pages show of one report: plain values that templates only place. Every text is hostile until a template
escapes it (`build.environment`).
"""

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.experiments import render
from common.experiments.fingerprint import digest
from common.experiments.render import MARKS, NONE, Grid, Report, format_value, heading, labels, plain, scaled
from common.experiments.settings import flatten
from common.experiments.site.charts import Axis, Strip, frontier
from common.experiments.site.learning import Charts, learning

OPERAND = re.compile(r"[^\s()]+\(([^(),]+), ([^()]+)\)")  # as `claims.Operand` writes itself


@dataclass(frozen=True)
class Claim:
    """A claim with its drawn effect; `strip` is None where nothing was measured, `paper` is `published` in short.

    Attributes:
        anchor: its id on the page.
        parts: each as texts with the anchor of the cell that a text names, empty where it names none.
        cells: label and anchor of every cell that the parts name.
    """

    id: str
    anchor: str
    text: str
    status: str
    effect: str
    paper: str
    published: str
    where: str
    n: int
    p: str
    parts: list[list[tuple[str, str]]]
    cells: list[tuple[str, str]]
    strip: Strip | None


@dataclass(frozen=True)
class Entry:
    """Status of a claim, or verdict on a published figure, in one report.

    Attributes:
        seeds: what it rests on; 0 where it was not run.
        place: its id on the paper's page.
    """

    name: str
    word: str
    seeds: int
    place: str


@dataclass(frozen=True)
class Forest:
    """Claims on one axis: its name, its ticks (label, percent) and where zero is, at which claims turn."""

    name: str
    claims: list[Claim]
    ticks: list[tuple[str, float]]
    zero: float


@dataclass(frozen=True)
class Value:
    """One figure: ours, its interval, the paper's; `sort` orders a column, `anchor` is the cell it belongs to."""

    text: str
    interval: str = ""
    note: str = ""
    paper: str = ""
    verdict: str = ""
    sort: float | None = None
    anchor: str = ""


@dataclass(frozen=True)
class Results:
    """A table of figures under one heading: rows against metrics, or of one metric against columns."""

    title: str
    headers: list[str]
    rows: list[tuple[str, list[Value]]]

    @property
    def marked(self) -> bool:
        """Whether a published figure, with its mark, stands in it."""
        return any(value.paper for _, values in self.rows for value in values)


@dataclass(frozen=True)
class Figure:
    """A published figure beside ours; `anchor` is its id on the page."""

    anchor: str
    name: str
    paper: Value
    ours: Value
    interval: str
    n: int
    verdict: str
    where: str


@dataclass(frozen=True)
class Condition:
    """What stands behind the cells of a row on a column: everything that a click on a cell shows.

    Attributes:
        commits: each with the seeds that were computed at it; empty when the report does not tell.
        cells: seed and key of each.
        settings: those that other conditions do not share.
    """

    anchor: str
    title: str
    command: str
    explain: str
    config: str
    commits: list[tuple[str, str]]
    cells: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    seeds: list[str]
    metrics: list[tuple[str, Value, list[str]]]
    seconds: str
    tokens: str
    kept: bool
    log: list[str]
    withheld: str
    items: list[tuple[str, list[list[tuple[str, list[str]]]]]]


@dataclass(frozen=True)
class Tradeoff:
    """Quality against tokens on one column: (number, row, percent from left, percent from bottom, on the frontier)."""

    title: str
    points: list[tuple[int, str, float, float, bool]]
    across: list[tuple[str, float]]
    up: list[tuple[str, float]]
    cost: str
    quality: str


@dataclass(frozen=True)
class ReportView:
    """One report on its paper's page; with `error` it could not be read and the rest is empty.

    Attributes:
        commits: how many its cells were computed at; 0 when it does not tell.
        claims, compared: of each claim its status, of each published figure its verdict.
        minutes: wall and CPU time of each cell, by a name that it has in all reports of the paper.
        over_columns: columns are places on an axis, so that its plots are curves.
    """

    stem: str
    table: str = ""
    scale: str = ""
    title: str = ""
    error: str = ""
    seeds: int = 0
    claims: tuple[Entry, ...] = ()
    compared: tuple[Entry, ...] = ()
    failed: int = 0
    stale: int = 0
    written: str = ""
    commit: str = ""
    commits: int = 0
    cost: str = ""
    cells: int = 0
    wall_minutes: float = 0.0
    cpu_minutes: float = 0.0
    minutes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    peak_mb: float = 0.0
    machine: str = ""
    tokens: int = 0
    command: str = ""
    versions: str = ""
    rows: tuple[str, ...] = ()
    forests: tuple[Forest, ...] = ()
    results: tuple[Results, ...] = ()
    figures: tuple[Figure, ...] = ()
    tradeoffs: tuple[Tradeoff, ...] = ()
    learning: tuple[Charts, ...] = ()
    plots: tuple[tuple[str, str], ...] = ()
    over_columns: bool = False
    failures: Grid | None = None
    judges: Grid | None = None
    conditions: tuple[Condition, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(figure.word for figure in self.compared)


def view(report: Report, path: Path) -> ReportView:
    """Everything that a page shows of the report in `path`; links only to neighbours that exist.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError: it is no report.
    """
    cost, failures, judges = report["cost"], render.failure_grid(report), render.judge_grid(report)
    shared, settings = _settings(report)
    plots = [
        (render.plot_title(report, metrics), quote(name))
        for name, metrics in render.plot_names(report).items()
        if metrics and (path.parent / name).is_file()
    ]
    kept = report.get("evidence", [])
    return ReportView(
        stem=path.stem,
        table=plain(report["table"], 60),
        scale=plain(report["scale"], 20),
        title=plain(report["title"], 200),
        seeds=len(report["seeds"]),
        claims=tuple(
            Entry(name := str(claim["id"]), str(claim["status"]), claim["n"] or 0, claim_anchor(path.stem, name))
            for claim in report["claims"]
        ),
        compared=tuple(
            Entry(name := str(figure["id"]), str(figure["verdict"]), figure["n"] or 0, figure_anchor(path.stem, name))
            for figure in report["figures"]
        ),
        failed=len(report["failures"]),
        stale=report.get("stale") or 0,
        written=plain(report["generated_at"], 40),
        commit=commit_text(report),
        commits=len({each["commit"] for entry in kept for each in entry.get("commits", [])}),
        cost=render.cost_text(cost),
        cells=cost["cells"],
        wall_minutes=(cost["wall_seconds"] or 0) / 60,
        cpu_minutes=(cost["cpu_seconds"] or 0) / 60,
        minutes=_minutes(report),
        peak_mb=cost["peak_mb"] or 0,
        machine=plain(cost["cpu"], 80),
        tokens=sum(sum(entry.get("tokens", {}).values()) for entry in kept),
        command=render.command(report),
        versions=", ".join(f"{name} {version}" for name, version in sorted(report["versions"].items())),
        rows=tuple(labels(report["rows"]).values()),
        forests=tuple(_forests(report, path.stem)),
        results=tuple(_results(report, path.stem)),
        figures=tuple(_figures(report, path.stem)),
        tradeoffs=tuple(_tradeoffs(report)),
        learning=tuple(learning(report)),
        plots=tuple(plots),
        over_columns=len(report["columns"]) > 1 and all(column.get("at") for column in report["columns"]),
        failures=failures if failures.rows else None,
        judges=judges if judges.rows else None,
        conditions=tuple(_conditions(report, path.stem, settings)),
        shared=tuple(shared),
        files=tuple(
            (label, quote(name))
            for label, name in (("Markdown", f"{path.stem}.md"), ("JSON", path.name))
            if (path.parent / name).is_file()
        ),
    )


def _minutes(report: Report) -> dict[str, tuple[float, float]]:
    """Wall and CPU time by the cells' keys; where a report has none the mean for each, by what a key is made of."""
    entries = [entry for entry in report.get("evidence", []) if "keys" in entry]
    if entries:
        return {
            key: (entry["seconds"][seed] / 60, entry["cpu_seconds"][seed] / 60)
            for entry in entries
            for seed, key in sorted(entry["keys"].items())
        }
    cost, code = report["cost"], digest(report["code"])
    wall, cpu = ((cost[kind] or 0) / 60 / (cost["cells"] or 1) for kind in ("wall_seconds", "cpu_seconds"))
    hashes = {(each["row"], each["column"]): each["config_hash"] for each in report["conditions"]}
    done = {(cell["row"], cell["column"], seed) for cell in report["cells"] for seed in cell["seeds"]}
    return {
        f"{hashes[row, column]}-{code}-{seed}": (wall, cpu)
        for row, column, seed in sorted(done)
        if (row, column) in hashes
    }


def commit_text(entry: Mapping[str, Any]) -> str:
    """`0123456789 with uncommitted changes`."""
    return f"{plain(entry['commit'] or 'no commit')[:10]}{' with uncommitted changes' if entry['dirty'] else ''}"


def anchor(stem: str, row: str, column: str) -> str:
    """Id of a cell on its paper's page."""
    return "/".join(render.file_name(part) for part in (stem, str(row), str(column)))


def claim_anchor(stem: str, name: str) -> str:
    """Id of a claim on its paper's page."""
    return f"{render.file_name(stem)}/claim-{render.file_name(name)}"


def figure_anchor(stem: str, name: str) -> str:
    """Id of a published figure on its paper's page."""
    return f"{render.file_name(stem)}/figure-{render.file_name(name)}"


def claim_text(claim: Mapping[str, Any]) -> str:
    return plain(claim["text"], 300)


def figure_name(figure: Mapping[str, Any], report: Report) -> str:
    """`replay − plain: Hits (%)`, with the column where the report has several."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    metric = next(
        (m for m in report["metrics"] if m["id"] == figure["metric"]), {"label": figure["metric"], "unit": ""}
    )
    name, over, column = rows.get(figure["row"]) or plain(figure["row"], 80), figure.get("over"), figure.get("column")
    name += f" − {rows.get(over) or plain(over, 80)}" if over is not None else ""
    if len(columns) > 1 and column is not None:
        name += f", {columns.get(column) or plain(column, 80)}"
    return f"{name}: {heading(metric, arrow=False)}"


def _forests(report: Report, stem: str) -> Iterable[Forest]:
    """Claims by axis (`render.claim_axes`); the axes hold every interval, and zero."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    places = {}
    for condition in report["conditions"]:
        row, column = condition["row"], condition["column"]
        label = rows.get(row) or plain(row, 80)
        label += f" · {columns.get(column) or plain(column, 80)}" if len(columns) > 1 else ""
        places[plain(row), plain(column)] = (label, anchor(stem, row, column))
    for unit, name, claims in render.claim_axes(report):
        axis = Axis.around(
            [0.0, *(_scaled(claim[key], unit) for claim in claims for key in ("effect", "ci_low", "ci_high"))]
        )
        ticks = [(f"{tick:+.6g}" if tick else "0", place) for tick, place in axis.ticks()]
        drawn = [_claim(claim, report, unit, axis, places, stem) for claim in claims]
        yield Forest(name, drawn, ticks, axis.place(0.0))


def _claim(
    claim: Mapping[str, Any],
    report: Report,
    unit: str,
    axis: Axis,
    places: Mapping[tuple[str, str], tuple[str, str]],
    stem: str,
) -> Claim:
    """`places`: row and column -> label and anchor of their cell."""
    parts = render.claim_parts(claim)
    named = [places[each] for part in parts for each in OPERAND.findall(part) if each in places]
    effect = _scaled(claim["effect"], unit)
    ends = (_scaled(claim[key], unit) for key in ("ci_low", "ci_high"))
    return Claim(
        id=plain(claim["id"], 30),
        anchor=claim_anchor(stem, str(claim["id"])),
        text=claim_text(claim),
        status=plain(claim["status"], 20),
        effect=render.effect_text(claim, report),
        paper=render.paper_text(claim, unit),
        published=render.paper_text(claim, unit, limit=0),
        where=plain(claim["where"] or "", 120),
        n=claim["n"] or 0,
        p=render.claim_p(claim),
        parts=[_linked(part, places) for part in parts],
        cells=list(dict.fromkeys(named)),
        strip=None if effect is None or not math.isfinite(effect) else Strip.of(axis, effect, *ends),
    )


def _linked(part: str, places: Mapping[tuple[str, str], tuple[str, str]]) -> list[tuple[str, str]]:
    """A part in pieces: those that name a cell with its anchor, those between without."""
    pieces, end = [], 0
    for found in OPERAND.finditer(part):
        _, place = places.get((found[1], found[2]), ("", ""))
        if place:
            pieces += [(part[end : found.start()], ""), (found[0], place)]
            end = found.end()
    return [*pieces, (part[end:], "")]


def _scaled(value: float | None, unit: str) -> float | None:
    return None if value is None else scaled(value, unit)


def _results(report: Report, stem: str) -> Iterable[Results]:
    """Rows against metrics where there is one column, else a table for each metric that has values."""
    cells = {(cell["row"], cell["column"], cell["metric"]): cell for cell in report["cells"]}
    rows, columns = labels(report["rows"]), labels(report["columns"])
    measured = {cell["metric"] for cell in report["cells"] if cell["mean"] is not None}
    metrics = [metric for metric in report["metrics"] if metric["id"] in measured]
    known = {(condition["row"], condition["column"]) for condition in report["conditions"]}
    decimals = render.decimals_of(report)

    def value(row: str, column: str, metric: Mapping[str, Any]) -> Value:
        place = anchor(stem, row, column) if (row, column) in known else ""
        shared = decimals.get((column, metric["id"]))
        return _value(cells.get((row, column, metric["id"])), metric, len(report["seeds"]), place, shared)

    if len(columns) == 1:
        [column] = columns
        yield Results(
            "",
            [heading(metric) for metric in metrics],
            [(label, [value(row, column, metric) for metric in metrics]) for row, label in rows.items()],
        )
        return
    for metric in metrics:
        held = {
            cell["column"] for cell in report["cells"] if cell["metric"] == metric["id"] and cell["mean"] is not None
        }
        shown = {column: label for column, label in columns.items() if column in held}
        lines = [(label, [value(row, column, metric) for column in shown]) for row, label in rows.items()]
        filled = [(label, values) for label, values in lines if any(each.sort is not None for each in values)]
        yield Results(heading(metric), list(shown.values()), filled)


def _value(
    cell: Mapping[str, Any] | None, metric: Mapping[str, Any], seeds: int, place: str, decimals: int | None = None
) -> Value:
    if cell is None or cell["mean"] is None:
        return Value(NONE)
    unit = str(metric["unit"])
    whole = format_value(cell["mean"], cell["ci_low"], cell["ci_high"], unit, decimals=decimals)
    text, _, interval = whole.partition(" ")
    paper = "" if (found := render.paper_text(cell, unit)) == NONE else found
    return Value(
        text=text,
        interval=interval,
        note=f"n={cell['n_seeds']}" if cell["n_seeds"] != seeds else "",
        paper=paper,
        verdict=plain(cell["verdict"], 20) if paper and cell["verdict"] else "",
        sort=cell["mean"],
        anchor=place,
    )


def _figures(report: Report, stem: str) -> Iterable[Figure]:
    units = {metric["id"]: str(metric["unit"]) for metric in report["metrics"]}
    known = {(condition["row"], condition["column"]) for condition in report["conditions"]}
    for figure in report["figures"]:
        unit, at, signed = (
            units.get(figure["metric"], ""),
            (figure["row"], figure.get("column")),
            bool(figure.get("over")),
        )
        number = isinstance(figure["published"], int | float) and figure.get("provenance") in MARKS
        whole = format_value(figure["ours"], figure["ci_low"], figure["ci_high"], unit, signed=signed)
        text, _, interval = whole.partition(" ")
        yield Figure(
            anchor=figure_anchor(stem, str(figure["id"])),
            name=figure_name(figure, report),
            paper=Value(render.paper_text(figure, unit, signed=signed), sort=figure["published"] if number else None),
            ours=Value(text, sort=figure["ours"], anchor=anchor(stem, *at) if at in known and text != NONE else ""),
            interval=interval or NONE,
            n=figure["n"] or 0,
            verdict=plain(figure["verdict"], 20),
            where=plain(figure["where"] or "", 160),
        )


def _settings(report: Report) -> tuple[list[tuple[str, str]], dict[tuple[str, str], list[tuple[str, str]]]]:
    """The settings, with the resources where they are known, that all conditions share, and the others of each."""
    resources = {
        (entry["row"], entry["column"]): {"resources": entry["resources"]}
        for entry in report.get("evidence", [])
        if "resources" in entry
    }
    flat = {
        (at := (condition["row"], condition["column"])): {
            plain(key, 80): plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 200)
            for key, value in flatten({**condition["settings"], **resources.get(at, {})}).items()
        }
        for condition in report["conditions"]
    }
    keys = list(dict.fromkeys(key for settings in flat.values() for key in settings))
    shared = {key for key in keys if len({settings.get(key, NONE) for settings in flat.values()}) == 1}
    common = next(iter(flat.values()), {})
    return (
        [(key, common[key]) for key in keys if key in shared],
        {
            at: [(key, settings[key]) for key in keys if key in settings.keys() - shared]
            for at, settings in flat.items()
        },
    )


def _conditions(
    report: Report, stem: str, settings: Mapping[tuple[str, str], list[tuple[str, str]]]
) -> Iterable[Condition]:
    rows, columns = labels(report["rows"]), labels(report["columns"])
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for cell in report["cells"]:
        if cell["mean"] is not None:
            cells.setdefault((cell["row"], cell["column"]), {})[cell["metric"]] = cell
    kept = {(entry["row"], entry["column"]): entry for entry in report.get("evidence", [])}
    for condition in report["conditions"]:
        at = condition["row"], condition["column"]
        own, evidence = cells.get(at, {}), kept.get(at)
        row, column = rows.get(at[0]) or plain(at[0], 80), columns.get(at[1]) or plain(at[1], 80)
        seconds, tokens = ((evidence or {}).get(key, {}).values() for key in ("seconds", "tokens"))
        yield Condition(
            anchor=anchor(stem, *at),
            title=row if len(columns) == 1 else f"{row} · {column}",
            command=f"{render.command(report)} --rows {shlex.quote(plain(at[0]))}",
            explain="repro explain "
            + shlex.quote(plain(f"{report['paper']}/{report['table']}/{at[0]}/{at[1]}/0"))
            + ("" if report["scale"] == "tiny" else f" --scale {shlex.quote(plain(report['scale']))}"),
            config=plain(condition["config_hash"], 16),
            commits=[
                (commit_text(entry), ", ".join(plain(seed) for seed in entry["seeds"]))
                for entry in (evidence or {}).get("commits", [])
            ],
            cells=[(plain(seed), plain(key, 60)) for seed, key in (evidence or {}).get("keys", {}).items()],
            settings=settings[at],
            seeds=[plain(seed) for seed in report["seeds"]],
            metrics=[
                _metric(own[metric["id"]], metric, report["seeds"])
                for metric in report["metrics"]
                if metric["id"] in own
            ],
            seconds=f"{sum(seconds):,.0f}" if seconds else "",
            tokens=f"{sum(tokens):,}" if tokens else "",
            kept=evidence is not None,
            log=[plain(line) for line in (evidence or {}).get("log", [])],
            withheld=", ".join(plain(name, 60) for name in (evidence or {}).get("withheld", [])),
            items=[
                (plain(name, 60), [_item(item) for item in items])
                for name, items in (evidence or {}).get("items", {}).items()
            ],
        )


def _item(item: Any) -> list[tuple[str, list[str]]]:
    """Field and its lines, whatever fields there are; an item without fields has one, called item."""
    fields = item if isinstance(item, dict) else {"item": item}
    return [(plain(key, 80), _lines(value)) for key, value in fields.items()]


def _lines(value: Any) -> list[str]:
    """A text as it was broken, a list of texts or mappings one after the other, a mapping that holds texts with each of
    its fields on a line of its own, anything else as JSON."""
    if isinstance(value, str):
        return [plain(line) for line in value.splitlines()] or [""]
    if isinstance(value, list) and any(isinstance(each, str | dict) for each in value):
        return [line for each in value for line in _lines(each)]
    if isinstance(value, dict) and any(isinstance(each, str) for each in value.values()):
        fields = [(plain(key, 80), _lines(each)) for key, each in value.items()]
        return [line for key, (first, *rest) in fields for line in (f"{key}: {first}", *rest)]
    return [plain(json.dumps(_short(value), ensure_ascii=False))]


def _short(value: Any) -> Any:
    """Floats anywhere in it with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [_short(each) for each in value]
    return {key: _short(each) for key, each in value.items()} if isinstance(value, dict) else value


def _metric(cell: Mapping[str, Any], metric: Mapping[str, Any], seeds: list[int]) -> tuple[str, Value, list[str]]:
    """Heading, figure, and the value of each seed of the table."""
    found = dict(zip(cell["seeds"], cell["values"], strict=True))
    each = [format_value(found.get(seed), None, None, str(metric["unit"])) for seed in seeds]
    return heading(metric), _value(cell, metric, len(seeds), ""), each


def _tradeoffs(report: Report) -> Iterable[Tradeoff]:
    """Quality (the first metric that is better when higher) against tokens, for each column that has both."""
    cost = next((m for m in report["metrics"] if "tokens" in (m["id"], m["unit"]) and m["better"] == "lower"), None)
    if cost is None:
        return
    rows = labels(report["rows"])
    means = {
        (cell["column"], cell["metric"], cell["row"]): cell["mean"]
        for cell in report["cells"]
        if cell["mean"] is not None
    }
    for column, label in labels(report["columns"]).items():
        measured = {metric for at, metric, _ in means if at == column}
        quality = next((m for m in report["metrics"] if m["better"] == "higher" and m["id"] in measured), None)
        if quality is None:
            continue
        both = [row for row in rows if all((column, m["id"], row) in means for m in (cost, quality))]
        points = [(means[column, cost["id"], row], means[column, quality["id"], row]) for row in both]
        points = [(x, scaled(y, str(quality["unit"]))) for x, y in points]
        if len(points) < 2:
            continue
        spend = [x for x, _ in points]
        across = Axis.around(spend, log=min(spend) > 0 and max(spend) > 10 * min(spend))
        up, best = Axis.around(y for _, y in points), frontier(points)
        numbers = {row: number for number, row in enumerate(rows, start=1)}
        yield Tradeoff(
            title=label if len(report["columns"]) > 1 else "",
            points=[
                (numbers[row], rows[row], across.place(x), up.place(y), i in best)
                for i, (row, (x, y)) in enumerate(zip(both, points, strict=True))
            ],
            across=[(f"{tick:,.6g}", place) for tick, place in across.ticks(4)],
            up=[(f"{tick:.6g}", place) for tick, place in up.ticks(4)],
            cost=heading(cost, arrow=False),
            quality=heading(quality, arrow=False),
        )
