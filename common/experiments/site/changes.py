"""What changed since the last release: present reports against `release.json`, which `repro release NAME` writes.

The base is a committed file, so the page is the same in every checkout, with or without history.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError
from common.experiments.render import Report, format_value, heading, labels, plain
from common.experiments.site.views import claim_anchor, claim_text, figure_anchor, figure_name
from common.files import write_atomically

RELEASE = "release.json"
SHOWN = 40  # changed figures listed per table


@dataclass(frozen=True)
class Moved:
    """A claim with its statuses, or a published figure with its verdicts, then and now; `none` where there is none.

    Attributes:
        text: what the claim says or the figure is of; empty where the report has it no more.
        place: its id on the paper's page, empty likewise.
    """

    id: str
    text: str
    place: str
    was: str
    now: str


@dataclass(frozen=True)
class Change:
    """A table that differs from the release: `new`, `changed` or `removed`; what became of claims, verdicts, values."""

    slug: str
    stem: str
    kind: str
    claims: list[Moved]
    figures: list[tuple[str, str, str]]
    more: int = 0
    same: int = 0
    commits: str = ""


def summary(report: Report) -> dict[str, Any]:
    """As much of a report as later ones are compared with: commit, status of claims, verdicts, means and n."""
    means: dict[str, dict[str, dict[str, list[float]]]] = {}
    for cell in report["cells"]:
        if cell["mean"] is not None:
            row = means.setdefault(cell["row"], {}).setdefault(cell["column"], {})
            row[cell["metric"]] = [float(f"{cell['mean']:.6g}"), cell["n_seeds"]]
    return {
        "commit": report["commit"],
        "claims": {claim["id"]: claim["status"] for claim in report["claims"]}
        | {figure["id"]: figure["verdict"] for figure in report["figures"]},
        "means": means,
    }


def record(reports: Path, name: str) -> Path:
    """Write `release.json` from the reports as they stand."""
    tables = {}
    for path in sorted(reports.glob("*/*.*.json")):
        try:
            tables[f"{path.parent.name}/{path.stem}"] = summary(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is no report; move it away before a release") from None
    path = reports / RELEASE
    write_atomically(path, json.dumps({"name": name, "tables": tables}, separators=(",", ":"), sort_keys=True) + "\n")
    return path


def load(reports: Path) -> dict[str, Any]:
    """The recorded release; without one `name` is empty and there are no tables.

    Raises:
        UserError: the file is there and is none.
    """
    path = reports / RELEASE
    if not path.exists():
        return {"name": "", "tables": {}}
    try:
        release: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"name": str(release["name"]), "tables": dict(release["tables"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no release; `repro release NAME --force` writes it again") from error


def changes(release: Mapping[str, Any], reports: Mapping[str, Report]) -> list[Change]:
    """Tables that differ from those of the release, by name (`paper/table.scale`)."""
    before, found = release["tables"], []
    for name in sorted(before.keys() | reports.keys()):
        slug, _, stem = name.partition("/")
        if name not in reports:
            found.append(Change(slug, stem, "removed", [], []))
        elif name not in before:
            known = _known(stem, reports[name])
            claims = [_moved(each["id"], known, "none", each["status"]) for each in reports[name]["claims"]]
            found.append(Change(slug, stem, "new", claims, [], same=len(reports[name]["cells"])))
        else:
            change = _change(slug, stem, before[name], reports[name])
            found += [change] if change.claims or change.figures else []
    return found


def _change(slug: str, stem: str, old: Mapping[str, Any], report: Report) -> Change:
    new = summary(report)
    known = _known(stem, report)
    claims = [
        _moved(name, known, old["claims"].get(name, "none"), new["claims"].get(name, "none"))
        for name in sorted(old["claims"].keys() | new["claims"].keys())
        if old["claims"].get(name) != new["claims"].get(name)
    ]
    rows, columns = labels(report["rows"]), labels(report["columns"])
    metrics = {metric["id"]: metric for metric in report["metrics"]}
    places = {
        (row, column, metric): None
        for side in (new, old)
        for row, cells in side["means"].items()
        for column, means in cells.items()
        for metric in means
    }
    figures, same = [], 0
    for row, column, metric in places:
        was, now = (side["means"].get(row, {}).get(column, {}).get(metric) for side in (old, new))
        if was == now:
            same += now is not None
            continue
        shown_column = [columns.get(column, plain(column, 30))] if len({*columns, column}) > 1 else []
        measure = heading(metrics[metric]) if metric in metrics else plain(metric, 30)
        name = " · ".join([rows.get(row, plain(row, 30)), *shown_column, measure])
        unit = str(metrics[metric]["unit"]) if metric in metrics else "count"
        texts = [_text(side, unit) for side in (was, now)]
        figures.append((name, *texts))
    commits = " → ".join(plain(side["commit"] or "none")[:10] for side in (old, new))
    shown = figures[:SHOWN]
    return Change(slug, stem, "changed", claims, shown, len(figures) - len(shown), same, commits)  # type: ignore[arg-type]


def _known(stem: str, report: Report) -> dict[str, tuple[str, str]]:
    """Id of a claim or published figure -> its text and its place on the paper's page."""
    figures = {each["id"]: (figure_name(each, report), figure_anchor(stem, each["id"])) for each in report["figures"]}
    return figures | {each["id"]: (claim_text(each), claim_anchor(stem, each["id"])) for each in report["claims"]}


def _moved(name: str, known: Mapping[str, tuple[str, str]], was: str, now: str) -> Moved:
    return Moved(plain(name, 30), *known.get(name, ("", "")), plain(was, 20), plain(now, 20))


def _text(figure: list[float] | None, unit: str) -> str:
    return "—" if figure is None else f"{format_value(figure[0], None, None, unit)} (n={figure[1]:g})"
