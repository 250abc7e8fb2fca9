"""Computes cells: `python -m common.experiments.worker` reads cell folders from standard input, one a line.

For each it answers one JSON line {"folder", "state", "error"} on standard output. When standard input closes,
the launcher is done or dead, and the worker ends itself and its children at once, also amid a cell.
"""

import importlib
import io
import json
import os
import platform
import queue
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from common.experiments.context import PRUNE, Context, Pruned, Result, check_finite
from common.experiments.errors import UserError
from common.experiments.fingerprint import code_fingerprint, pin
from common.experiments.randomness import seed_everything
from common.experiments.records import Record, now
from common.experiments.settings import to_settings
from common.files import write_atomically
from common.training.preemption import Preempted

_OWNER = {"array": "", "job": ""}  # of a cell that no cluster job computes
PACKAGES = (  # that can change a figure
    "torch", "transformers", "tokenizers", "peft", "sentence-transformers", "vllm", "numpy", "scipy", "scikit-learn",
    "bm25s", "PyStemmer", "faiss-cpu", "faiss-gpu", "nltk", "rouge-score", "hydra-core",
)  # fmt: skip


def execute(record: Record, data: Path | None, **owner: str) -> tuple[str, str]:
    """Compute one cell under its lock.

    Args:
        owner: what the status says of who computes, besides process and host.

    Returns:
        (state, error): `done`, `failed` with a one-line error, `pruned` when a search gave the cell up, or `busy` when
        another process holds it.

    Raises:
        Preempted: a stop was requested; the status says `preempted`, and the cell goes on from its checkpoint.
    """
    with record.lock() as mine:
        if not mine:
            return "busy", ""
        if record.done:
            return "done", ""
        began, log = time.perf_counter(), record.folder / "log.txt"
        try:
            attempt = record.status().get("attempt", 0) + 1
            process = {"pid": os.getpid(), "host": socket.gethostname(), "attempt": attempt, "error": ""}
            record.set_state("running", **process, **(_OWNER | owner), started_at=now(), ended_at="")
            for left in ("error.txt", PRUNE):
                (record.folder / left).unlink(missing_ok=True)
            _note(log, _what(record.config))
            with _output_to(log):
                result = _compute(record, data)
            record.set_state("done", ended_at=now())
            _note(log, f"done in {result['wall_seconds']:.1f} s, peak {result['peak_mb']:,.0f} MB")
            return "done", ""
        except Pruned:
            by = (record.folder / PRUNE).read_text().strip()
            record.set_state("pruned", ended_at=now(), wall_seconds=_since(began), by=by)
            _note(log, "pruned")
            shutil.rmtree(record.folder / "checkpoint", ignore_errors=True)
            return "pruned", ""
        except Preempted as stop:
            record.set_state("preempted", ended_at=now(), saved=stop.saved)
            _note(log, "preempted")
            raise
        except Exception as error:
            line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            line = " ".join(line.split())[:500]
            try:
                write_atomically(record.folder / "error.txt", traceback.format_exc())
                record.set_state("failed", ended_at=now(), wall_seconds=_since(began), error=line)
                _note(log, f"failed: {line}")
            except OSError:  # a full disk cannot take the traceback either; the launcher still hears the line
                pass
            return "failed", line


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _what(config: Mapping[str, Any]) -> str:
    """First line of an attempt in a cell's log: which cell, at which commit."""
    place = " · ".join([config["row"], config["column"], f"seed {config['seed']}", *config["overrides"]])
    commit = f"{(config.get('commit') or 'none')[:12]}{' with changes' * bool(config.get('dirty'))}"
    return f"{config['paper']}/{config['table']} at {config['scale']} scale: {place}, commit {commit}"


def _note(path: Path, line: str) -> None:
    """Append a line of its own to a cell's log, also where the last output ended amid one."""
    with open(path, "a+b") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(0, end - 1))
        torn = log.read() not in (b"", b"\n")
        log.write(f"{chr(10) * torn}{line}\n".encode())


def _compute(record: Record, data: Path | None) -> dict[str, Any]:
    """Run the paper's function on the frozen settings, write `result.json` and return what it holds."""
    config = record.config
    run = _run_function(config["paper"], config["code_hash"])
    cpus, torch_loaded = int(config["resources"]["cpus"]), "torch" in sys.modules
    seed_everything(config["seed"], cpus)
    artifacts = record.folder.parents[1] / "artifacts"
    tasks = int(config["resources"]["tasks"])
    context = Context(config["seed"], record.folder, artifacts, data, cpus, tasks)
    if not context.checkpoint.exists():
        (record.folder / "metrics.jsonl").unlink(missing_ok=True)  # of an attempt that left nothing else
    settings = to_settings(config["paper"], config["settings"])

    reset_peak_memory()
    started_at, wall, cpu = now(), time.perf_counter(), _cpu_seconds()
    try:
        result: Result = run(settings, context)
    finally:
        if serving := sys.modules.get("common.models.serving"):
            serving.end_all()
    check_finite(result.metrics)
    if "torch" in sys.modules and not torch_loaded:
        raise RuntimeError("torch was imported inside run(), too late to be seeded; import it at the top of run.py")
    kept = ("paper", "table", "scale", "row", "column", "seed", "commit", "dirty")
    found = {
        "key": record.folder.name,
        **{name: config.get(name) for name in kept},
        "metrics": {name: float(value) for name, value in result.metrics.items()},
        "tokens": dict(result.tokens),
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(_cpu_seconds() - cpu, 3),
        "peak_mb": round(peak_memory_mb(), 1),
        "started_at": started_at,
        "ended_at": now(),
        "versions": versions(),
        "hardware": hardware(),
    }
    write_atomically(record.folder / "result.json", json.dumps(found, indent=1))
    shutil.rmtree(context.checkpoint, ignore_errors=True)
    return found


@cache
def _run_function(paper: str, code_hash: str) -> Any:
    """The paper's `run`; refuses code other than the cell was composed for."""
    if code_fingerprint(f"projects.{paper}.run") != code_hash:
        raise UserError("the code changed after this cell was composed; run the command again")
    return importlib.import_module(f"projects.{paper}.run").run


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything written to file descriptors 1 and 2, also by C code, to the cell's log, line by line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(path, "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for kept, descriptor in zip(saved, (1, 2), strict=True):
                os.dup2(kept, descriptor)
                os.close(kept)


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended: ranks, servers."""
    return sum(os.times()[:4])


def reset_peak_memory() -> None:
    """Forget the peak of earlier cells in this process (Linux; elsewhere the peak is that of the process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory_mb() -> float:
    """Peak resident memory since the last reset, MB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@cache
def versions() -> dict[str, str]:
    """Installed versions that can change a figure."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GB, and accelerators if torch is loaded."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    found: dict[str, Any] = {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory_gb(), 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def memory_gb() -> float:
    """Physical memory of this machine, GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def main() -> None:
    """Compute the cells that standard input orders, one after the other, and answer each on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's business
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a cell that reads standard input must not eat orders
    os.dup2(2, 1)  # whatever prints outside a cell must not look like an answer
    pin()
    folders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders, folders), daemon=True).start()
    data = os.environ.get("REPRO_DATA")
    while folder := folders.get():
        state, error = execute(Record(Path(folder)), Path(data) if data else None)
        print(json.dumps({"folder": folder, "state": state, "error": error}), file=answers, flush=True)


def _read(orders: TextIO, folders: "queue.SimpleQueue[str]") -> None:
    """Feed the launcher's orders to the main thread; at their end stop everything."""
    for line in orders:
        folders.put(line.strip())
    os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)


if __name__ == "__main__":
    main()
