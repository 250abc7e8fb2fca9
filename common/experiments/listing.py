"""`repro list` and `repro status`: what exists and how far it is, read from plain files without heavy imports."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from common.experiments import catalogue
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT, code_files
from common.experiments.jobs import STATES, Standing, standings, tail
from common.experiments.records import Store, manifests, read_manifest

SHOWN = 20  # cells of each state named per table
EXPECTED = ("done", "pending", "pruned")  # states that need no word for each cell
WIDTH = 160  # characters shown of a log's last line


def show(everything: bool, code: bool = False) -> None:
    """Implemented papers with their tables; with `everything` all fifty of the catalogue.

    Args:
        code: mark reports of other code than the present; hashing it takes about a second.
    """
    known = catalogue.load()
    papers = catalogue.implemented()
    for slug in papers:
        paper = known.get(slug)
        click.secho(f"{slug:<22}{paper.title if paper else 'not in the catalogue'}", bold=True)
        present = code_files(f"projects.{slug}.run") if code else None
        for table, scales in catalogue.tables(slug).items():
            last = _last(slug, table, scales, present)
            click.echo(f"  {slug}/{table:<{20 - min(19, len(slug))}} {' '.join(scales):<20} {last}")
    waiting = [paper for slug, paper in known.items() if slug not in papers]
    if everything:
        click.secho("\nnot implemented yet", bold=True)
        for paper in waiting:
            click.echo(f"  {paper.slug:<22}{paper.title}")
    else:
        click.echo(f"\n{len(papers)} implemented, {len(waiting)} planned (repro list --all)")


def _last(slug: str, table: str, scales: list[str], code: dict[str, str] | None) -> str:
    """Claims of the newest report per scale: `tiny: 4 holds, 1 underpowered (5 seeds)`; where the paper's `code` is
    given, also whether a cell is of another: `(5 seeds, older code)`.
    """
    parts = []
    for scale in scales:
        path = reports_folder() / slug / f"{table}.{scale}.json"
        if path.exists():
            try:
                report = json.loads(path.read_text(encoding="utf-8"))
                counts, seeds = Counter(claim["status"] for claim in report["claims"]), len(report["seeds"])
                older = ", older code" * (code is not None and bool(report["code"] != code or report["stale"]))
            except (ValueError, KeyError, TypeError):
                parts.append(f"{scale}: report is corrupted")
                continue
            words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            parts.append(f"{scale}: {words or 'reported'} ({seeds} seed{'s' * (seeds != 1)}{older})")
    return " · ".join(parts) or "no report yet"


def status(name: str | None) -> None:
    """Counts of cells by state for every started table (of one paper or table), and what did not end well."""
    runs = runs_folder()
    paths = manifests(runs)
    if name is not None:
        started = sorted({f"{path.parts[-3]}/{path.name.split('.')[0]}" for path in paths})
        papers = sorted({path.parts[-3] for path in paths})
        if name not in (*started, *papers):
            raise UserError(f"nothing was started under '{name}'{nearest(name, started)}")
        paths = [path for path in paths if name in (path.parts[-3], f"{path.parts[-3]}/{path.name.split('.')[0]}")]
    if not paths:
        click.echo(f"nothing was started yet in {os.path.relpath(runs)}; try: repro table dsi_pp/continual")
    tables = [(path.stem, read_manifest(path)) for path in paths]
    for paper in dict.fromkeys(manifest["paper"] for _, manifest in tables):
        own = [(stem, manifest) for stem, manifest in tables if manifest["paper"] == paper]
        store = Store(runs, paper)
        known = standings(store, {cell["key"] for _, manifest in own for cell in manifest["cells"]})
        for stem, manifest in own:
            _table_status(store, manifest, stem, known)


def _table_status(store: Store, manifest: dict[str, Any], name: str, known: dict[str, Standing]) -> None:
    found = [(cell, known[cell["key"]]) for cell in manifest["cells"]]
    counts = Counter(standing.state for _, standing in found)
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    click.echo(f"{manifest['paper']}/{name}: {len(found)} cells: {words}")
    for state in STATES:
        odd = [(cell, standing) for cell, standing in found if standing.state == state not in EXPECTED]
        for cell, standing in odd[:SHOWN]:
            job = f"job {standing.job}  " if standing.job else ""
            place = f"{cell['row']} · {cell['column']} · seed {cell['seed']}  [{cell['key']}]"
            click.echo(f"  {state}: {place}  {job}{standing.detail}".rstrip())
            last = tail(store.record(cell["key"]).folder / "log.txt", 2) if state != "queued" else []
            for line in [each for each in last if each != f"failed: {standing.detail}"][-1:]:
                click.echo(f"      {line[:WIDTH]}")
        if len(odd) > SHOWN:
            click.echo(f"  … and {len(odd) - SHOWN} more {state}")


def runs_folder() -> Path:
    """Where records lie when no table is composed: `REPRO_RUNS`, else `runs/` of the repository."""
    return ROOT / (os.environ.get("REPRO_RUNS") or "runs")


def reports_folder() -> Path:
    """Where reports lie when no table is composed: `REPRO_REPORTS`, else `reports/` of the repository."""
    return ROOT / (os.environ.get("REPRO_REPORTS") or "reports")
