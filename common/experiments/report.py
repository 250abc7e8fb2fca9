"""The report of a table: one dict, built from result files and `expected.yaml` alone, and written as JSON,
Markdown and plots. Everything shown anywhere (terminal, site, docs) is rendered from that dict.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.evaluators import judge
from common.evaluators.statistics import interval
from common.experiments import catalogue, plots, render
from common.experiments.claims import Scores, evaluate
from common.experiments.compose import Table, compose_table
from common.experiments.errors import UserError, nearest
from common.experiments.evidence import evidence
from common.experiments.expected import Expected, Figure, TableNames, load_expected
from common.experiments.fingerprint import ROOT, digest
from common.experiments.records import Cell, Record, now, read_json
from common.experiments.report_curves import curves
from common.experiments.verdicts import compare
from common.files import write_atomically

VOLATILE = ("generated_at",)  # differs between two renderings of the same results
PARTS = (  # without which a file is no report
    "paper", "table", "scale", "title", "commit", "dirty", "generated_at", "overrides", "seeds", "rows", "columns",
    "metrics", "cells", "figures", "claims", "failures", "conditions", "code", "cost", "versions",
)  # fmt: skip
BEHIND = ".behind"  # lies among the reports from before one changes until the site is built, also after an interrupt


def expected_of(table: Table) -> Expected:
    """What the paper published about this table, without claims that its scale cannot test."""
    metrics = {name: metric.better for name, metric in table.metrics.items()}
    names = TableNames(list(table.rows), list(table.columns), metrics)
    known = dict.fromkeys(catalogue.tables(table.paper), names)  # entries of other tables are not looked at
    return load_expected(ROOT / "projects" / table.paper / "expected.yaml", known, table.table, table.scale)


def build(table: Table, records: Iterable[tuple[Cell, Record]]) -> dict[str, Any]:
    """Aggregate the finished cells into the report.

    Args:
        records: every cell of the table at the reported seeds with the folder that answers it.

    Raises:
        UserError: a result file is corrupted, lacks in every cell a declared metric that the paper does not report
            either, or `expected.yaml` is wrong.
    """
    rows, columns = list(table.rows), list(table.columns)  # the order of the table, whatever was launched first
    cells = sorted(records, key=lambda one: (rows.index(one[0].row), columns.index(one[0].column), one[0].seed))
    expected = expected_of(table)
    results = [(cell, record.result()) for cell, record in cells if record.done]
    scores = _scores(table, results, {figure.metric for figure in expected.figures})
    costs = {result["key"]: result for _, result in results}  # rows may share a cell
    seeds = sorted({cell.seed for cell, _ in cells})
    newest = max((result for _, result in results), key=lambda result: result["ended_at"], default={})
    code = table.store.record(newest["key"]).config["code"] if newest else table.code
    return {
        "paper": table.paper,
        "table": table.table,
        "scale": table.scale,
        "name": table.name,
        "title": table.title,
        "commit": newest.get("commit"),
        "dirty": any(result["dirty"] for _, result in results),
        "generated_at": now(),
        "overrides": list(table.overrides),
        "seeds": seeds,
        **_axes(table),
        **_judged(table, scores, expected),
        "failures": [
            {"row": cell.row, "column": cell.column, "seed": cell.seed, "error": record.status().get("error", "")}
            for cell, record in cells
            if record.state() == "failed"
        ],
        **({"judges": judges} if (judges := _judges(cells)) else {}),
        "conditions": _conditions(cell for cell, _ in cells),
        "evidence": evidence(table, cells),
        **({"curves": logged} if (logged := curves(cells)) else {}),
        "code": code,
        "stale": sum(record.folder.name != cell.key for cell, record in cells if record.done),
        "cost": {
            "wall_seconds": round(sum(result["wall_seconds"] for result in costs.values()), 1),
            "cpu_seconds": round(sum(result["cpu_seconds"] for result in costs.values()), 1),
            "peak_mb": max((result["peak_mb"] for _, result in results), default=0),
            "cpu": newest.get("hardware", {}).get("cpu", ""),
            "cells": len(results),
        },
        "versions": newest.get("versions", {}),
    }


def renew(path: Path) -> None:
    """Judge the values of a report that stands by the present `expected.yaml`, and render it.

    Its `generated_at` stays: it dates the values, not what they were compared with.

    Raises:
        UserError: it is no report; or, after it was rendered, why it was not judged again.
    """
    report, refused = read_report(path), None
    try:
        report |= _judged_again(report)
    except UserError as error:
        refused = error
    if path.read_text(encoding="utf-8") != _text(report):
        write_atomically(path.parent.parent / BEHIND, "")  # first: an interrupt leaves the pages behind
        write_atomically(path, _text(report))
    render_files(report, path.parent)
    if refused:
        raise refused


def _judged_again(report: Mapping[str, Any]) -> dict[str, Any]:
    """As `_judged`, of the values of a report, with the table's labels.

    Raises:
        UserError: its table is gone or has changed, or `expected.yaml` is wrong.
    """
    table = compose_table(f"{report['paper']}/{report['table']}", report["scale"], report["overrides"])
    axes = _plain(_axes(table))
    if differ := [name for name in axes if _meaning(axes[name]) != _meaning(report[name])]:
        raise UserError(f"{', '.join(differ)} differ from those of the table now")
    scores = {
        (cell["row"], cell["column"], cell["metric"]): dict(zip(cell["seeds"], cell["values"], strict=True))
        for cell in report["cells"]
        if cell["seeds"]
    }
    return {**axes, **_plain(_judged(table, scores, expected_of(table)))}


def _meaning(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries of an axis without what is only shown."""
    return [{key: value for key, value in entry.items() if key not in ("label", "panel")} for entry in entries]


def _axes(table: Table) -> dict[str, Any]:
    """The entries of a report that name what its values are of."""
    return {
        "rows": [{"id": name, "label": row.label} for name, row in table.rows.items()],
        "columns": [
            {"id": name, "label": column.label} | ({} if column.at is None else {"at": column.at})
            for name, column in table.columns.items()
        ],
        "metrics": [
            {"id": name} | {key: value for key, value in asdict(metric).items() if key != "panel" or value}
            for name, metric in table.metrics.items()
        ],
    }


def _judged(table: Table, scores: Scores, expected: Expected) -> dict[str, Any]:
    """The entries of a report that compare its values with what was published."""
    return {
        "cells": _cells(table, scores, expected.figures),
        "figures": [_figure(figure, scores, table.scale) for figure in expected.figures],
        "claims": [
            {
                "id": claim.id,
                "text": claim.text,
                "where": claim.where,
                "provenance": claim.provenance,
                "published": claim.published,
                "unit": table.metrics[outcome.metric].unit,
                **asdict(outcome),
            }
            for claim in expected.claims
            for outcome in [evaluate(claim.test, scores)]
        ],
    }


def _scores(
    table: Table, results: Sequence[tuple[Cell, Mapping[str, Any]]], published: Set[str]
) -> dict[tuple[str, str, str], dict[int, float]]:
    """(row, column, metric) -> seed -> value, for the metrics of the table; those of `published` may be in no cell."""
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for cell, result in results:
        for metric in table.metrics:
            if metric in result["metrics"]:
                scores.setdefault((cell.row, cell.column, metric), {})[cell.seed] = result["metrics"][metric]
    reported = {metric for _, _, metric in scores}
    unknown = [metric for metric in table.metrics if metric not in reported | published]
    if unknown and {cell.row for cell, _ in results} == set(table.rows):
        known = {name for _, result in results for name in result["metrics"]}
        raise UserError(f"{table.paper}/{table.table}: no cell reports '{unknown[0]}'{nearest(unknown[0], known)}")
    return scores


def _cells(table: Table, scores: Scores, figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Every shown figure: ours with its interval, the published value if there is one, and the verdict."""
    published = {(figure.row, figure.column, figure.metric): figure for figure in figures if figure.over is None}
    shown = []
    for row in table.rows:
        for column in table.columns:
            for metric in table.metrics:
                values = scores.get((row, column, metric), {})
                skewed = table.metrics[metric].interval == "bootstrap"
                estimate = interval(list(values.values()), skewed=skewed) if values else None
                figure = published.get((row, column, metric))
                verdict = "not comparable" if values else "not run"
                shown.append(
                    {
                        "row": row,
                        "column": column,
                        "metric": metric,
                        "mean": estimate.mean if estimate else None,
                        "ci_low": estimate.low if estimate else None,
                        "ci_high": estimate.high if estimate else None,
                        "n_seeds": len(values),
                        "seeds": list(values),
                        "values": list(values.values()),
                        "published": figure.value if figure else None,
                        "provenance": figure.provenance if figure else None,
                        "where": figure.where if figure else None,
                        "verdict": compare(figure, scores, table.scale).verdict if figure else verdict,
                    }
                )
    return shown


def _figure(figure: Figure, scores: Scores, scale: str) -> dict[str, Any]:
    """A published figure beside ours."""
    kept = ("id", "row", "over", "column", "metric", "where", "provenance")
    about = {name: getattr(figure, name) for name in kept}
    return {**about, "published": figure.value, **asdict(compare(figure, scores, scale))}


def _judges(cells: Sequence[tuple[Cell, Record]]) -> list[dict[str, Any]]:
    """Each judge behind a metric with its agreement with planted answers; rows that share these count them once."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for cell, record in cells:
        for path in sorted((record.folder / judge.FOLDER).glob("*.json")) if record.done else []:
            saved = read_json(path)
            planted = found.setdefault((path.stem, json.dumps(saved["judge"])), {})
            planted[json.dumps([cell.column, cell.seed, saved["agreement"]])] = saved["agreement"]
    return [
        {"metric": metric, **json.loads(about), "agreement": judge.pooled(list(planted.values()))}
        for (metric, about), planted in found.items()
    ]


def _conditions(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Settings of each row on each column, once."""
    found = {(cell.row, cell.column): cell.settings for cell in cells}
    return [
        {"row": row, "column": column, "config_hash": digest(settings), "settings": settings}
        for (row, column), settings in found.items()
    ]


def write(report: Mapping[str, Any], table: Table) -> tuple[Path, bool]:
    """Write JSON, Markdown and plots; an unchanged report is left alone.

    Reports of the table as it is go to `reports/<paper>/`. A variant (overrides), or a run of fewer cells than
    the report that stands there, goes to `runs/<paper>/reports/`; a complete run of newer code replaces it.

    Returns:
        The Markdown file, and whether the site is behind: a report has changed since it was built, or there is none.
    """
    folder = table.reports / table.paper
    standing = _existing(folder / f"{table.name}.json")
    if table.overrides or (standing is not None and _keeps(standing, report, table)):
        folder = table.runs / table.paper / "reports"
        standing = _existing(folder / f"{table.name}.json")
    shown = folder.parent == table.reports
    if standing is not None and _content(standing) == _content(_plain(report)):
        report = standing  # same results: keep the time they were first reported
    elif shown:
        write_atomically(table.reports / BEHIND, "")
    write_if_changed(folder / f"{table.name}.json", _text(report))
    markdown = render_files(report, folder)
    built = (table.reports / "index.html").exists() and not (table.reports / BEHIND).exists()
    return markdown, shown and not built


def _text(report: Mapping[str, Any]) -> str:
    """Its JSON, with a line for each entry and for each list of numbers; texts hold no line breaks: none is changed."""
    text = json.dumps(report, indent=1)
    return re.sub(r"\[\n([-+.\deE,\s]+)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def render_files(report: Mapping[str, Any], folder: Path) -> Path:
    """Write what is rendered from a report alone, Markdown and plots, beside its JSON; returns the Markdown file."""
    path = folder / f"{render.stem(report)}.md"
    write_if_changed(path, render.markdown(report))
    plots.draw(report, folder)
    return path


def _keeps(standing: Mapping[str, Any], report: Mapping[str, Any], table: Table) -> bool:
    """Whether the report that stands holds more than the new one, and is not merely of older code or settings."""
    fuller = standing["cost"]["cells"] > report["cost"]["cells"]
    complete = report["cost"]["cells"] >= len(table.rows) * len(table.columns) * table.seeds
    same = all(standing[part] == report[part] for part in ("code", "conditions"))
    return fuller and (same or not complete)


def _existing(path: Path) -> dict[str, Any] | None:
    return read_report(path) if path.exists() else None


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _content(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in VOLATILE}


def read_report(path: Path) -> dict[str, Any]:
    """A report, checked for what its readers rely on.

    Raises:
        UserError: it is no report of `repro table`.
    """
    report = read_json(path)
    if wrong := _wrong(report):
        raise UserError(f"{path} is no report of `repro table`: {wrong}; move it away, the next one writes it again")
    return dict(report)


def _wrong(report: Any) -> str:
    """What a report lacks; empty when nothing."""
    if not isinstance(report, dict):
        return "it is no mapping"
    if missing := [part for part in PARTS if part not in report]:
        return f"it has no '{missing[0]}'"
    try:
        for cell in report["cells"]:
            if missing := {"row", "column", "metric", "seeds", "values"} - cell.keys():
                return f"a cell has no {', '.join(sorted(missing))}"
        uneven = any(len(cell["seeds"]) != len(cell["values"]) for cell in report["cells"])
    except (AttributeError, TypeError):
        return "its cells are none"
    return "a cell has other numbers of seeds and values" if uneven else ""


def write_if_changed(path: Path, text: str) -> None:
    """Leave a file alone when it already holds `text`, so that a read-only or clean checkout stays as it is."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
