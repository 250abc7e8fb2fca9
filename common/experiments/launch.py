"""Launchers: where cells run. One small interface; local processes here, a cluster behind it in `cluster.py`."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.experiments.compose import Table
from common.experiments.fingerprint import ROOT
from common.experiments.records import Cell, Record

POLL_SECONDS = 0.2  # how often a cell that another process computes is looked at again
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Event:
    """A cell changed state: `running`, `done`, `pruned` or `failed` (with a one-line error)."""

    record: Record
    state: str
    error: str = ""


class Launcher(Protocol):
    """Starts cells whose configuration is frozen in their folders, and tells how they end.

    The record is the files: a launcher may die or be asked to forget at any time, and the next one goes on.
    """

    def submit(self, cells: Mapping[Record, Cell]) -> None:
        """Take the cells; a launcher that queues elsewhere may return before any has started."""

    def events(self) -> Iterator[Event]:
        """Follow the submitted cells, also those that come while it follows, until each has ended in `done`, `pruned`
        or `failed`."""

    def release(self) -> None:
        """The caller stops following: workers that are its own end with it, jobs of a cluster go on."""


class LocalLauncher:
    """Worker processes on this machine, each with `threads` compute threads."""

    def __init__(self, workers: int, threads: int, data: Path | None) -> None:
        self._count = workers
        self._threads = threads
        self._data = data
        self._waiting: deque[Record] = deque()
        self._elsewhere: list[Record] = []  # held by another process: its result is ours too
        self._announced: set[Record] = set()
        self._busy: dict[_Worker, Record] = {}
        self._idle: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def submit(self, cells: Mapping[Record, Cell]) -> None:
        self._waiting.extend(cells)

    def events(self) -> Iterator[Event]:
        try:
            while self._waiting or self._busy or self._elsewhere:
                yield from self._start()
                for key, _ in self._selector.select(timeout=POLL_SECONDS if self._elsewhere else 1.0):
                    event = self._ended(key.data)
                    if event is not None:
                        yield event
                yield from self._look_elsewhere()
        finally:
            self.release()

    def release(self) -> None:
        self._waiting.clear()
        self._elsewhere.clear()
        for worker in [*self._busy, *self._idle]:
            self._selector.unregister(worker.answers)
            worker.kill()
        self._busy.clear()
        self._idle.clear()

    def _start(self) -> Iterator[Event]:
        while self._waiting and len(self._busy) < self._count:
            record = self._waiting.popleft()
            worker = self._idle.pop() if self._idle else self._new_worker()
            self._busy[worker] = record
            worker.send(record)
            if record not in self._announced:
                self._announced.add(record)
                yield Event(record, "running")

    def _new_worker(self) -> "_Worker":
        worker = _Worker(self._threads, self._data)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _ended(self, worker: "_Worker") -> Event | None:
        """What a worker's answer, or its death, says of its cell."""
        record = self._busy.pop(worker, None)
        answer = worker.answer()
        if answer is None:  # the process is gone
            self._selector.unregister(worker.answers)
            if record is None:  # it died idle
                self._idle.remove(worker)
                return None
            error = f"the worker died ({worker.exit_reason()}); see {record.folder / 'log.txt'}"
            record.set_state("failed", error=error)
            return Event(record, "failed", error)
        self._idle.append(worker)
        assert record is not None
        if answer["state"] == "busy":
            self._elsewhere.append(record)
            return None
        return Event(record, answer["state"], answer["error"])

    def _look_elsewhere(self) -> Iterator[Event]:
        """Cells of another process: ended by it, or free again after its death."""
        for record in list(self._elsewhere):
            with record.lock() as free:
                if not free:
                    continue
            self._elsewhere.remove(record)
            status = record.status()
            if record.done:
                yield Event(record, "done")
            elif status["state"] in ("failed", "pruned"):
                yield Event(record, status["state"], status.get("error", ""))
            else:
                self._waiting.append(record)


class _Worker:
    """One worker process and its two pipes."""

    def __init__(self, threads: int, data: Path | None) -> None:
        environment = os.environ | cell_environment(threads)
        environment.pop("REPRO_DATA", None)
        if data is not None:
            environment["REPRO_DATA"] = str(data.absolute())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.experiments.worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the launcher alone
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def send(self, record: Record) -> None:
        try:
            self.orders.write(f"{record.folder.absolute()}\n")
            self.orders.flush()
        except BrokenPipeError:  # died while idle: its end of file is seen next
            pass

    def answer(self) -> dict[str, str] | None:
        """One answer, None at the end of the process."""
        line = self.answers.readline()
        return json.loads(line) if line else None

    def exit_reason(self) -> str:
        code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process and everything it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def cell_environment(threads: int) -> dict[str, str]:
    """Variables that a process which computes cells must start with."""
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on a GPU
    }


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def local_workers(table: Table) -> int:
    """As many as fit the cores at the cell's threads and tasks, at most what the user asked for."""
    fitting = max(1, core_count() // int(table.resources.cpus * table.most("tasks")))
    return fitting if table.launcher.workers is None else table.launcher.workers


def follow(launcher: Launcher, cells: Mapping[Record, Cell]) -> Iterator[Event]:
    """Submit, follow to the end, and let go of whatever is left when the caller stops early."""
    launcher.submit(cells)
    try:
        yield from launcher.events()
    finally:
        launcher.release()
