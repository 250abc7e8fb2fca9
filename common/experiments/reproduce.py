"""`repro table`: compute what is missing, aggregate, report, mirror."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.experiments.cluster import ClusterLauncher
from common.experiments.compose import Table
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT
from common.experiments.launch import Event, Launcher, LocalLauncher, follow, local_workers
from common.experiments.records import Cell, Record


@dataclass(frozen=True)
class Plan:
    """The cells of one command and where each stands.

    Attributes:
        records: every cell with the folder that answers it: its own, or with `keep_stale` one computed by older
            code. Cells with equal settings and seed share a folder.
        missing: folders to compute, each once, with the first cell that wants it.
        stale: cells whose configuration was computed by other code.
    """

    records: list[tuple[Cell, Record]]
    missing: dict[Record, Cell]
    stale: list[Cell]

    @property
    def done(self) -> int:
        return sum(record not in self.missing for _, record in self.records)


def plan_cells(table: Table, cells: Sequence[Cell], keep_stale: bool = False) -> Plan:
    """Look up every cell's state; nothing is written or started."""
    records: list[tuple[Cell, Record]] = []
    missing: dict[Record, Cell] = {}
    stale = []
    known = table.store.by_config()
    for cell in cells:
        record = table.store.record(cell.key)
        older = [] if record.done else table.store.stale(cell, known)
        if older:
            stale.append(cell)
        if older and keep_stale:
            record = older[0]
        elif not record.done:
            missing.setdefault(record, cell)
        records.append((cell, record))
    return Plan(records, missing, stale)


def freeze(
    table: Table, plan: Plan, name: str, head: Mapping[str, Any] | None = None, rows: Sequence[str] | None = None
) -> None:
    """Write the configuration of every cell to compute, and the manifest `name`.

    Args:
        head, rows: what the manifest says besides the cells, and what it calls each cell's row, where it is not
            the table's own.
    """
    provenance = {"code": table.code, **source_state(list(table.code))}
    for record, cell in plan.missing.items():
        record.freeze(cell, provenance)
    table.store.write_manifest(name, head or manifest_head(table), entries(plan, rows))


def manifest_head(table: Table) -> dict[str, Any]:
    """What a manifest says of its table, besides the cells."""
    parts = {name: getattr(table, name) for name in ("paper", "table", "scale", "title")}
    names = {name: list(getattr(table, name)) for name in ("overrides", "rows", "columns")}
    return {**parts, "kind": "table", **names}


def entries(plan: Plan, rows: Sequence[str] | None) -> list[dict[str, Any]]:
    """Manifest entries of the planned cells."""
    called = rows or [cell.row for cell, _ in plan.records]
    return [
        {"row": row, "column": cell.column, "seed": cell.seed, "key": record.folder.name}
        for row, (cell, record) in zip(called, plan.records, strict=True)
    ]


def _local(table: Table) -> Launcher:
    return LocalLauncher(local_workers(table), table.resources.cpus, table.data)


LAUNCHERS: dict[str, Callable[[Table], Launcher]] = {
    "local": _local,
    "slurm": ClusterLauncher,
    "submitit": ClusterLauncher,
}


def check_launcher(table: Table) -> None:
    """UserError when the table's config names a launcher that does not exist."""
    if table.launcher.name not in LAUNCHERS:
        raise UserError(f"unknown launcher '{table.launcher.name}'{nearest(table.launcher.name, LAUNCHERS)}")


def compute(table: Table, plan: Plan, on_event: Callable[[Event], None]) -> list[Event]:
    """Run the missing cells to their end; returns the failures."""
    failures = []
    for event in follow(LAUNCHERS[table.launcher.name](table), plan.missing):
        on_event(event)
        if event.state not in ("running", "done"):
            failures.append(event)
    return failures


def source_state(files: Sequence[str]) -> dict[str, Any]:
    """Commit of the checkout, and whether any of `files` or the configs differ from it; None outside git."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "configs", *files)
    except FileNotFoundError:  # no git here
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}
