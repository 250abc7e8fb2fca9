"""A report as Markdown and as terminal output, from the dict of `reports/<paper>/<table>.<scale>.json` alone.

Labels, error messages and anything a model wrote are hostile until shown: every text passes `plain` (one line,
no control characters), then the escaping of the medium, in the one function that writes a table cell there.
A published figure is shown only with its provenance.
"""

import json
import math
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.experiments.fingerprint import digest
from common.experiments.settings import flatten

NONE = "—"
STATUSES = {"holds": "green", "fails": "red", "underpowered": "yellow", "not tested": "bright_black"}
VERDICTS = {
    "reproduced": "green",
    "direction only": "cyan",
    "not reproduced": "red",
    "underpowered": "yellow",
    "not run": "bright_black",
    "not comparable": "bright_black",
}
MARKS = {"verified": "✓", "secondary": "†", "reconstructed": "‡"}  # provenance of a published figure
_SPACES = {"Cc": " ", "Zl": " ", "Zp": " "}  # Unicode categories that separate words; other C* vanish
BOUNDS = "Intervals are shown as computed: of few seeds one may pass what its metric can reach, such as 0 or 100%."
LEGEND = "✓ verified in the paper · † from a secondary source · ‡ reconstructed"
SYMBOLS = {"fraction": "%", "count": "", "": ""}  # unit -> what a heading shows; other units show themselves
ARROWS = {"higher": "↑", "lower": "↓"}

AGREEMENT = (
    "How often the judge is right about answers that were planted: right ones, wrong ones, and vague ones that say "
    "nothing; with exact 95% intervals. A figure is worth no more than its judge."
)
EFFECT = (
    "Effect: distance from the threshold at which the claim turns, positive towards the claim; of its weakest part."
)

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table of texts, not yet escaped for any medium; the columns in `numeric` are right-aligned."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


# Values -------------------------------------------------------------------------------------------------------


def format_value(
    mean: float | None,
    low: float | None,
    high: float | None,
    unit: str,
    *,
    signed: bool = False,
    decimals: int | None = None,
) -> str:
    """`43.2 [40.1, 46.3]`: a mean with its 95% interval, `43.2` without one (n = 1, or a count that never differs),
    `—` without a value.

    Args:
        low, high: ends of the interval; both None when undefined. A single None is an open end.
        unit: `fraction` (in [0, 1], shown as percent with one decimal), `count` (thousands separators), or
            any other, shown with about four digits.
        signed: show `+` too, for differences.
        decimals: those of its column (`column_decimals`); None for its own.
    """
    if mean is None or not math.isfinite(mean):
        return NONE
    if decimals is None:
        decimals = _decimals(_finite(mean, low, high), unit)
    text = _number(mean, unit, decimals, signed)
    if (low is None and high is None) or (unit == "count" and low == high == mean):  # equal counts need no interval
        return text
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return f"{text} [{', '.join(_number(end, unit, decimals, signed) for end in ends)}]"


def column_decimals(cells: Iterable[Mapping[str, Any]], unit: str) -> int | None:
    """Decimals that the figures of a column share: enough for the largest, and for two digits of the smallest mean.

    None, so that each has its own, where they are too far apart for that: the largest would have two needless ones.
    """
    cells = [cell for cell in cells if _finite(cell["mean"])]
    values = _finite(*(cell[key] for cell in cells for key in ("mean", "ci_low", "ci_high")))
    if not values:
        return None
    shared = _decimals(values, unit)
    if unit == "fraction":
        return shared
    if unit == "count":
        return shared if max(map(abs, values)) < 1000 else None
    needed = max((1 - math.floor(math.log10(abs(cell["mean"]))) for cell in cells if cell["mean"]), default=0)
    return max(shared, needed) if needed <= shared + 2 else None


def _finite(*values: float | None) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def scaled(value: float, unit: str) -> float:
    """The number that stands before the unit's symbol: percent for fractions."""
    return 100 * value if unit == "fraction" else value


def _number(value: float, unit: str, decimals: int, signed: bool) -> str:
    if not math.isfinite(value):
        return NONE if math.isnan(value) else "∞" if value > 0 else "-∞"
    rounded = round(scaled(value, unit), decimals) + 0.0  # no "-0.0"
    return f"{rounded:{'+' if signed and rounded else ''},.{decimals}f}"


def _decimals(values: Sequence[float], unit: str) -> int:
    """Decimals shared by a mean and its interval."""
    largest = max(abs(value) for value in values)
    if unit == "fraction":
        return 1
    if unit == "count":
        return 0 if largest >= 1000 or all(value == round(value) for value in values) else 1
    if largest == 0:
        return 0
    return min(max(3 - math.floor(math.log10(largest)), 0), 3 if largest >= 0.01 else 8)


def paper_text(entry: Report, unit: str, *, signed: bool = False, limit: int = 60) -> str:
    """The paper's figure with its provenance mark, or `—`: without provenance nothing counts as published.

    Args:
        signed: show `+` too, for differences.
        limit: longest text in characters where it is in words, cut with `…`; 0 for no limit.
    """
    value, mark = entry.get("published"), MARKS.get(str(entry.get("provenance")))
    if value is None or mark is None:
        return NONE
    number = isinstance(value, int | float)
    return f"{format_value(value, None, None, unit, signed=signed) if number else plain(value, limit)} {mark}"


def p_text(p: float | None) -> str:
    """A p-value with three decimals, `<0.001` below, `—` where none was computed."""
    return NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: object, limit: int = 0) -> str:
    """Any value as text in one line, without control, direction-changing or unencodable characters.

    Args:
        limit: longest text in characters, cut with `…`; 0 for no limit.
    """
    text = str(value)
    if not text.isprintable():  # some character is of a category C or Z, the plain space aside
        text = "".join(_SPACES.get(kind := unicodedata.category(c), "" if kind[0] == "C" else c) for c in text)
    text = " ".join(text.split())
    return text if not limit or len(text) <= limit else text[: limit - 1] + "…"


# Content ------------------------------------------------------------------------------------------------------


def counts(report: Report) -> tuple[Counter[str], Counter[str]]:
    """How many claims have each status, and how many published figures each verdict."""
    return (
        Counter(str(claim["status"]) for claim in report["claims"]),
        Counter(str(figure["verdict"]) for figure in report["figures"]),
    )


def tally(counter: Counter[str], known: Iterable[str]) -> str:
    """`3 holds, 1 underpowered`, in the order of `known`; empty when nothing was counted."""
    order = [*known, *sorted(counter.keys() - set(known))]
    return ", ".join(f"{counter[name]} {plain(name, 30)}" for name in order if counter[name])


def stem(report: Report) -> str:
    """File name of a report without its ending: `name` where the report has one, else `<table>.<scale>`."""
    return file_name(str(report.get("name") or f"{report['table']}.{report['scale']}"))


def plot_names(report: Report) -> dict[str, tuple[str, ...]]:
    """File name -> metrics, none for the plot of the claims; only plots with something to show."""
    names: dict[str, tuple[str, ...]] = {}
    if any(claim["effect"] is not None for claim in report["claims"]):
        names[f"{stem(report)}.claims.svg"] = ()
    measured = {cell["metric"] for cell in report["cells"] if cell["mean"] is not None}
    panels: dict[str, str] = {}  # title -> file name, after the first metric
    for metric in report["metrics"]:
        if metric["id"] in measured:
            kind = "panel" if metric.get("panel") else "metric"
            name = f"{stem(report)}.{kind}-{file_name(metric['id'])}.svg"
            name = panels.setdefault(metric["panel"], name) if metric.get("panel") else name
            names[name] = (*names.get(name, ()), metric["id"])
    return names


def plot_title(report: Report, metrics: Sequence[str]) -> str:
    """What a plot of `plot_names` shows."""
    if not metrics:
        return "claims: effect with 95% interval"
    shown = next(metric for metric in report["metrics"] if metric["id"] == metrics[0])
    return plain(shown.get("panel") or shown.get("label") or shown["id"], 80)


def command(report: Report) -> str:
    """The command line that computes this report."""
    table = shlex.quote(f"{plain(report['paper'])}/{plain(report['table'])}")
    overrides = [shlex.quote(plain(override)) for override in report["overrides"]]
    seeds = f"--seeds {len(report['seeds'])}"
    return " ".join(["repro table", table, "--scale", shlex.quote(plain(report["scale"])), seeds, *overrides])


def labels(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Id -> label of rows, columns or metrics."""
    return {entry["id"]: plain(entry.get("label") or entry["id"], 80) for entry in entries}


def _name(names: Mapping[str, str], key: str) -> str:
    """The label of an id; an id without one stands for itself."""
    return names.get(key) or plain(key, 80)


def heading(metric: Mapping[str, Any], arrow: bool = True) -> str:
    """`A_5 Hits@10 (%) ↑`."""
    unit = str(metric.get("unit") or "")
    symbol = plain(SYMBOLS.get(unit, unit), 20)
    parts = [plain(metric["label"], 80), f"({symbol})" if symbol else "", ARROWS.get(str(metric.get("better")), "")]
    return " ".join(part for part in parts[: 3 if arrow else 2] if part)


def file_name(text: str) -> str:
    """`text` if it is safe as part of a file name, else a safe form that no other text has."""
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", text)
    return safe if safe == text and len(safe) <= 100 else f"{safe[:80]}-{digest(text, 6)}"


def _summary(report: Report) -> str:
    statuses, verdicts = counts(report)
    seeds = len(report["seeds"])
    parts = [
        f"{plain(report['scale'])} scale",
        f"{seeds} seed{'' if seeds == 1 else 's'}",
        f"claims: {tally(statuses, STATUSES) or 'none'}",
        f"published figures: {tally(verdicts, VERDICTS) or 'none'}",
    ]
    if report["failures"]:
        parts.append(f"{len(report['failures'])} failed cell{'' if len(report['failures']) == 1 else 's'}")
    if report.get("stale"):
        parts.append(f"{report['stale']} cells computed by older code")
    return " · ".join(parts)


def decimals_of(report: Report) -> dict[tuple[str, str], int | None]:
    """(column, metric) -> decimals of its figures in the main table."""
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in report["cells"]:
        cells.setdefault((cell["column"], cell["metric"]), []).append(cell)
    units = {metric["id"]: str(metric["unit"]) for metric in report["metrics"]}
    return {at: column_decimals(found, units.get(at[1], "")) for at, found in cells.items()}


def _values(report: Report, published: bool) -> Grid:
    """The main table: rows x (column, metric); `(n=2)` marks a value that rests on fewer seeds than the table."""
    cells = {(cell["row"], cell["column"], cell["metric"]): cell for cell in report["cells"]}
    columns = labels(report["columns"])
    places = [(column, metric) for column in columns for metric in report["metrics"]]
    decimals = decimals_of(report)

    def text(row: str, column: str, metric: Mapping[str, Any]) -> str:
        cell = cells.get((row, column, metric["id"]))
        if cell is None:
            return NONE
        own = decimals[column, metric["id"]]
        ours = format_value(cell["mean"], cell["ci_low"], cell["ci_high"], metric["unit"], decimals=own)
        if cell["mean"] is not None and cell["n_seeds"] != len(report["seeds"]):
            ours += f" (n={cell['n_seeds']})"
        theirs = paper_text(cell, metric["unit"]) if published else NONE
        return ours if theirs == NONE else f"{ours} (paper: {theirs})"

    return Grid(
        headers=["", *((f"{columns[c]}: " if len(columns) > 1 else "") + heading(metric) for c, metric in places)],
        rows=[
            [label, *(text(row, column, metric) for column, metric in places)]
            for row, label in labels(report["rows"]).items()
        ],
        numeric=frozenset(range(1, len(places) + 1)),
    )


def _figures(report: Report) -> Grid:
    """Published figures beside ours."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    metrics = {metric["id"]: metric for metric in report["metrics"]}

    def line(figure: Mapping[str, Any]) -> list[str]:
        metric = metrics.get(figure["metric"], {"label": figure["metric"], "unit": ""})
        over, unit = figure.get("over"), str(metric["unit"])
        name = _name(rows, figure["row"])
        if over is not None:
            name += f" − {_name(rows, over)}"
        if len(columns) > 1 and figure.get("column") is not None:
            name += f", {_name(columns, figure['column'])}"
        signed = over is not None
        return [
            f"{name}: {heading(metric, arrow=False)}",
            paper_text(figure, unit, signed=signed),
            format_value(figure["ours"], None, None, unit, signed=signed),
            _interval(figure, unit, signed),
            str(figure["n"] or 0),
            plain(figure["verdict"], 20),
            plain(figure["where"], 80),
        ]

    headers = ["figure", "paper", "ours", "95% interval", "n", "verdict", "where in the paper"]
    return Grid(headers, [line(figure) for figure in report["figures"]], numeric=frozenset({1, 2, 3, 4}))


def _interval(entry: Mapping[str, Any], unit: str, signed: bool = False) -> str:
    """`[15.0, 27.2]`, rounded as beside the value of `ours`."""
    text = format_value(entry["ours"], entry["ci_low"], entry["ci_high"], unit, signed=signed)
    return text[text.index("[") :] if "[" in text else NONE


def measure(claim: Mapping[str, Any]) -> tuple[str, str]:
    """Unit and metric of a claim's effect; both empty where it was not tested."""
    return str(claim.get("unit") or ""), str(claim.get("metric") or "")


def exact(claim: Mapping[str, Any]) -> bool:
    """Whether both sides of a claim are equal at every seed, so that an interval and a p-value say no more."""
    return bool(claim["effect"] == claim["ci_low"] == claim["ci_high"] == 0)


def effect_text(claim: Mapping[str, Any], report: Report) -> str:
    """The tested effect with its interval and unit: percentage points of a fraction, of a count what is counted."""
    unit, metric = measure(claim)
    if exact(claim):
        return "0, exact"
    text = format_value(claim["effect"], claim["ci_low"], claim["ci_high"], unit)
    counted = _name(labels(report["metrics"]), metric) if metric else ""
    suffix = {"fraction": "points", "count": counted}.get(unit, plain(unit, 20))
    return text if text == NONE or not suffix else f"{text} {suffix}"


def claim_p(claim: Mapping[str, Any]) -> str:
    """Its p-value as `p_text` has it; none for what is exact."""
    return p_text(None if exact(claim) else claim["p_value"])


def _claims(report: Report) -> Grid:
    return Grid(
        headers=["id", "claim", "paper", "ours: effect [interval]", "n", "p", "status", "where in the paper"],
        rows=[
            [
                plain(claim["id"], 30),
                plain(claim["text"], 300),
                paper_text(claim, measure(claim)[0]),
                effect_text(claim, report),
                str(claim["n"] or 0),
                claim_p(claim),
                plain(claim["status"], 20),
                plain(claim["where"], 80),
            ]
            for claim in report["claims"]
        ],
        numeric=frozenset({2, 3, 4, 5}),
    )


def claim_parts(claim: Mapping[str, Any]) -> list[str]:
    """The claim's detail, one line per part."""
    detail = claim.get("detail") or ""
    return [plain(line, 300) for line in (detail.splitlines() if isinstance(detail, str) else detail)]


def claim_axes(report: Report) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    """Claims that can share an axis: its unit, its name, and the claims, in the report's order.

    A count is of something, so that only claims of one metric share it; a claim that was not tested has an axis of its
    own.
    """
    names = labels(report["metrics"])
    axes: dict[tuple[str, str], tuple[str, str, list[Mapping[str, Any]]]] = {}
    for claim in report["claims"]:
        unit, metric = measure(claim)
        name = {"fraction": "percentage points", "count": _name(names, metric) if metric else ""}.get(unit, unit)
        known = unit and (metric or unit != "count")
        key = (unit, name) if known else ("", str(claim["id"]))
        axes.setdefault(key, (unit, plain(name, 80), []))[2].append(claim)
    return list(axes.values())


def failure_grid(report: Report) -> Grid:
    """The cells that failed: row, column, seed and the error in one line."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    lines = [
        [
            _name(rows, failure["row"]),
            _name(columns, failure["column"]),
            plain(failure["seed"]),
            plain(failure["error"], 240),
        ]
        for failure in report["failures"]
    ]
    return Grid(["row", "column", "seed", "error"], lines)


def judge_grid(report: Report) -> Grid:
    """Who judged a metric, by which prompt, and how far that is to be trusted."""
    metrics = labels(report["metrics"])

    def line(judge: Mapping[str, Any]) -> list[str]:
        found = judge["agreement"]
        shares = [*(found["by_kind"][kind] for kind in ("right", "wrong", "vague")), found["overall"]]
        revision = f"@{judge['revision']}" if judge["revision"] else ""
        return [
            _name(metrics, judge["metric"]),
            plain(f"{judge['prompt']} v{judge['version']} {judge['prompt_hash']}", 60),
            plain(f"{judge['model']}{revision} ({judge['backend']})", 80),
            *(format_value(each["mean"], each["low"], each["high"], "fraction") for each in shares),
            f"{found['unreadable']} of {found['overall']['n']}",
        ]

    headers = ["metric", "prompt", "model", "right (%)", "wrong (%)", "vague (%)", "all (%)", "unreadable"]
    return Grid(headers, [line(judge) for judge in report.get("judges", [])], numeric=frozenset({3, 4, 5, 6, 7}))


def _settings(report: Report) -> Grid:
    """Conditions x the settings in which they differ; columns (data sets) of a row that agree share a line."""
    rows, columns = labels(report["rows"]), labels(report["columns"])
    flat = [(c["row"], c["column"], c["config_hash"], setting_texts(c["settings"])) for c in report["conditions"]]
    keys = list(dict.fromkeys(key for *_, settings in flat for key in settings))
    differing = [key for key in keys if len({settings.get(key, NONE) for *_, settings in flat}) > 1]
    lines: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for row, column, config_hash, settings in flat:
        line = (row, *(settings.get(key, NONE) for key in differing))
        lines.setdefault(line, []).append((_name(columns, column), plain(config_hash, 16)))
    return Grid(
        headers=["row", "column", *(plain(key, 60) for key in differing), "config"],
        rows=[
            [
                _name(rows, row),
                ", ".join(column for column, _ in places),
                *values,
                ", ".join(config for _, config in places),
            ]
            for (row, *values), places in lines.items()
        ],
    )


def setting_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings with dotted keys; values as text."""
    flat = flatten(settings).items()
    return {key: plain(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False), 60) for key, v in flat}


def cost_text(cost: Mapping[str, Any]) -> str:
    """What the cells took together: wall and CPU time, in seconds below a minute, the largest memory in MB, the
    processor.
    """
    cells = format_value(cost["cells"], None, None, "count")
    times = [cost["wall_seconds"], cost["cpu_seconds"]]
    unit, seconds = ("minutes", 60) if max(time or 0 for time in times) >= 60 else ("seconds", 1)
    wall, cpu = (NONE if time is None else f"{time / seconds:,.1f}" for time in times)
    peak = format_value(cost["peak_mb"], None, None, "count")
    where = plain(cost["cpu"] or "unknown CPU", 80)
    return f"{wall} {unit} ({cpu} of CPU time) over {cells} cells, peak {peak} MB, on {where}"


def commit_text(report: Report) -> str:
    """The commit that the newest cell ran at, and whether any ran with uncommitted changes."""
    dirty = " with uncommitted changes" if report["dirty"] else ""
    return f"{plain(report['commit'] or 'none', 40)}{dirty}"


# Markdown -----------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown; plots are linked as neighbours of the file."""
    seeds = ", ".join(plain(seed) for seed in report["seeds"])
    claims, figures, failures, settings = _claims(report), _figures(report), failure_grid(report), _settings(report)
    judges = judge_grid(report)
    details = [f"- {_escape(plain(c['id'], 30))}: {_escape(part)}" for c in report["claims"] for part in claim_parts(c)]
    plots = [f"![{_escape(plot_title(report, metrics))}]({name})" for name, metrics in plot_names(report).items()]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report["versions"].items()))
    facts = {
        "Cost": cost_text(report["cost"]),
        "Commit": commit_text(report),
        "Versions": plain(versions) or NONE,
        "Written": plain(report["generated_at"]),
    }
    title = [_escape(plain(text, 200)) for text in (report["paper"], report["table"], report["title"])]
    blocks = [
        f"# {title[0]} / {title[1]}: {title[2]}",
        _escape(_summary(report)),
        "## Claims",
        markdown_table(claims) if claims.rows else "No claims are written down for this table.",
        EFFECT if claims.rows else "",
        "\n".join(details),
        "## Published figures beside ours",
        markdown_table(figures) if figures.rows else "No published figures are written down for this table.",
        LEGEND if figures.rows or claims.rows else "",
        "## Results",
        f"Mean over seeds {_escape(seeds) or NONE} with a 95% interval; in parentheses the paper's figure. {BOUNDS}",
        markdown_table(_values(report, published=True)),
        *(["## Judges", AGREEMENT, markdown_table(judges)] if judges.rows else []),
        *(["## Failures", markdown_table(failures)] if failures.rows else []),
        *(["## Plots", *plots] if plots else []),
        "## How to reproduce",
        f"```\n{command(report)}\n```",
        "\n".join(f"- {name}: {_escape(text)}" for name, text in facts.items()),
        "## Settings in which the rows differ",
        markdown_table(settings) if len(settings.headers) > 3 else "All rows share the same settings.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _escape(text: str) -> str:
    """Text that GitHub-flavoured Markdown shows as it is: no markup, HTML, mathematics, links or table bars."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"\bwww\.", r"www\\.", text.replace("://", r"\://"), flags=re.IGNORECASE)


def markdown_table(grid: Grid) -> str:
    """The grid as a table of GitHub-flavoured Markdown."""
    lines = [
        [_escape(header) for header in grid.headers],
        ["---:" if i in grid.numeric else "---" for i in range(len(grid.headers))],
        *([_escape(cell) for cell in row] for row in grid.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Terminal -----------------------------------------------------------------------------------------------------


def terminal(report: Report, console: Console) -> None:
    """Print main table, published figures and claims with coloured status, within the console's width."""
    title = f"{plain(report['paper'])}/{plain(report['table'])}: {plain(report['title'], 200)}"
    _print(console, Text(title, style="bold"))
    _print(console, Text(_summary(report), style="dim"))
    for grid in _blocks(_values(report, published=False), console.width):
        console.print()
        _print(console, _rich(grid, console.width))
    figures = _figures(report)
    if figures.rows:
        console.print()
        _print(console, Text("Published figures beside ours", style="bold"))
        lines = [
            [name, paper, f"{ours} {interval}" if interval != NONE else ours, verdict]
            for name, paper, ours, interval, _, verdict, _ in figures.rows
        ]
        _print(console, _rich(Grid(["", "paper", "ours", "verdict"], lines, frozenset({1, 2})), console.width))
    if report["claims"]:
        console.print()
        _print(console, Text("Claims", style="bold"))
    for claim, cells in zip(report["claims"], _claims(report).rows, strict=True):
        name, text, paper, effect, n, p, status, where = cells
        line = Text.assemble((f"{name} ", "bold"), (status, STATUSES.get(status, "")))
        line.append(f"  {effect}" + (f"  p {p}" if p != NONE else "") + f"  n {n}")
        line.append(f"  paper {paper}" if paper != NONE else "")
        _print(console, line)
        _print(console, Text(f"{text} ({where})" if where else text), indent=2)
        parts = claim_parts(claim)
        for part in parts if len(parts) > 1 or claim["effect"] is None else []:  # a single part repeats the line above
            _print(console, Text(part, style="dim"), indent=4)
    console.print()
    for metric, prompt, model, right, wrong, vague, *_ in judge_grid(report).rows:
        said = f"{metric}: judge {prompt} on {model}; agrees with planted answers: right {right}, wrong {wrong}, "
        _print(console, Text(f"{said}vague {vague}"))
    for row, column, seed, error in failure_grid(report).rows:
        _print(console, Text.assemble(("failed ", "red"), f"{row} · {column} · seed {seed}: {error}"))
    if figures.rows or report["claims"]:
        _print(console, Text(LEGEND, style="dim"))
    _print(console, Text(cost_text(report["cost"]), style="dim"))


def _print(console: Console, content: Text | Table, indent: int = 0) -> None:
    """Print without markup, emoji or highlighting: `Text` is never parsed."""
    console.print(Padding(content, (0, 0, 0, indent), expand=False), highlight=False)


def _blocks(grid: Grid, width: int) -> Iterable[Grid]:
    """The grid cut into side-by-side blocks that fit `width`, each with the labels in front."""
    widths = _widths(grid, width)
    block: list[int] = []
    for i in range(1, len(grid.headers)):
        if block and widths[0] + sum(widths[j] + 2 for j in [*block, i]) > width:
            yield _take(grid, block)
            block = []
        block.append(i)
    yield _take(grid, block)


def _take(grid: Grid, columns: Sequence[int]) -> Grid:
    chosen = [0, *columns]
    return Grid(
        [grid.headers[i] for i in chosen],
        [[row[i] for i in chosen] for row in grid.rows],
        frozenset(k for k, i in enumerate(chosen) if i in grid.numeric),
    )


def _widths(grid: Grid, width: int) -> list[int]:
    """Columns as wide as their cells, headers wrapped; the labels in front get what a third of the width allows."""
    widths = []
    for i, header in enumerate(grid.headers):
        cells = max((cell_len(row[i]) for row in grid.rows), default=0)
        words = max((cell_len(word) for word in header.split()), default=0)
        widths.append(min(max(cells, words, min(cell_len(header), 24)), width // 3 if i == 0 else width * 2 // 3 - 2))
    return widths


def _rich(grid: Grid, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    widths = _widths(grid, width)
    spare = width - sum(widths) - 2 * len(widths)
    widths[0] = min(widths[0] + max(spare, 0), max((cell_len(row[0]) for row in grid.rows), default=widths[0]))
    for i, header in enumerate(grid.headers):
        justify: Literal["left", "right"] = "right" if i in grid.numeric else "left"
        table.add_column(Text(header), justify=justify, width=max(widths[i], 1), overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=VERDICTS.get(cell, "") if i else "") for i, cell in enumerate(row)))
    return table
