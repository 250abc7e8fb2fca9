"""Bodies of `repro table`, `report` and `sync`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from common.experiments import render
from common.experiments.cluster import scripts, submit
from common.experiments.compose import Table, compose_table
from common.experiments.errors import UserError
from common.experiments.jobs import Array
from common.experiments.launch import Event
from common.experiments.listing import reports_folder, runs_folder
from common.experiments.planning import expected, recorded_seconds
from common.experiments.progress import duration, progress
from common.experiments.queues import require_slurm
from common.experiments.records import Record, manifests, read_manifest
from common.experiments.report import BEHIND, build, expected_of, renew, write
from common.experiments.reproduce import Plan, check_launcher, compute, freeze, plan_cells
from common.experiments.tracking import default_uri, pending, sync


@dataclass(frozen=True)
class Following:
    """What a command does after it has handed cells to a cluster: return at once, or `wait` for the end; `dry_run`:
    print what it would hand over and start nothing."""

    wait: bool = False
    dry_run: bool = False

    def detached(self, table: Table) -> bool:
        return table.launcher.name != "local" and not self.wait


def run_table(
    name: str,
    scale: str,
    overrides: Sequence[str],
    seeds: int | None,
    rows: Sequence[str] | None,
    keep_stale: bool,
    following: Following,
) -> int:
    """Compute what is missing, print, report, mirror; the exit code is 1 when a cell failed."""
    console = Console()
    table = compose_table(name, scale, overrides)
    table.check_rows(rows or [])
    check_needs(table, following)
    chosen = range(seeds or table.seeds)
    plan = plan_cells(table, table.cells(rows, chosen), keep_stale)
    if following.dry_run:
        print(scripts(table, plan.missing))
        return 0
    freeze(table, plan, table.name)
    announce(console, table, plan)
    if plan.missing and following.detached(table):
        return submit_cells(console, table, plan)
    try:
        failed = run_cells(console, table, plan)
    except KeyboardInterrupt:
        done = sum(record.done for _, record in plan.records)
        jobs = "" if table.launcher.name == "local" else "; its jobs go on"
        raise UserError(
            f"interrupted with {done} of {len(plan.records)} cells done{jobs}; the same command goes on from there"
        ) from None
    records = plan_cells(table, table.cells(None, chosen), keep_stale).records
    if any(record.done for _, record in records):
        report = build(table, records)
        render.terminal(report, console)
        path, behind = write(report, table)
        if behind:
            _site(table.reports)
        console.print(Text(f"report: {os.path.relpath(path)}"), soft_wrap=True)
    else:
        cause, label = failed[0], plan.missing[failed[0].record].label
        what = f"no report: {len(failed)} of {len(plan.missing)} cells failed, the first of them {label}: {cause.error}"
        console.print(Text(f"{what}; see repro logs {cause.record.folder.name}", style="red"), soft_wrap=True)
    mirror(console, table, table.name)
    return 1 if failed else 0


def run_cells(console: Console, table: Table, plan: Plan) -> list[Event]:
    """Compute the missing cells under a progress bar; returns how those ended that failed."""
    if not plan.missing:
        return []
    labels: dict[Record, str] = {}
    for cell, record in plan.records:
        labels.setdefault(record, cell.label)
    cost = expected(table, plan, recorded_seconds(table))
    seconds = cost.elapsed if table.launcher.name == "local" else cost.total
    with progress(console, f"{table.paper}/{table.table}", {r: labels[r] for r in plan.missing}, seconds) as listen:
        return compute(table, plan, listen)


def submit_cells(console: Console, table: Table, plan: Plan) -> int:
    """Hand the missing cells to the cluster and return; the exit code is 1 when nothing can be done for some."""
    outcome = submit(table, plan.missing)
    for array in outcome.arrays:
        what = f"submitted {len(array.cells)} cells, {_needs(array)}: {array.queue} job {', '.join(array.ids)}"
        console.print(Text(what), soft_wrap=True)
    if outcome.alive:
        console.print(Text(f"{outcome.alive} cells have a job already"))
    for record, standing in outcome.given_up:
        console.print(Text(f"not submitted: {plan.missing[record].label}: {standing.detail}", style="red"))
    name = f"{table.paper}/{table.table}"
    if outcome.given_up:
        console.print(Text(f"to insist: repro retry {name}"))
    console.print(
        Text(f"follow with: repro status {name}   or the same command with --wait; it reports when all are done")
    )
    return 1 if outcome.given_up else 0


def _needs(array: Array) -> str:
    gpus = int(array.resources["gpus"])
    parts = [f"{array.resources['cpus']:g} CPU", *([f"{gpus} GPU"] if gpus else [])]
    return " · ".join([*parts, f"{array.resources['memory_gb']:g} GB", f"at most {array.minutes} min"])


def announce(console: Console, table: Table, plan: Plan) -> None:
    """One line on what is about to happen."""
    stale = f", {len(plan.stale)} computed by older code" if plan.stale else ""
    line = f"{table.paper}/{table.table} at {table.scale} scale: {plan.done} of {len(plan.records)} cells done{stale}"
    if plan.missing:
        cost = expected(table, plan, recorded_seconds(table))
        if table.launcher.name == "local":
            about = f"on {cost.workers} worker{'s' * (cost.workers > 1)}, about {duration(cost.elapsed)}"
        else:
            about = f"by {table.launcher.name}, {duration(cost.total)} of cells"
        line += f"; computing {len(plan.missing)} {about}"
    console.print(Text(line))


def check_needs(table: Table, following: Following) -> None:
    """Stop before anything starts when something that the table needs is not at hand: launcher, data, models, GPUs."""
    from common.data.catalogue import dataset
    from common.data.registry import require
    from common.experiments.doctor import obstacles

    check_launcher(table)
    expected_of(table)  # a mistake in expected.yaml is said before hours of computing
    if following.dry_run:
        if table.launcher.name == "local":
            raise UserError("--dry-run shows what a cluster would get: add --launcher slurm")
        return
    if table.launcher.name == "slurm":
        require_slurm()
    for name in table.needs.data:
        require(dataset(name), table.data)
    if found := obstacles(table):
        raise UserError(
            f"{table.paper}/{table.table} at {table.scale} scale cannot run here: {'; '.join(map(str, found))}"
        )


def mirror(console: Console, table: Table, name: str) -> None:
    """Export the table to MLflow; trouble there is one line and never fails the run."""
    manifest = table.store.manifest(name)
    if table.tracking_uri is None or not pending(manifest, table.runs, table.tracking_uri, reports=table.reports):
        return
    outcome = sync([manifest], table.runs, table.tracking_uri, reports=table.reports)
    if outcome.failed:
        console.print(Text(outcome.failed, style="yellow"), soft_wrap=True)


def rebuild_reports(name: str | None, scale: str, overrides: Sequence[str], seeds: int | None) -> None:
    """Report again from the records one table, or every table that has a manifest.

    Then judge its report, or every one that stands, by the present `expected.yaml`, render it, and build the site. Why
    some could not be judged is printed with their files, each reason once.
    """
    standing, skipped = "*/*.*.json", dict[str, list[str]]()
    if name is not None:
        table = compose_table(name, scale, overrides)
        _rebuild(table, range(seeds or table.seeds))
        standing = f"{table.paper}/{table.name}.json"
    for path in manifests(runs_folder()) if name is None else []:
        manifest = read_manifest(path)
        if manifest["kind"] != "table":
            continue
        try:
            table = compose_table(f"{manifest['paper']}/{manifest['table']}", manifest["scale"], manifest["overrides"])
            _rebuild(table, sorted({cell["seed"] for cell in manifest["cells"]}))
        except UserError as error:  # a paper or row that was deleted since
            skipped.setdefault(str(error), []).append(os.path.relpath(path))
    for path in sorted(reports_folder().glob(standing)):
        try:
            renew(path)
        except UserError as error:
            skipped.setdefault(str(error), []).append(os.path.relpath(path))
    for reason, files in skipped.items():
        print(f"{', '.join(files)}: {reason}; left as it was")
    build_pages()


def build_pages() -> None:
    """Write the site of all reports again and print where its index is."""
    print(os.path.relpath(_site(reports_folder())))


def _site(reports: Path) -> Path:
    from common.experiments import catalogue
    from common.experiments.site.build import build as build_site

    index = build_site(reports, catalogue.load())
    (reports / BEHIND).unlink(missing_ok=True)
    return index


def record_release(name: str, force: bool) -> None:
    """Freeze the present reports as what the page of changes compares with.

    Raises:
        UserError: an odd name; or, unless `force`, that of the release which stands.
    """
    from common.experiments.site.changes import load, record

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"'{name}' cannot name a release: use letters, digits, '.', '-' and '_', as in v1.2")
    if not force and load(reports_folder())["name"] == name:
        raise UserError(f"release '{name}' exists already; choose another name, or replace it with --force")
    print(os.path.relpath(record(reports_folder(), name)))
    build_pages()


def _rebuild(table: Table, seeds: Sequence[int]) -> None:
    records = plan_cells(table, table.cells(None, seeds)).records
    if any(record.done for _, record in records):
        print(os.path.relpath(write(build(table, records), table)[0]))
    else:
        print(f"{table.paper}/{table.name}: no finished cell of the present code; run `repro table` first")


def sync_all(uri: str | None) -> None:
    """Export every table; UserError when the tracking store did not take it."""
    runs = runs_folder()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(runs)
    outcome = sync(manifests(runs), runs, uri, reports=reports_folder())
    if outcome.failed:
        raise UserError(outcome.failed)
    print(f"{uri}: {outcome.created} runs written, {outcome.existing} already there")
