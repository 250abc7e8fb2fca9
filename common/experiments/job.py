"""What a job of an array runs: `python -m common.experiments.job ARRAY` computes the cell of its index.

A job of submitit's local executor has no index and goes through all cells. The scheduler's signals become a request to
stop (`common.training.preemption`); a cell that stopped where it can go on is requeued.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import submitit

from common.experiments.fingerprint import pin
from common.experiments.jobs import Array
from common.experiments.ranks import follow, leading
from common.experiments.records import Record
from common.experiments.worker import execute
from common.training import preemption

NOTICE = getattr(
    signal, f"SIG{submitit.JobEnvironment.USR_SIG}"
)  # before a time limit, and on preemption if a site says so
PATIENCE = 120.0  # seconds that a cell held by another process is waited for: a lost node lets go of its lock late


class Signals:
    """The first signal that this process gets; later ones are those that follow the first."""

    def __init__(self) -> None:
        self.first: int | None = None
        for number in (NOTICE, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
            preemption.request()


def main() -> None:
    """Compute the cell of this task in the array that the first argument names; outside an array all cells of it."""
    started, signals = time.monotonic(), Signals()
    array, environment = Array.read(Path(sys.argv[1])), submitit.JobEnvironment()
    if not array.ids and array.queue == "slurm":  # the submitting process did not live to write it
        array.write_ids([environment.array_job_id or environment.raw_job_id])
    pin()
    os.environ.pop("REPRO_DATA", None)
    if array.data:
        os.environ["REPRO_DATA"] = array.data
    index = environment.array_task_id
    ranks = array.folder / f"{environment.job_id}.{os.environ.get('SLURM_RESTART_COUNT', 0)}.ranks"
    if array.queue == "slurm" and environment.global_rank > 0:
        follow(ranks, environment.global_rank, environment.local_rank)
        return
    keys = array.cells if index is None else (array.cells[int(index)],)
    failed, current = False, array.store.record(keys[0])
    host = environment.hostnames[0] if environment.num_nodes > 1 else "127.0.0.1"
    several = array.queue == "slurm" and environment.num_tasks > 1
    try:
        with leading(ranks, host) if several else nullcontext():
            for key in keys:
                current = array.store.record(key)
                failed |= _compute(array, current, environment.job_id, wait=index is not None) == "failed"
    except preemption.Preempted as stop:
        elapsed = time.monotonic() - started
        if signals.first == signal.SIGTERM and not _still_wanted(array.queue, environment.raw_job_id):
            sys.exit(143)  # cancelled
        limit = array.minutes * 60 * (len(array.cells) if index is None else 1)
        out_of_time = signals.first == NOTICE and elapsed > limit - array.profile["signal_seconds"] - 60
        if out_of_time and not stop.saved:  # it would never end
            line = f"stopped at its limit of {array.minutes} minutes without a checkpoint to go on from; "
            current.set_state("timed out", error=f"{line}give it more: repro retry … --minutes N")
            sys.exit(1)
        print(f"requeued after {elapsed:.0f} s", flush=True)
        environment._requeue(0)
    sys.exit(1 if failed else 0)


def _compute(array: Array, record: Record, job: str, wait: bool) -> str:
    """Compute one cell; `busy` when another process held it all the time, or this array has it failed already."""
    if not wait:
        status = record.status()
        if status.get("array") == array.name and status["state"] in ("failed", "timed out", "pruned"):
            return "busy"
    deadline = time.monotonic() + PATIENCE
    while True:
        state, error = execute(record, Path(array.data) if array.data else None, array=array.name, job=job)
        if state != "busy" or not wait or time.monotonic() > deadline:
            break
        time.sleep(2)
    print(f"{record.folder.name}: {state} {error}", flush=True)
    return state


def _still_wanted(queue: str, job: str) -> bool:
    """Whether a job that was told to end is to run again: it was preempted, not cancelled."""
    if queue != "slurm":
        return False
    try:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "JobState=RUNNING" in shown.stdout


if __name__ == "__main__":
    main()
