"""`repro cancel`, `retry` and `logs`: cells that were started, by the names that `repro status` shows."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

from common.experiments.cluster import again, submitting
from common.experiments.errors import UserError, nearest
from common.experiments.jobs import Array, Job, Standing, arrays, standings, tail
from common.experiments.listing import runs_folder
from common.experiments.queues import QUEUES
from common.experiments.records import Store, manifests, read_manifest

AGAIN = ("failed", "timed out", "cancelled", "lost", "preempted", "interrupted")


@dataclass(frozen=True)
class Started:
    """A cell of a started table: its paper's records, its key, and what it is called."""

    store: Store
    key: str
    row: str
    column: str
    seed: int

    def names(self, table: str) -> tuple[str, ...]:
        """Every way to name the cell or a set that it belongs to, but its key."""
        paper = self.store.paper
        cell = (f"{paper}/{table}/{self.row}/{self.seed}", f"{paper}/{table}/{self.row}/{self.column}/{self.seed}")
        return (paper, f"{paper}/{table}", *cell)


def started(name: str) -> list[Started]:
    """The started cells that a name means, each once.

    Raises:
        UserError: there are none (with the nearest name), or the beginning of a key fits several.
    """
    found: dict[str, Started] = {}
    begun: dict[str, Started] = {}  # whose keys begin so
    known: dict[str, None] = {}
    for table, cell in _all_started():
        known.update(dict.fromkeys(cell.names(table)))
        if name in cell.names(table):
            found[cell.key] = cell
        elif len(name) >= 4 and cell.key.startswith(name):
            begun[cell.key] = cell
    if not found and len(begun) > 1:
        raise UserError(f"'{name}' fits {len(begun)} started cells: {', '.join(sorted(begun)[:4])}")
    found = found or begun
    if not found:
        alike = [other for other in known if other.count("/") == name.count("/")]
        raise UserError(f"nothing was started under '{name}'{nearest(name, alike or known)}")
    return list(found.values())


def _all_started() -> Iterator[tuple[str, Started]]:
    for path in manifests(runs_folder()):
        manifest = read_manifest(path)
        store = Store(runs_folder(), manifest["paper"])
        for cell in manifest["cells"]:
            yield manifest["table"], Started(store, cell["key"], cell["row"], cell["column"], cell["seed"])


def cancel(name: str) -> None:
    """End the jobs of these cells."""
    cells = started(name)
    store = cells[0].store
    with submitting(store):
        known = standings(store, [cell.key for cell in cells])
        groups = _by_array({key: standing for key, standing in known.items() if standing.alive})
        for array, standing_of in groups.values():
            jobs = {array.cells.index(key): Job(standing.job, "running") for key, standing in standing_of.items()}
            array.note_cancelled(standing_of)
            QUEUES[array.queue].cancel(array, jobs)
    count = sum(len(standing_of) for _, standing_of in groups.values())
    click.echo(f"{count} of {len(cells)} cells cancelled" if count else f"no cell of {name} has a job")


def retry(name: str, minutes: float | None, memory_gb: float | None) -> None:
    """Submit these cells again, as their last jobs were, where they did not end well."""
    cells = started(name)
    store = cells[0].store
    with submitting(store):
        known = standings(store, [cell.key for cell in cells])
        wrong = {key: found for key, found in known.items() if found.state in AGAIN and not found.alive}
        for array, standing_of in _by_array(wrong).values():
            fresh = again(array, list(standing_of), minutes, memory_gb)
            click.echo(f"submitted {len(fresh.cells)} cells: {fresh.queue} job {', '.join(fresh.ids)}")
    if local := sum(found.array is None for found in wrong.values()):
        click.echo(f"{local} cells never had a job: repro table computes them")
    if not wrong:
        click.echo(f"no cell of {name} wants another attempt")
    if alive := sum(found.alive for found in known.values()):
        click.echo(f"{alive} cells still have a job: what was just cancelled can be tried again when it has ended")


def _by_array(cells: Mapping[str, Standing]) -> dict[str, tuple[Array, dict[str, Standing]]]:
    """Cells that have a job, by the array of that job."""
    groups: dict[str, tuple[Array, dict[str, Standing]]] = {}
    for key, standing in cells.items():
        if standing.array is not None:
            groups.setdefault(standing.array.name, (standing.array, {}))[1][key] = standing
    return groups


def logs(name: str, lines: int) -> None:
    """The end of everything that one cell wrote.

    Raises:
        UserError: the name means several cells, or none.
    """
    cells = started(name)
    if len(cells) > 1:
        raise UserError(f"'{name}' means {len(cells)} cells; name one: PAPER/TABLE/ROW/SEED or a key of repro status")
    record = cells[0].store.record(cells[0].key)
    standing = standings(cells[0].store, [cells[0].key])[cells[0].key]
    status = record.status()
    job = standing.job or status.get("job")
    click.secho(f"{standing.state}{f', job {job}' if job else ''} {standing.detail}".rstrip(), bold=True)
    paths = [record.folder / "log.txt", record.folder / "error.txt"]
    if job:
        own = next((array for array in arrays(cells[0].store) if array.name == status.get("array")), standing.array)
        paths += [own.log(job)] if own else []
    for path in paths:
        if text := tail(path, lines):
            click.secho(os.path.relpath(path), bold=True)
            click.echo("\n".join(text))
