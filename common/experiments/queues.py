"""The queues that job arrays go to, through submitit: SLURM, and submitit's local executor for machines without it.

A job runs `python -m common.experiments.job ARRAY`. submitit writes the script, submits it and knows the environment
of a started job; its pickles are left out, because everything that a job needs is in the array's folder before the
queue hears of it.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError
from common.experiments.jobs import Array, Job, Queue, because

_SLURM_STATES = {
    **dict.fromkeys(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT"), "running"),
    "COMPLETED": "ended",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "failed",
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "timed out"),
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "REVOKED"), "lost"),
}  # every other state waits: PENDING, CONFIGURING, SUSPENDED, REQUEUED, REQUEUE_HOLD, …
_PENDING = {  # SLURM's words for jobs that will not start as they are
    "PartitionTimeLimit": "asks for more minutes than the partition allows",
    "PartitionNodeLimit": "asks for more nodes than the partition has",
    "BadConstraints": "no node meets its constraint",
    "JobHeldUser": "held; scontrol release JOB",
    "JobHeldAdmin": "held by an administrator",
    "BeginTime": "waits for its begin time, as requeued jobs do",
}


class SlurmQueue:
    """SLURM, by its own commands; accounting is not needed."""

    def submit(self, array: Array) -> list[str]:
        require_slurm()
        executor, script = _slurm_executor(array), array.folder / "submission.sh"
        script.write_text(executor._make_submission_file_text(job_command(array), ""))
        done = subprocess.run(executor._make_submission_command(script), capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"SLURM refused the jobs: {_reason(done.stderr)}")
        return [executor._get_job_id_from_submission_command(done.stdout)]

    def script(self, array: Array) -> str:
        return str(_slurm_executor(array)._make_submission_file_text(job_command(array), ""))

    def jobs(self, arrays: Sequence[Array]) -> dict[tuple[str, int], Job] | None:
        users = ",".join(sorted({array.user for array in arrays}))
        listed = _slurm("squeue", "--noheader", "--states=all", f"--user={users}", "--format=%j|%i|%T|%r")
        if listed is None:
            return None
        by_id = {job: array for array in arrays for job in array.ids}
        by_name = {array.name: array for array in arrays}
        found: dict[tuple[str, int], Job] = {}
        for line in listed.splitlines():
            name, job, state, reason = line.split("|", 3)
            array = by_name.get(name) or by_id.get(job.split("_")[0])
            if array is not None:
                found.update(_tasks(array, job, state, reason))
        forgotten = [a for a in arrays if a.ids and any((a.name, i) not in found for i in range(len(a.cells)))]
        if forgotten:
            found = self._accounted(forgotten) | found
        return found

    def _accounted(self, arrays: Sequence[Array]) -> dict[tuple[str, int], Job]:
        """What accounting remembers of jobs that have left the queue; nothing where there is none."""
        by_id = {job: array for array in arrays for job in array.ids}
        told = _slurm("sacct", "--noheader", "--parsable2", "-X", "--format=JobID,State", f"--jobs={','.join(by_id)}")
        found: dict[tuple[str, int], Job] = {}
        for line in (told or "").splitlines():
            job, state = line.split("|")[:2]
            if (array := by_id.get(job.split("_")[0])) is not None:
                found.update(_tasks(array, job, state.split()[0], ""))  # `CANCELLED by 1000`
        return found

    def cancel(self, array: Array, jobs: Mapping[int, Job]) -> None:
        whole = array.ids if len(jobs) == len(array.cells) else []
        names = whole or [job.id for job in jobs.values()]
        for start in range(0, len(names), 500):
            if _slurm("scancel", *names[start : start + 500]) is None:
                raise UserError("SLURM does not answer; nothing was cancelled")


def _tasks(array: Array, job: str, state: str, reason: str) -> Iterator[tuple[tuple[str, int], Job]]:
    """The jobs of one line of squeue or sacct: `17_3`, or `17_[0-2,5%4]` for tasks that wait."""
    number, _, tasks = job.partition("_")
    known = _SLURM_STATES.get(state, "waiting")
    told = because(known, array) if state in ("TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL") else ""
    if not told and reason not in ("None", ""):
        told = _PENDING.get(reason.split(",")[0], f"waits: {reason}" if known == "waiting" else reason)
    for part in tasks.strip("[]").split("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            for index in range(int(first), int(last or first) + 1):
                yield (array.name, index), Job(f"{number}_{index}", known, told)


def _slurm(*command: str) -> str | None:
    """Output of a SLURM command, None when there is no SLURM here or it does not answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, env=os.environ | {"SLURM_BITSTR_LEN": "0"}
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _reason(message: str) -> str:
    """sbatch's complaint, without its name and the list of what was submitted."""
    lines = [line.strip() for line in message.splitlines() if "error:" in line]
    return "; ".join(dict.fromkeys(re.sub(r"^(sbatch: )?(error: )+", "", line) for line in lines)) or message.strip()


def require_slurm() -> None:
    """UserError where no SLURM can be reached from here."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "no SLURM here (no sbatch and srun): run this on a login node, or compute here with --launcher local"
        )
    if _slurm("scontrol", "ping") is None:
        raise UserError("SLURM does not answer (scontrol ping): try again later, or compute here with --launcher local")


def job_command(array: Array) -> str:
    """The shell command of every job of the array."""
    from common.experiments.launch import cell_environment

    environment = {**cell_environment(int(array.resources["cpus"])), "PYTHONPATH": array.code, "PYTHONSAFEPATH": "1"}
    python = array.profile["python"] or sys.executable
    settings = [f"{name}={value}" for name, value in environment.items()]
    return shlex.join(["env", *settings, python, "-u", "-m", "common.experiments.job", str(array.folder)])


def _slurm_executor(array: Array) -> Any:
    """submitit's executor with the array's parameters."""
    from submitit import SlurmExecutor

    class Executor(SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:  # scripts are also written where SLURM is not: --dry-run
            return 2

    profile = array.profile
    cpus, nodes, tasks, gpus = (int(array.resources[name]) for name in ("cpus", "nodes", "tasks", "gpus"))
    srun = ["--cpus-per-task", str(cpus)]  # which srun does not take from sbatch
    if tasks > 1:
        srun += ["--kill-on-bad-exit=1"]  # the others follow the first task
    if profile["container"]:
        here = {f"{folder}:{folder}" for folder in (array.store.runs, array.data) if folder}
        srun += ["--container-image", profile["container"]]
        srun += ["--container-mounts", ",".join([*sorted(here), *profile["mounts"]])]
    executor = Executor(array.folder)
    executor.update_parameters(
        job_name=array.name,
        comment=f"repro {array.table}",
        **{name: profile[name] for name in ("partition", "account", "qos", "constraint", "nodelist", "exclude")},
        time=array.minutes,
        nodes=nodes,
        ntasks_per_node=tasks // nodes,
        cpus_per_task=cpus,
        gpus_per_node=gpus or None,
        mem=f"{round(array.resources['memory_gb'] * 1024)}M",
        setup=profile["setup"] or None,
        signal_delay_s=profile["signal_seconds"],
        array_parallelism=profile["workers"] or len(array.cells),
        srun_args=srun,
        stderr_to_stdout=True,
        wckey=None,
        additional_parameters={"requeue": True, **dict(map(_option, profile["options"]))},
    )
    executor.parameters["map_count"] = len(array.cells)
    return executor


def _option(option: str) -> tuple[str, str | bool]:
    """`--name=value` or `--name` as submitit wants it."""
    name, given, value = option.removeprefix("--").partition("=")
    return name, value if given else True


class LocalQueue:
    """submitit's local executor: `workers` jobs side by side, each going through all cells that no other has taken."""

    def submit(self, array: Array) -> list[str]:
        from submitit import LocalExecutor

        executor = LocalExecutor(array.folder)
        executor.update_parameters(
            timeout_min=array.minutes * len(array.cells),
            signal_delay_s=array.profile["signal_seconds"],
            gpus_per_node=int(array.resources["gpus"]),
            stderr_to_stdout=True,
        )
        with _deaf_to_the_terminal():
            jobs = [executor._submit_command(job_command(array)) for _ in range(self._lanes(array))]
        return [job.job_id for job in jobs]

    def script(self, array: Array) -> str:
        return "".join(f"{job_command(array)}\n" for _ in range(self._lanes(array)))

    def _lanes(self, array: Array) -> int:
        from common.experiments.launch import core_count

        fitting = max(1, core_count() // int(array.resources["cpus"] * array.resources["tasks"]))
        return min(array.profile["workers"] or fitting, len(array.cells))

    def jobs(self, arrays: Sequence[Array]) -> dict[tuple[str, int], Job] | None:
        """A cell waits as long as any of its array's jobs lives; its own record tells when it runs."""
        found = {}
        for array in arrays:
            living = [job for job in array.ids if array.host != socket.gethostname() or _controls(job, array.folder)]
            for index, key in enumerate(array.cells):
                status = array.store.record(key).status()
                mine = status.get("array") == array.name
                if living and not (mine and status["state"] in ("failed", "timed out", "pruned")):
                    running = mine and status["state"] == "running"
                    found[array.name, index] = Job(living[0], "running" if running else "waiting")
        return found

    def cancel(self, array: Array, jobs: Mapping[int, Job]) -> None:
        left = [key for index, key in enumerate(array.cells) if index not in jobs]
        if any(not array.store.record(key).done for key in left):
            raise UserError("the cells of a submitit array share their jobs: cancel the whole table")
        for job in array.ids:
            if _controls(job, array.folder):
                os.kill(int(job), signal.SIGTERM)


def _controls(pid: str, folder: Path) -> bool:
    """Whether that process is the controller of a job of this array."""
    try:
        command = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(folder).encode() in command


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes started in the block outlive Ctrl-C and the end of the terminal."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


QUEUES: dict[str, Queue] = {"slurm": SlurmQueue(), "submitit": LocalQueue()}
