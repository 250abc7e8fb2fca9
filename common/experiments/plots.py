"""Plots of a report as SVG: a forest plot of its claims, and a chart per metric, or per panel of metrics: points with
intervals, or curves where the columns are a scale.

Text stays text (small files, sharp on a phone), and equal reports give equal bytes. matplotlib is imported only
when something has to be drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.experiments.fingerprint import code_files, digest
from common.experiments.render import MARKS, Report, claim_axes, heading, labels, plain, plot_names, scaled
from common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, OURS, THEIRS = "#333333", "#0072B2", "#D55E00"
SERIES = (OURS, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", THEIRS, "#000000", "#8C6D31")  # Okabe and Ito, and a brown
STATUS_STYLES = {"holds": ("#009E73", "o"), "fails": ("#D55E00", "X"), "underpowered": ("#E69F00", "D")}
PANELS = 3  # panels side by side
DRAWING = ("plots", "render")  # modules that decide what a plot looks like


def draw(report: Report, folder: Path) -> list[Path]:
    """Write the plots of a report (`render.plot_names`) into `folder`; a plot that is up to date is left alone.

    Returns:
        The files, claims first, then metrics in the report's order; metrics without values have none.
    """
    paths = []
    files = code_files(__name__)
    code = [files[f"common/experiments/{name}.py"] for name in DRAWING]
    for name, metrics in plot_names(report).items():
        path = folder / name
        content = digest(_content(report, metrics), length=32)
        key = digest([code, content], length=32)
        if not (path.exists() and f"<dc:identifier>{key}<" in path.read_text(encoding="utf-8")):
            write_atomically(path, _svg(report, metrics, key, content))
        paths.append(path)
    return paths


def _content(report: Report, metrics: Sequence[str]) -> Any:
    """All of the report that the plot shows."""
    if not metrics:
        return [report["claims"], labels(report["metrics"])]
    cells = [cell for cell in report["cells"] if cell["metric"] in metrics]
    return [report["rows"], report["columns"], [m for m in report["metrics"] if m["id"] in metrics], cells]


def _svg(report: Report, metrics: Sequence[str], key: str, salt: str) -> str:
    import io

    with _style(salt):
        if not metrics:
            figure = _forest(report)
        elif len(metrics) == 1 and len(report["columns"]) > 1 and all(c.get("at") for c in report["columns"]):
            figure = _curves(report, metrics[0])
        else:
            figure = _points(report, metrics)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Identifier": key})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """matplotlib's own defaults instead of the user's, text as text without formulas, ids that do not change."""
    import warnings

    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the viewer has the font, not matplotlib
        matplotlib.rcdefaults()
        matplotlib.rc("svg", hashsalt=salt, fonttype="none")
        matplotlib.rc("text", parse_math=False, color=INK)
        matplotlib.rc("font", size=9)
        matplotlib.rc("axes", edgecolor="#AAAAAA", labelcolor=INK, titlesize=9)
        matplotlib.rc("xtick", color=INK)
        matplotlib.rc("ytick", color=INK)
        yield


def _forest(report: Report) -> "Figure":
    """One line per claim, effect with interval, on axes as `claim_axes` has them; they turn at the dotted zero."""
    units, symbols, groups = zip(*claim_axes(report), strict=True)
    figure = _figure(7.2, 0.8 + sum(0.34 * len(group) + 0.6 for group in groups))
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(group) + 1 for group in groups])[:, 0]
    for unit, symbol, group, axes in zip(units, symbols, groups, panels, strict=True):
        for y, claim in enumerate(group):
            color, marker = STATUS_STYLES.get(claim["status"], ("#777777", "s"))
            _interval(axes, y, claim["effect"], claim["ci_low"], claim["ci_high"], unit, color, marker)
            if claim["effect"] is None:
                axes.text(
                    0.99, y, plain(claim["status"], 20), transform=axes.get_yaxis_transform(), ha="right", va="center"
                )
        names = [f"{plain(claim['id'], 12)} {plain(claim['text'], 44)}" for claim in group]
        _rows(axes, names)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"effect ({symbol})" if symbol else "effect")
    handles = [
        panels[0].plot([], [], marker=marker, color=color, linestyle="-", label=status)[0]
        for status, (color, marker) in STATUS_STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _points(report: Report, chosen: Sequence[str]) -> "Figure":
    """Mean with interval per row, seeds as dots below, one panel per column; published figures where comparable.

    Several metrics are told apart by colour; their seeds and published figures are left out.
    """
    metrics = [metric for metric in report["metrics"] if metric["id"] in chosen]
    rows, columns = labels(report["rows"]), labels(report["columns"])
    width, height = min(len(columns), PANELS), -(-len(columns) // PANELS)
    figure = _figure(2.4 + (4.8 if width == 1 else 2.8 * width), height * (0.9 + 0.3 * len(rows)) + 0.5)
    panels = list(figure.subplots(height, width, squeeze=False, sharey=True).flat)
    for axes in panels[len(columns) :]:
        axes.remove()
    for (column, label), axes in zip(columns.items(), panels, strict=False):
        for number, metric in enumerate(metrics):
            at = metric["id"], column
            found = {cell["row"]: cell for cell in report["cells"] if (cell["metric"], cell["column"]) == at}
            for y, row in enumerate(rows):
                cell = found.get(row)
                if cell is None or cell["mean"] is None:
                    continue
                if len(metrics) == 1:
                    _cell(axes, y, cell, str(metric["unit"]))
                else:
                    place = y + 0.5 * (number + 0.5) / len(metrics) - 0.25
                    interval = (cell["mean"], cell["ci_low"], cell["ci_high"])
                    _interval(axes, place, *interval, str(metric["unit"]), _color(number), "o")
        units = {str(metric["unit"]) for metric in metrics}
        own = [cell for cell in report["cells"] if cell["column"] == column and cell["metric"] in chosen]
        axes.set_xlim(_within_reach(axes.get_xlim(), own, units.pop() if len(units) == 1 else ""))
        _rows(axes, [plain(name, 44) for name in rows.values()])
        axes.set_title(label if len(columns) > 1 else "")
        axes.set_xlabel(heading(metrics[0]) if len(metrics) == 1 else plain(metrics[0]["panel"], 80))
    if len(metrics) == 1:
        legend = [
            panels[0].plot([], [], "-o", color=OURS, label="mean with 95% interval")[0],
            panels[0].plot([], [], "o", color=OURS, alpha=0.5, markersize=3, markeredgewidth=0, label="one seed")[0],
        ]
        if any(_published(cell) for cell in report["cells"] if cell["metric"] == metrics[0]["id"]):
            legend += panels[0].plot([], [], "d", color=THEIRS, fillstyle="none", markersize=7, label="paper")
    else:
        legend = [
            panels[0].plot([], [], "-o", color=_color(number), label=heading(metric, arrow=False))[0]
            for number, metric in enumerate(metrics)
        ]
    figure.legend(handles=legend, loc="outside upper center", ncols=1 if len(metrics) > 3 else 3, frameon=False)
    return figure


def _curves(report: Report, metric_id: str) -> "Figure":
    """Mean with its interval as a band per row, over the numbers that the columns stand at, on a logarithmic scale."""
    metric = next(metric for metric in report["metrics"] if metric["id"] == metric_id)
    columns = sorted(report["columns"], key=lambda column: column["at"])
    figure = _figure(7.2, 3.6)
    axes = figure.subplots()
    for number, (row, label) in enumerate(labels(report["rows"]).items()):
        cells = {cell["column"]: cell for cell in report["cells"] if cell["row"] == row and cell["metric"] == metric_id}
        shown = [(column["at"], cells[column["id"]]) for column in columns if column["id"] in cells]
        shown = [(at, cell) for at, cell in shown if cell["mean"] is not None]
        if not shown:
            continue
        unit, color = str(metric["unit"]), _color(number)
        axes.plot(
            [at for at, _ in shown], [scaled(cell["mean"], unit) for _, cell in shown], "-o", color=color,
            markersize=4, linewidth=1.6, label=plain(label, 44),
        )  # fmt: skip
        band = [(at, cell) for at, cell in shown if cell["ci_low"] is not None and cell["ci_high"] is not None]
        low, high = ([scaled(cell[end], unit) for _, cell in band] for end in ("ci_low", "ci_high"))
        axes.fill_between([at for at, _ in band], low, high, color=color, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([column["at"] for column in columns], [plain(column["label"], 20) for column in columns])
    axes.minorticks_off()
    drawn = [cell for cell in report["cells"] if cell["metric"] == metric_id]
    axes.set_ylim(_within_reach(axes.get_ylim(), drawn, str(metric["unit"])))
    axes.set_ylabel(heading(metric))
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _within_reach(limits: tuple[float, float], cells: Sequence[Mapping[str, Any]], unit: str) -> tuple[float, float]:
    """Limits of an axis of percent without what no value can reach: an interval of few seeds goes on beyond its end.

    Fractions are in [0, 1] but for differences of them, which seeds and published figures tell.
    """
    if unit != "fraction":
        return limits
    seeds = [value for cell in cells for value in cell["values"] if value is not None]
    published = [cell["published"] for cell in cells if _published(cell)]
    points = [scaled(value, unit) for value in (*seeds, *published)]
    low, high = min([0.0, *points]), max([100.0, *points])
    room = 0.03 * (high - low)  # for a marker at the end
    return max(limits[0], low - room), min(limits[1], high + room)


def _color(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _cell(axes: "Axes", y: int, cell: Mapping[str, Any], unit: str) -> None:
    seeds = [scaled(value, unit) for value in cell["values"] if value is not None]
    axes.plot(seeds, [y + 0.22] * len(seeds), "o", color=OURS, alpha=0.5, markersize=3, markeredgewidth=0)
    _interval(axes, y, cell["mean"], cell["ci_low"], cell["ci_high"], unit, OURS, "o")
    if _published(cell):
        axes.plot([scaled(cell["published"], unit)], [y], "d", color=THEIRS, fillstyle="none", markersize=7)


def _published(cell: Mapping[str, Any]) -> bool:
    """Whether the cell has a published figure to draw beside ours."""
    comparable = cell.get("verdict") not in ("not comparable", None) and cell.get("provenance") in MARKS
    return cell["mean"] is not None and comparable and isinstance(cell["published"], int | float)


def _interval(
    axes: "Axes",
    y: float,
    mean: float | None,
    low: float | None,
    high: float | None,
    unit: str,
    color: str,
    marker: str,
) -> None:
    """A point at row `y` and its interval; nothing without a mean, no line without both ends."""
    if mean is None:
        return
    if low is not None and high is not None:
        axes.plot([scaled(low, unit), scaled(high, unit)], [y, y], "-", color=color, linewidth=1.6)
    axes.plot([scaled(mean, unit)], [y], marker, color=color, markersize=6)


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows, first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches; no pyplot, so no global state."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure
