"""Claims and published figures of a paper's `expected.yaml` that stand in no report: their tables were not run yet."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.experiments.render import plain
from common.experiments.site.views import ReportView, claim_anchor


@dataclass(frozen=True)
class Waiting:
    """A claim with the table and the scales that would test it; `anchor` is its id on the page."""

    id: str
    anchor: str
    text: str
    where: str
    table: str
    scales: tuple[str, ...]


@dataclass(frozen=True)
class Untested:
    """What no report of a paper has: its claims, and how many figures of each table; with `error` it is not known."""

    claims: tuple[Waiting, ...] = ()
    figures: Counter[str] = field(default_factory=Counter)
    error: str = ""


def untested(path: Path, tables: Mapping[str, Sequence[str]], reports: Iterable[ReportView]) -> Untested:
    """Read from an `expected.yaml`, without its tests; a paper that has none claims nothing.

    Args:
        tables: table -> its scales.
    """
    if not path.is_file():
        return Untested()
    reports = list(reports)
    tested = {(report.table, claim.name) for report in reports for claim in report.claims}
    compared = {(report.table, figure.name) for report in reports for figure in report.compared}
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        claims = [each for each in raw.get("claims") or [] if (each["table"], each["id"]) not in tested]
        figures = [each["table"] for each in raw.get("figures") or [] if (each["table"], each["id"]) not in compared]
        waiting = tuple(_waiting(claim, tables.get(claim["table"], ())) for claim in claims)
        return Untested(waiting, Counter(plain(table, 60) for table in figures))
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        return Untested(error=plain(f"projects/{path.parent.name}/{path.name} cannot be understood: {error}", 300))


def _waiting(claim: Mapping[str, Any], scales: Sequence[str]) -> Waiting:
    """`scales`: those of its table, of which a claim may name some."""
    table, name = str(claim["table"]), str(claim["id"])
    return Waiting(
        id=plain(name, 30),
        anchor=claim_anchor(table, name),
        text=plain(claim["text"], 300),
        where=plain(claim["where"], 120),
        table=plain(table, 60),
        scales=tuple(scale for scale in scales if scale in claim.get("scales", scales)),
    )
