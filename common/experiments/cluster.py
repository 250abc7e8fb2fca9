"""Launching on a cluster: cells become job arrays, one for each set of needs; whoever asks later reads the files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from common.experiments import snapshot
from common.experiments.compose import Launching, Table
from common.experiments.jobs import Array, Standing, standings
from common.experiments.launch import Event
from common.experiments.queues import QUEUES
from common.experiments.records import Cell, Record, Store

LOOK = 2.0  # seconds between two looks at the queue while following


@dataclass
class Submission:
    """What became of the cells: submitted in new arrays, left to jobs that are alive, or given up.

    Attributes:
        given_up: cells that were lost more often than the launcher's `retries` allows.
    """

    arrays: list[Array] = field(default_factory=list)
    alive: int = 0
    given_up: list[tuple[Record, Standing]] = field(default_factory=list)


class ClusterLauncher:
    """Job arrays of a queue, followed through the files; jobs go on when nobody follows."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._open: dict[Record, Cell] = {}
        self._started: set[Record] = set()

    def submit(self, cells: Mapping[Record, Cell]) -> None:
        self._open.update(cells)
        submit(self._table, cells)

    def events(self) -> Iterator[Event]:
        while self._open:
            known = standings(self._table.store, [record.folder.name for record in self._open])
            again = {}
            for record in list(self._open):
                standing = known[record.folder.name]
                if standing.state == "running" and record not in self._started:
                    self._started.add(record)
                    yield Event(record, "running")
                elif not standing.alive and _again(standing, self._table.launcher.retries):
                    again[record] = self._open[record]
                elif not standing.alive and standing.state != "running":
                    if record not in self._started:
                        yield Event(record, "running")
                    del self._open[record]
                    well = standing.state in ("done", "pruned")
                    reason = f"{standing.state}: {standing.detail}" if standing.state != "failed" else standing.detail
                    yield Event(record, standing.state if well else "failed", "" if well else reason)
            if again:
                submit(self._table, again)
            if self._open:
                time.sleep(LOOK)

    def release(self) -> None:
        pass


def _again(standing: Standing, retries: int) -> bool:
    """Whether a cell without a living job is submitted again unasked: it lost its node or job, not too often."""
    return standing.state in ("preempted", "interrupted", "pending") or (
        standing.state == "lost" and standing.attempt <= retries
    )


def submit(table: Table, cells: Mapping[Record, Cell]) -> Submission:
    """Submit every cell for which no job is alive. Two shells at once submit each cell once.

    Raises:
        UserError: the queue cannot be reached or refuses the jobs, or the code changed since the cells were composed.
    """
    store, outcome = table.store, Submission()
    with submitting(store):
        known = standings(store, [record.folder.name for record in cells])
        wanted: dict[Record, int] = {}
        for record in cells:
            standing = known[record.folder.name]
            lost = standing.state == "lost"
            if standing.state == "done":
                continue
            if standing.alive or standing.state == "running":
                outcome.alive += 1
            elif lost and standing.attempt > table.launcher.retries:
                outcome.given_up.append((record, standing))
            else:
                wanted[record] = standing.attempt + lost if standing.state in ("lost", "preempted") else 1
        for array in planned(table, {record: cells[record] for record in wanted}, wanted, snapshot.take):
            outcome.arrays.append(array)
            hand_over(array)
    return outcome


def planned(
    table: Table, cells: Mapping[Record, Cell], attempts: Mapping[Record, int], code: Callable[[Store, str], Path]
) -> list[Array]:
    """The arrays that these cells make, by needs, with the code in the folder that `code` returns."""
    if not cells:
        return []
    profile = table.launcher
    folder = code(table.store, next(iter(cells.values())).code_hash)
    groups: dict[tuple[tuple[str, float], ...], dict[str, int]] = {}
    for record, cell in cells.items():
        groups.setdefault(tuple(sorted(cell.resources.items())), {})[record.folder.name] = attempts.get(record, 1)
    return [
        Array.new(
            table.store,
            part,
            queue=profile.name,
            table=f"{table.paper}/{table.name}",
            resources={name: value for name, value in needs if name != "minutes"},
            minutes=time_limit(dict(needs)["minutes"], profile),
            profile=asdict(profile),
            code=str(folder),
            data=str(table.data.absolute()) if table.data else None,
        )
        for needs, keys in groups.items()
        for part in _parts(keys, profile.array_size)
    ]


def time_limit(minutes: float, profile: Launching) -> int:
    """Minutes of a job whose cell is expected to take `minutes`."""
    limit = max(profile.min_minutes, math.ceil(minutes * profile.slack))
    return min(limit, profile.max_minutes or limit)


def _parts(keys: Mapping[str, int], size: int) -> Iterator[dict[str, int]]:
    items = list(keys.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])


def submitting(store: Store) -> FileLock:
    """Held by the one process that submits or cancels jobs of a paper."""
    folder = store.runs / store.paper / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(".jobs.lock"))


def hand_over(array: Array) -> None:
    """Note the array, give it to its queue, note the ids. A kill in between loses nothing."""
    array.write()
    try:
        ids = QUEUES[array.queue].submit(array)
    except Exception:
        array.folder.joinpath("array.json").unlink()  # refused: it never existed
        raise
    array.write_ids(ids)


def scripts(table: Table, cells: Mapping[Record, Cell]) -> str:
    """What would be submitted, for `--dry-run`."""
    arrays = planned(table, cells, {}, snapshot.place)
    return "\n".join(
        f"# {array.name}: {len(array.cells)} cells\n{QUEUES[array.queue].script(array)}" for array in arrays
    )


def again(array: Array, keys: Sequence[str], minutes: float | None, memory_gb: float | None) -> Array:
    """The same jobs for some cells of an array, with other limits where given: same code, same profile."""
    resources = {**array.resources, **({"memory_gb": memory_gb} if memory_gb else {})}
    kept: dict[str, Any] = {name: getattr(array, name) for name in ("queue", "table", "profile", "code", "data")}
    limit = math.ceil(minutes) if minutes else array.minutes
    fresh = Array.new(array.store, dict.fromkeys(keys, 1), resources=resources, minutes=limit, **kept)
    hand_over(fresh)
    return fresh
