"""Job arrays as plain files, and where each cell stands: its record joined with what the queue says of its job.

    runs/<paper>/jobs/<array>/    array.json  ids  cancelled  <job>_0_log.out …

`array.json` is written before the queue hears of the array and `ids` after it answered, so that a submission killed in
between is found again: by its name, which is the name of the job, or by `ids`, which a started job writes as well.
"""

import getpass
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from common.experiments.errors import UserError
from common.experiments.records import Record, Store, now, read_json
from common.files import write_atomically

STATES = (
    "pending", "queued", "running", "interrupted", "preempted", "done", "pruned", "lost", "timed out", "cancelled",
    "failed",
)  # fmt: skip
UNDERWAY = 60.0  # seconds that a submission may take between `array.json` and the queue's knowledge of it
TAIL = 4096  # bytes of a log that are looked at


@dataclass(frozen=True)
class Array:
    """One submission: cells with equal needs, one job each (with submitit's local executor: a few jobs for all).

    Attributes:
        name: of the folder and of the job.
        queue: `slurm` or `submitit`.
        table: what the cells were submitted for, for people.
        cells: keys by array index.
        attempts: for each cell, how many submissions in a row were lost before this one, plus one.
        resources: cpus, nodes, tasks, gpus, memory_gb of each job.
        minutes: time limit of each job.
        profile: the launcher's settings.
        code: folder that the jobs import.
        data: mirror of the data sets, None where there is none.
        user, host, submitted_at: who submitted, where, when.
    """

    folder: Path
    name: str
    queue: str
    paper: str
    table: str
    cells: tuple[str, ...]
    attempts: tuple[int, ...]
    resources: Mapping[str, float]
    minutes: int
    profile: Mapping[str, Any]
    code: str
    data: str | None
    user: str
    host: str
    submitted_at: str

    @classmethod
    def new(cls, store: Store, cells: Mapping[str, int], **fields: Any) -> "Array":
        """An array of keys (with the attempt of each) under a name of its own; nothing is written yet."""
        moment = datetime.now(UTC)
        name = f"repro-{store.paper}-{moment:%Y%m%d-%H%M%S}-{moment:%f}{os.urandom(2).hex()}"
        folder = store.runs.absolute() / store.paper / "jobs" / name
        fields |= {"user": getpass.getuser(), "host": socket.gethostname(), "submitted_at": now()}
        return cls(folder, name, paper=store.paper, cells=tuple(cells), attempts=tuple(cells.values()), **fields)

    @classmethod
    def read(cls, folder: Path) -> "Array":
        """What is in a folder. UserError where that is no job array of this version."""
        values = read_json(folder / "array.json")
        try:
            return cls(folder, **{**values, "cells": tuple(values["cells"]), "attempts": tuple(values["attempts"])})
        except (TypeError, KeyError):
            raise UserError(f"{folder / 'array.json'} is no job array of this version; move the folder away") from None

    def write(self) -> None:
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_atomically(self.folder / "array.json", json.dumps(values))

    @property
    def store(self) -> Store:
        return Store(self.folder.parents[2], self.paper)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the queue; empty while it has not answered, or never did."""
        try:
            return (self.folder / "ids").read_text().split()
        except FileNotFoundError:
            return []

    def write_ids(self, ids: Sequence[str]) -> None:
        write_atomically(self.folder / "ids", "".join(f"{job}\n" for job in ids))

    @cached_property
    def cancelled(self) -> frozenset[str]:
        """Keys that `repro cancel` has ended."""
        try:
            return frozenset((self.folder / "cancelled").read_text().split())
        except FileNotFoundError:
            return frozenset()

    def note_cancelled(self, keys: Iterable[str]) -> None:
        write_atomically(self.folder / "cancelled", "".join(f"{key}\n" for key in sorted({*self.cancelled, *keys})))

    @property
    def underway(self) -> bool:
        """Noted so recently that the queue may not know it yet."""
        return not self.ids and time.time() - (self.folder / "array.json").stat().st_mtime < UNDERWAY

    def log(self, job: str) -> Path:
        """Where a job's own output goes, the scheduler's last words included; a cell's output is in its `log.txt`."""
        return self.folder / f"{job}_0_log.out"


@dataclass(frozen=True)
class Job:
    """What a queue says of one cell's job.

    Attributes:
        state: `waiting`, `running`, or how it ended: `ended` (well), `failed`, `timed out`, `preempted`, `cancelled`,
            `lost` (with its node).
        reason: for people.
    """

    id: str
    state: str
    reason: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ("waiting", "running")


class Queue(Protocol):
    """Where arrays run."""

    def submit(self, array: Array) -> list[str]:
        """Hand the array over and return its ids; UserError with the queue's reason when it is refused."""

    def script(self, array: Array) -> str:
        """What `submit` hands over, for people."""

    def jobs(self, arrays: Sequence[Array]) -> dict[tuple[str, int], Job] | None:
        """By name and index, the jobs that the queue knows; None when it does not answer."""

    def cancel(self, array: Array, jobs: Mapping[int, Job]) -> None:
        """End these jobs, by index. UserError when the queue does not answer, or cannot end them without others."""


@dataclass(frozen=True)
class Standing:
    """Where a cell stands: one of STATES, why, and its job.

    Attributes:
        alive: a job waits or runs for it: nothing else should be submitted.
        attempt: of the submissions that were lost in a row, this is the number of the last; 0 without any.
    """

    state: str
    detail: str = ""
    job: str = ""
    alive: bool = False
    attempt: int = 0
    array: Array | None = None


def arrays(store: Store) -> list[Array]:
    """Every array of a paper, oldest first."""
    folders = store.runs.absolute() / store.paper / "jobs"
    names = sorted(os.listdir(folders), key=lambda name: name.split("-")[-3:]) if folders.is_dir() else []
    return [Array.read(folders / name) for name in names if (folders / name / "array.json").exists()]


def standings(store: Store, keys: Iterable[str]) -> dict[str, Standing]:
    """Where each cell stands, from the files and one look at each queue that has open jobs."""
    from common.experiments.queues import QUEUES

    records = {key: store.record(key) for key in keys}
    found = {key: Standing("done") for key, record in records.items() if record.done}
    owners: dict[str, tuple[Array, int]] = {}
    for array in arrays(store):
        owners.update({key: (array, index) for index, key in enumerate(array.cells)})
    wanted = {array.name: array for key, (array, _) in owners.items() if key in records and key not in found}
    jobs: dict[str, dict[tuple[str, int], Job] | None] = {}
    for queue in {array.queue for array in wanted.values()}:
        jobs[queue] = QUEUES[queue].jobs([array for array in wanted.values() if array.queue == queue])
    for key, record in records.items():
        if key in found:
            continue
        if key not in owners:
            found[key] = _recorded(record)
            continue
        array, index = owners[key]
        known = jobs[array.queue]
        job = known.get((array.name, index)) if known else None
        found[key] = _standing(record, array, index, job, known is not None)
    return found


def _recorded(record: Record) -> Standing:
    """A cell that no array names, or that was taken up by another process since."""
    state, status = record.state(), record.status()
    where = f"pid {status.get('pid')} on {status.get('host')} since {status.get('started_at')}"
    return Standing(state, where if state in ("running", "interrupted") else status.get("error", ""))


def _standing(record: Record, array: Array, index: int, job: Job | None, answered: bool) -> Standing:
    """Join the record of a cell that is not done with its job."""
    status, attempt = record.status(), array.attempts[index]
    mine = status.get("array") == array.name  # this submission has started the cell
    name = job.id if job else f"{array.ids[0]}_{index}" if array.ids and array.queue == "slurm" else ""
    name = status.get("job", name) if mine else name

    def standing(state: str, detail: str = "", alive: bool = False) -> Standing:
        return Standing(state, detail, name, alive, attempt, array)

    if job and job.alive:
        if job.state == "running" and not (mine and status["state"] == "preempted"):
            since = f"on {status['host']} since {status['started_at']}" if mine else "starting"
            return standing("running", since, alive=True)
        return standing("preempted" if mine and status["state"] == "preempted" else "queued", job.reason, alive=True)
    state = record.state()
    if state in ("done", "running") or (not mine and status.get("started_at", "") > array.submitted_at):
        return _recorded(record)
    if mine and state in ("failed", "timed out", "pruned"):
        return standing(state, status.get("error", ""))
    if record.folder.name in array.cancelled:
        return standing("cancelled")
    if array.underway:
        return standing("queued", "being submitted", alive=True)
    if not answered:
        return standing("queued" if state == "pending" else state, f"{array.queue} does not answer", alive=True)
    if not (array.ids or job):
        return Standing("pending", "its submission was interrupted", attempt=attempt - 1, array=array)
    end, reason = (job.state, job.reason) if job else ("lost", "")
    if end in ("lost", "ended", "failed"):
        end, reason = _last_words(array, name, end, reason)
    if end in ("lost", "ended", "failed") and mine and state == "preempted":
        return standing("preempted", "and not requeued")
    if end in ("lost", "ended"):
        reason = reason or "its job ended without a result"
        return standing("lost", f"{reason} (attempt {attempt} of {array.profile['retries'] + 1})")
    return standing(end, reason)


_WORDS = (  # what slurmstepd writes when it ends a job
    (r"DUE TO TIME LIMIT", "timed out"),
    (r"exceeded memory limit|oom[-_]kill|Out Of Memory", "failed"),
    (r"DUE TO PREEMPTION", "preempted"),
    (r"DUE TO NODE FAIL", "lost"),
    (r"DUE TO JOB REQUEUE", "lost"),
    (r"CANCELLED AT", "cancelled"),
)


def _last_words(array: Array, job: str, state: str, reason: str) -> tuple[str, str]:
    """How a job ended: what its log tells, where it tells more than the queue's `state` and `reason`."""
    lines = tail(array.log(job), 12)
    for pattern, found in _WORDS:
        if any(re.search(pattern, line) for line in lines):
            return found, because(found, array)
    return state, lines[-1] if lines else reason


def because(state: str, array: Array) -> str:
    """What a user needs to know of an ending that the scheduler decided."""
    return {
        "timed out": f"over its limit of {array.minutes} minutes; give it more: repro retry … --minutes N",
        "failed": f"over its memory of {array.resources['memory_gb']:g} GB; give it more: repro retry … --memory-gb N",
        "lost": "its node failed",
    }.get(state, "")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log that are not empty, without control characters; none when it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - max(TAIL, 200 * lines)))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    kept = [re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", line.rsplit("\r", 1)[-1]) for line in text.split("\n")]
    return [line for line in kept if line.strip()][-lines:]
