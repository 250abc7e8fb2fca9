"""`repro table`: compute what is missing, aggregate, report, mirror."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.experiments.compose import Table
from common.experiments.fingerprint import ROOT
from common.experiments.launch import Event, build_launcher, follow
from common.experiments.records import Cell, Record


@dataclass(frozen=True)
class Plan:
    """The cells of one command and where each stands.

    Attributes:
        records: cell -> the folder that answers it: its own, or with `keep_stale` one computed by older code.
        missing: cells to compute.
        stale: cells whose configuration was computed by other code.
        states: cell -> state of its own folder.
    """

    records: dict[str, tuple[Cell, Record]]
    missing: list[Record]
    stale: list[Cell] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.records) - len(self.missing)


def plan_cells(table: Table, cells: Sequence[Cell], keep_stale: bool = False) -> Plan:
    """Look up every cell's state; nothing is written or started."""
    plan = Plan({}, [])
    known = set(table.store.all_keys())
    configs = {key.split("-")[0] for key in known}
    for cell in cells:
        record = table.store.record(cell.key)
        if cell.key in plan.records:
            continue
        state = record.state() if cell.key in known else "pending"
        plan.states[cell.key] = state
        if state != "done":
            older = table.store.stale(cell) if cell.config_hash in configs else []
            if older:
                plan.stale.append(cell)
            if older and keep_stale:
                record = older[0]
            else:
                plan.missing.append(record)
        plan.records[cell.key] = (cell, record)
    return plan


def freeze(table: Table, plan: Plan, name: str) -> None:
    """Write the configuration of every cell to compute, and the manifest `name` (the table's, or a sweep's)."""
    provenance = {"code": table.code, **source_state(list(table.code))}
    missing = set(plan.missing)
    for cell, record in plan.records.values():
        if record in missing:
            record.freeze(cell, provenance)
    table.store.write_manifest(name, manifest_head(table), entries(plan))


def manifest_head(table: Table) -> dict[str, Any]:
    """What a manifest says of its table, besides the cells."""
    head = {name: getattr(table, name) for name in ("paper", "table", "scale", "title")}
    return {**head, "overrides": list(table.overrides)}


def entries(plan: Plan) -> list[dict[str, Any]]:
    """Manifest entries of the planned cells."""
    return [
        {"row": cell.row, "column": cell.column, "seed": cell.seed, "key": record.folder.name}
        for cell, record in plan.records.values()
    ]


def compute(table: Table, plan: Plan, on_event: Callable[[Event], None]) -> list[Event]:
    """Run the missing cells to their end; returns the failures."""
    failures = []
    for event in follow(build_launcher(table), plan.missing):
        on_event(event)
        if event.state == "failed":
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
