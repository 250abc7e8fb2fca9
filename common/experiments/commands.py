"""Bodies of `repro table`, `report` and `sync`."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from common.experiments import render
from common.experiments.compose import Table, compose_table
from common.experiments.errors import UserError
from common.experiments.launch import local_workers
from common.experiments.listing import reports_folder, runs_folder
from common.experiments.planning import expected_seconds
from common.experiments.progress import duration, progress
from common.experiments.records import Record, manifests, read_manifest
from common.experiments.report import build, expected_of, write
from common.experiments.reproduce import Plan, compute, freeze, plan_cells
from common.experiments.tracking import default_uri, pending, sync


def run_table(
    name: str,
    scale: str,
    overrides: Sequence[str],
    seeds: int | None,
    rows: Sequence[str] | None,
    keep_stale: bool,
) -> int:
    """Compute what is missing, print, report, mirror; the exit code is 1 when a cell failed."""
    console = Console()
    table = compose_table(name, scale, overrides)
    table.check_rows(rows or [])
    check_needs(table)
    chosen = range(seeds or table.seeds)
    plan = plan_cells(table, table.cells(rows, chosen), keep_stale)
    freeze(table, plan, table.name)
    announce(console, table, plan)
    try:
        failed = run_cells(console, table, plan)
    except KeyboardInterrupt:
        done = sum(record.done for _, record in plan.records)
        raise UserError(
            f"interrupted with {done} of {len(plan.records)} cells done; the same command goes on from there"
        ) from None
    records = plan_cells(table, table.cells(None, chosen), keep_stale).records
    report = build(table, records)
    render.terminal(report, console)
    path = write(report, table)
    console.print(Text(f"report: {os.path.relpath(path)}"), soft_wrap=True)
    mirror(console, table, table.name)
    return 1 if failed else 0


def run_cells(console: Console, table: Table, plan: Plan) -> int:
    """Compute the missing cells under a progress bar; returns how many failed."""
    if not plan.missing:
        return 0
    labels: dict[Record, str] = {}
    for cell, record in plan.records:
        labels.setdefault(record, cell.label)
    expected = expected_seconds(table, plan) / local_workers(table)
    with progress(console, f"{table.paper}/{table.table}", {r: labels[r] for r in plan.missing}, expected) as listen:
        return len(compute(table, plan, listen))


def announce(console: Console, table: Table, plan: Plan) -> None:
    """One line on what is about to happen."""
    stale = f", {len(plan.stale)} computed by older code" if plan.stale else ""
    line = f"{table.paper}/{table.table} at {table.scale} scale: {plan.done} of {len(plan.records)} cells done{stale}"
    if plan.missing:
        workers = local_workers(table)
        seconds = expected_seconds(table, plan) / workers
        line += f"; computing {len(plan.missing)} on {workers} worker{'s' * (workers > 1)}, about {duration(seconds)}"
    console.print(Text(line))


def check_needs(table: Table) -> None:
    """Stop before anything starts when data, models, memory or GPUs that the table needs are not at hand."""
    from common.data.catalogue import dataset
    from common.data.registry import require
    from common.experiments.doctor import obstacles

    expected_of(table)  # a mistake in expected.yaml is said before hours of computing
    for name in table.needs.data:
        require(dataset(name), table.data)
    if lines := obstacles(table):
        raise UserError(f"{table.paper}/{table.table} at {table.scale} scale cannot run here: {'; '.join(lines)}")


def mirror(console: Console, table: Table, name: str) -> None:
    """Export the table to MLflow; trouble there is one line and never fails the run."""
    manifest = table.store.manifest(name)
    if table.tracking_uri is None or not pending(manifest, table.runs, table.tracking_uri, reports=table.reports):
        return
    outcome = sync([manifest], table.runs, table.tracking_uri, reports=table.reports)
    if outcome.failed:
        console.print(Text(outcome.failed, style="yellow"), soft_wrap=True)


def rebuild_reports(name: str | None, scale: str, overrides: Sequence[str], seeds: int | None) -> None:
    """Render again from the records: one table, or every table that has a manifest."""
    from common.experiments import catalogue, site

    if name is not None:
        table = compose_table(name, scale, overrides)
        _rebuild(table, range(seeds or table.seeds))
    for path in manifests(runs_folder()) if name is None else []:
        manifest = read_manifest(path)
        if manifest["kind"] != "table":
            continue
        try:
            table = compose_table(f"{manifest['paper']}/{manifest['table']}", manifest["scale"], manifest["overrides"])
            _rebuild(table, sorted({cell["seed"] for cell in manifest["cells"]}))
        except UserError as error:  # a paper or row that was deleted since
            print(f"{os.path.relpath(path)}: {error}")
    print(os.path.relpath(site.build(reports_folder(), catalogue.load())))


def _rebuild(table: Table, seeds: Sequence[int]) -> None:
    records = plan_cells(table, table.cells(None, seeds)).records
    if any(record.done for _, record in records):
        print(os.path.relpath(write(build(table, records), table)))
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
