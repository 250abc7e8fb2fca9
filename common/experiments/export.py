"""`repro export`: a reported table in the formats of others.

csv, latex and markdown hold all rows. The two log formats hold one row (a method), as their own files do; where
`make harnesses` put those tools, tests let them read one.

lm-eval: `results_*.json` of lm-evaluation-harness 0.4: a task per column, `<metric>,none` with its standard error over
    seeds, `git_hash` of this repository. What the harness knows of its own tasks (their versions, examples in the
    prompt, numbers of documents, kind of output) is left empty or out.
inspect: an `EvalLog` of Inspect (version 2). Samples are the few items that the report kept, of its first seed, with
    all their fields as metadata; the log's metrics are the report's means over seeds.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError, nearest
from common.experiments.render import (
    LEGEND,
    NONE,
    Grid,
    Report,
    format_value,
    heading,
    labels,
    markdown_table,
    paper_text,
    plain,
)
from common.experiments.settings import flatten

INPUTS = ("input", "question", "query", "prompt", "task")  # fields of an item, the first that is a text
TARGETS = ("target", "golds", "gold", "answers", "expected")
OUTPUTS = ("output", "prediction", "completion", "answer", "answered")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$",
    "∞": r"$\infty$", "—": "---", "✓": r"$\surd$", "†": r"\dag{}", "‡": r"\ddag{}",
}  # fmt: skip
PAPER = "paper"  # heads the published figures
NO_CELL = {"mean": None, "ci_low": None, "ci_high": None}


def to_csv(report: Report, metrics: Sequence[str] | None) -> str:
    """Long form, a line per seed: paper, table, scale, row, column, metric, unit, seed, value (unrounded)."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["paper", "table", "scale", "row", "column", "metric", "unit", "seed", "value"])
    units = {metric["id"]: metric["unit"] for metric in report["metrics"]}
    for cell in report["cells"]:
        if metrics is None or cell["metric"] in metrics:
            for seed, value in zip(cell["seeds"], cell["values"], strict=True):
                place = [cell["row"], cell["column"], cell["metric"], units[cell["metric"]]]
                writer.writerow([report["paper"], report["table"], report["scale"], *place, seed, value])
    return file.getvalue()


def to_markdown(report: Report, metrics: Sequence[str] | None) -> str:
    """Rows against columns, mean with its interval: of the metrics one table, or a table for each that there is."""
    grids = _grids(report, metrics)
    return "\n\n".join(filter(None, [*map(markdown_table, grids), _legend(report, grids)])) + "\n"


def to_latex(report: Report, metrics: Sequence[str] | None) -> str:
    """As `to_markdown`, each a `tabular` for the booktabs package."""
    name = f"% {plain(report['paper'])}/{plain(report['table'])} at {plain(report['scale'])} scale\n"
    grids = _grids(report, metrics)
    legend = _legend(report, grids)
    return name + f"% {_latex(legend)}\n" * bool(legend) + "\n".join(map(_tabular, grids))


def _legend(report: Report, grids: Sequence[Grid]) -> str:
    """What the paper's figures are worth; empty without any."""
    if not any(PAPER in grid.headers for grid in grids):
        return ""
    scale = plain(report["scale"])
    apart = f"; at {scale} scale only directions, orders and ratios compare with ours" if scale != "paper" else ""
    return f"{PAPER}: {LEGEND}{apart}"


def _tabular(grid: Grid) -> str:
    head, *body = (f"{' & '.join(map(_latex, line))} \\\\\n" for line in [grid.headers, *grid.rows])
    begin = f"\\begin{{tabular}}{{l{'r' * len(grid.numeric)}}}\n\\toprule\n"
    return f"{begin}{head}\\midrule\n{''.join(body)}\\bottomrule\n\\end{{tabular}}\n"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def measured(report: Report) -> dict[str, Mapping[str, Any]]:
    """The metrics that have a value, by id."""
    found = {cell["metric"] for cell in report["cells"] if cell["mean"] is not None}
    return {metric["id"]: metric for metric in report["metrics"] if metric["id"] in found}


def _grids(report: Report, metrics: Sequence[str] | None) -> list[Grid]:
    known = measured(report)
    wanted = [[name] for name in known] if metrics is None else [metrics]
    return [_grid(report, [known[name] for name in names]) for names in wanted]


def _grid(report: Report, metrics: Sequence[Mapping[str, Any]]) -> Grid:
    """Headers and lines of the columns that have a value of these metrics, the paper's figure beside ours where there
    is one; a single metric stands above the rows, not at each column."""
    cells = {(cell["row"], cell["column"], cell["metric"]): cell for cell in report["cells"]}
    rows, columns = labels(report["rows"]), labels(report["columns"])
    several, single = len(columns) > 1, len(metrics) == 1

    def ours(cell: Mapping[str, Any], unit: str) -> str:
        return format_value(cell["mean"], cell["ci_low"], cell["ci_high"], unit)

    headers, texts = [heading(metrics[0]) if several and single else ""], [list(rows.values())]
    for column in columns:
        for metric in metrics:
            found = [cells.get((row, column, metric["id"]), NO_CELL) for row in rows]
            if all(cell["mean"] is None for cell in found):
                continue
            names = [columns[column]] * several + [heading(metric)] * (not several or not single)
            headers.append(": ".join(names))
            texts.append([ours(cell, metric["unit"]) for cell in found])
            published = [paper_text(cell, metric["unit"]) for cell in found]
            if set(published) != {NONE}:
                headers.append(PAPER)
                texts.append(published)
    return Grid(headers, list(zip(*texts, strict=True)), numeric=frozenset(range(1, len(headers))))


def to_lm_eval(report: Report, row: str) -> str:
    """One model's results file: `results`, `configs`, `higher_is_better` by task, `config`, and how long it took."""
    higher = {metric["id"]: metric["better"] == "higher" for metric in report["metrics"]}
    label, columns = labels(report["rows"])[row], labels(report["columns"])
    settings = {entry["column"]: entry["settings"] for entry in report["conditions"] if entry["row"] == row}
    tasks = {column: f"{report['paper']}_{report['table']}_{column}" for column in columns}
    results: dict[str, dict[str, Any]] = {}
    for cell in report["cells"]:
        if cell["row"] == row and cell["mean"] is not None:
            found = results.setdefault(tasks[cell["column"]], {"alias": columns[cell["column"]]})
            found[f"{cell['metric']},none"] = cell["mean"]
            found[f"{cell['metric']}_stderr,none"] = _standard_error(cell["values"])
    shown = {column: task for column, task in tasks.items() if task in results}
    return _json(
        {
            "results": results,
            "group_subtasks": {task: [] for task in shown.values()},
            "configs": {
                task: {
                    "task": task,
                    "task_alias": columns[column],
                    "metadata": {"column": column, "seeds": report["seeds"], "settings": settings.get(column, {})},
                    "metric_list": [
                        {"metric": name, "aggregation": "mean", "higher_is_better": higher[name]}
                        for name in higher
                        if f"{name},none" in results[task]
                    ],
                }
                for column, task in shown.items()
            },
            **{name: {} for name in ("versions", "n-shot", "n-samples")},  # which readers look into
            "higher_is_better": {
                task: {name: up for name, up in higher.items() if f"{name},none" in results[task]}
                for task in shown.values()
            },
            "config": {"model": row, "model_args": ""},
            "git_hash": report["commit"],
            "date": datetime.fromisoformat(report["generated_at"]).timestamp(),
            "model_name": label,
            "model_name_sanitized": re.sub(r'["<>:/|\\?*\[\]]+', "__", label),
            "total_evaluation_time_seconds": str(report["cost"]["wall_seconds"]),
        }
    )


def _standard_error(values: list[float]) -> float | str:
    """Of the mean over seeds; the harness writes N/A where there is none."""
    if len(values) < 2:
        return "N/A"
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def to_inspect(report: Report, row: str) -> str:
    """An `EvalLog` with a scorer per column, whose metrics are the report's means over seeds.

    Raises:
        UserError: the report kept no items of the row.
    """
    kept = [entry for entry in report.get("evidence", []) if entry["row"] == row]
    samples = [sample for entry in kept for sample in _samples(entry)]
    if not samples:
        raise UserError(
            f"the report kept no items of '{row}', and a log of Inspect is made of them; `--format lm-eval` holds its "
            "figures"
        )
    name, created = f"{report['paper']}/{report['table']}", _time(report["generated_at"])
    cells = [cell for cell in report["cells"] if cell["row"] == row and cell["mean"] is not None]
    scores = []
    for column in labels(report["columns"]):
        own = [cell for cell in cells if cell["column"] == column]
        metrics = {cell["metric"]: {"name": cell["metric"], "value": cell["mean"], "params": {}} for cell in own}
        scores += [{"name": column, "scorer": column, "params": {}, "metrics": metrics}] if own else []
    task = f"{name}.{report['scale']}"
    settings = {entry["column"]: entry["settings"] for entry in report["conditions"] if entry["row"] == row}
    return _json(
        {
            "version": 2,
            "status": "success",
            "eval": {
                "eval_id": f"{task}/{row}",
                "run_id": f"{task}/{row}",
                "created": created,
                "task": task,
                "task_id": f"{task}/{row}",
                "task_version": 0,
                "task_args": {column: flatten(settings[column]) for column in settings},
                "dataset": {"name": name, "samples": len(samples), "sample_ids": [each["id"] for each in samples]},
                "model": row,
                "model_args": {},
                "config": {},
                "revision": {"type": "git", "origin": "", "commit": report["commit"] or ""},
                "packages": report["versions"],
                "metadata": {
                    "scale": report["scale"],
                    "seeds": report["seeds"],
                    "samples": "the first and the last of each kind",
                },
            },
            "plan": {"name": row, "steps": [], "config": {}},
            "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": scores},
            "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
            "samples": samples,
        }
    )


def _samples(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Kept items as samples of epoch 1; fields that Inspect has no place for stand in the metadata."""
    samples = []
    for name, items in entry["items"].items():
        for number, item in enumerate(items):
            fields = item if isinstance(item, dict) else {"input": item}
            answer = next((fields[name] for name in OUTPUTS if name in fields), "")
            answer = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            choice = {"message": {"role": "assistant", "content": answer}, "stop_reason": "stop"}
            scores = fields.get("scores")
            numbers = {key: {"value": value} for key, value in scores.items()} if isinstance(scores, dict) else {}
            samples.append(
                {
                    "id": f"{entry['column']}/{name}/{number}",
                    "epoch": 1,
                    "input": next((fields[name] for name in INPUTS if isinstance(fields.get(name), str)), ""),
                    "target": _texts(next((fields[name] for name in TARGETS if name in fields), "")),
                    "messages": [],
                    "output": {"model": entry["row"], "choices": [choice]},
                    "scores": numbers,
                    "metadata": {**fields, "seed": entry["seed"]},
                }
            )
    return samples


def _texts(value: Any) -> str | list[str]:
    """A text, or all texts of nested lists, as a target of Inspect is."""
    if isinstance(value, list):
        found = [_texts(each) for each in value]
        return [text for part in found for text in (part if isinstance(part, list) else [part])]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(text: str) -> str:
    """ISO 8601 with an offset, as Inspect writes it."""
    return text.replace("Z", "+00:00")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


TABLES: dict[str, Callable[[Report, Sequence[str] | None], str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
LOGS: dict[str, Callable[[Report, str], str]] = {"lm-eval": to_lm_eval, "inspect": to_inspect}
FORMATS = (*TABLES, *LOGS)


def export(report: Report, form: str, row: str | None = None, metrics: Sequence[str] | None = None) -> str:
    """The report in one of `FORMATS`.

    Args:
        row: which row, for the formats that hold one; may be left out where the table has one.
        metrics: which of them, together in one table, for the formats that hold all rows; None for all, each in a
            table of its own.

    Raises:
        UserError: the row or a metric is missing, unknown or not wanted, or the format needs what the report lacks.
    """
    rows = [entry["id"] for entry in report["rows"]]
    if form in TABLES:
        if row is not None:
            raise UserError(f"--row is for {' and '.join(LOGS)}; {form} holds all rows")
        for name in metrics or ():
            if name not in measured(report):
                raise UserError(f"unknown metric '{name}'{nearest(name, measured(report))}")
        return TABLES[form](report, metrics)
    if metrics is not None:
        raise UserError(f"--metrics is for {', '.join(TABLES)}; {form} holds all metrics")
    row = rows[0] if row is None and len(rows) == 1 else row
    if row is None:
        raise UserError(f"a file of {form} holds one row: add --row, one of {', '.join(rows)}")
    if row not in rows:
        raise UserError(f"unknown row '{row}'{nearest(row, rows)}")
    return LOGS[form](report, row)


def origin(path: Path, report: Report) -> str:
    """Which report an export is of, in one line: file, seeds, commit, and whether the code had changes beside it.

    Args:
        path: of its JSON; shown from the working directory.
        report: as `read_report` returns it; nothing is read and no error raised.
    """
    seeds = report["seeds"]
    what = f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    commit = f"commit {report['commit'][:12]}" if report["commit"] else "of no commit"
    return f"exported: {os.path.relpath(path)}, {what}, {commit}{' with changes' * bool(report.get('dirty'))}"
