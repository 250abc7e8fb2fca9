"""`repro diff A B`: two result sets, cell by cell, with the difference of code and configuration."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.evaluators.statistics import paired_difference
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT
from common.experiments.listing import reports_folder, runs_folder
from common.experiments.records import read_json
from common.experiments.render import format_value
from common.experiments.settings import flatten

Report = Mapping[str, Any]


def load(name: str) -> dict[str, Any]:
    """A result set by file, by table (`paper/table.scale`), or by table at a commit (`COMMIT:paper/table.scale`).

    Raises:
        UserError: there is no such report, or it is none of `repro table`.
    """
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no report file {name}")
        report = read_json(path)
    elif ":" in name:
        commit, _, table = name.partition(":")
        command = ["git", "show", f"{commit}:reports/{table}.json"]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if shown.returncode:
            reason = shown.stderr.strip().splitlines()[0].removeprefix("fatal: ")
            raise UserError(f"{name}: {reason}")
        try:
            report = json.loads(shown.stdout)
        except ValueError:
            raise UserError(f"{name}: the report at that commit is no JSON") from None
    else:
        return find(name)[1]
    return _checked(name, report)


def find(name: str) -> tuple[Path, dict[str, Any]]:
    """The file and the report of a table (`paper/table.scale`): the one in `reports/`, else the one in `runs/`.

    Raises:
        UserError: there is none.
    """
    paths = [
        reports_folder() / f"{name}.json",
        runs_folder() / name.split("/")[0] / "reports" / f"{Path(name).name}.json",
    ]
    found = [path for path in paths if path.is_file()]
    if not found:
        known = [f"{path.parent.name}/{path.stem}" for path in reports_folder().glob("*/*.json")]
        raise UserError(f"no report of '{name}'{nearest(name, known)}")
    return found[0], _checked(name, read_json(found[0]))


def _checked(name: str, report: Any) -> dict[str, Any]:
    if (
        not isinstance(report, dict)
        or not {"cells", "code", "conditions", "metrics", "versions", "commit"} <= report.keys()
    ):
        raise UserError(f"{name} is no report of `repro table`")
    return report


def cell_differences(a: Report, b: Report) -> list[dict[str, Any]]:
    """Cells of both, where they differ: means, and the paired difference B - A over common seeds."""
    left, right = ({_place(cell): cell for cell in report["cells"]} for report in (a, b))
    found = []
    for place in [*left, *(place for place in right if place not in left)]:
        before, after = left.get(place), right.get(place)
        old = dict(zip(before["seeds"], before["values"], strict=True)) if before else {}
        new = dict(zip(after["seeds"], after["values"], strict=True)) if after else {}
        if old == new:
            continue
        seeds = sorted(old.keys() & new.keys())
        change = paired_difference([new[seed] for seed in seeds], [old[seed] for seed in seeds]) if seeds else None
        found.append({"place": place, "before": before, "after": after, "change": change})
    return found


def mapping_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for every key whose value differs; absent values are shown as —."""
    keys = sorted(a.keys() | b.keys())
    return [f"{key}: {a.get(key, '—')} -> {b.get(key, '—')}" for key in keys if a.get(key) != b.get(key)]


def show(first: str, second: str) -> None:
    """Print how two reports differ: figures, code, versions, settings."""
    console = Console()
    a, b = load(first), load(second)
    console.print(Text(f"A  {first}  commit {a['commit']}\nB  {second}  commit {b['commit']}\n"))
    changed = cell_differences(a, b)
    same = len({_place(cell) for report in (a, b) for cell in report["cells"]}) - len(changed)
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    for heading in ("row", "column", "metric", "A", "B", "B - A"):
        grid.add_column(heading)
    units = {metric["id"]: metric["unit"] for report in (a, b) for metric in report["metrics"]}
    for entry in changed:
        unit = units[entry["place"][2]]
        sides = [
            format_value(side["mean"], side["ci_low"], side["ci_high"], unit) if side else "—"
            for side in (entry["before"], entry["after"])
        ]
        change = entry["change"]
        shown = format_value(change.mean, change.low, change.high, unit, signed=True) if change else "—"
        grid.add_row(*map(Text, (*entry["place"], *sides, shown)))
    if changed:
        console.print(grid)
    console.print(Text(f"{same} figures are the same, {len(changed)} differ\n"))
    code = mapping_differences(a["code"], b["code"])
    _print_list(console, "code", code)
    if code and a["commit"] and b["commit"]:
        files = " ".join(line.split(":")[0] for line in code)
        console.print(Text(f"  see: git diff {a['commit'][:12]} {b['commit'][:12]} -- {files}"), soft_wrap=True)
    _print_list(console, "versions", mapping_differences(a["versions"], b["versions"]))
    _print_list(console, "settings", _settings_differences(a, b))


def _settings_differences(a: Report, b: Report) -> list[str]:
    left, right = (
        {f"{entry['row']} · {entry['column']} · {key}": value
         for entry in report["conditions"] for key, value in flatten(entry["settings"]).items()}
        for report in (a, b)
    )  # fmt: skip
    return mapping_differences(left, right)


def _print_list(console: Console, title: str, lines: list[str]) -> None:
    console.print(Text(f"{title}: {'no difference' if not lines else ''}"))
    for line in lines:
        console.print(Text("  " + " ".join(line.split())))


def _place(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    return cell["row"], cell["column"], cell["metric"]
