"""Ranks: several processes that do one piece of a cell together, as `torchrun` would start them inside a job.

    def run(settings, context):
        figures = together(train, settings, context)        # resources: {tasks: 2} of the table
        model = load(context.folder / "model")              # here the cell goes on alone, its GPUs are free again

    def train(settings, context):                           # in every rank; torch.distributed is set up
        fit(model, data, …, folder=context.checkpoint)      # rank 0 saves
        if rank() == 0:
            model.save_pretrained(context.folder / "model")
        return {"loss": loss}                               # of rank 0, as JSON

The process of the cell only watches. The first rank that fails ends the others, its error is the cell's; a request to
stop reaches the ranks, whose loop saves (`preemption`). The variables are torchrun's; its agent is not used, because it
ends ranks on SIGTERM in place of letting them save, and starts the others again when one fails.

On one machine the cell starts all ranks, on loopback. In a job of several SLURM tasks it starts rank 0; the other tasks
`follow`: each waits for calls, which are files in the job's folder, and starts its own rank.

    <n>.json        the call: function, settings, context, address
    <n>.rank-<k>    how rank k ended
    end             there will be no more calls
"""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from common import children
from common.experiments.context import Context, Pruned
from common.experiments.errors import UserError
from common.experiments.randomness import isolated, seed_everything
from common.experiments.settings import opened
from common.files import write_atomically
from common.training import preemption
from common.training.preemption import Preempted, heeding, requested

POLL = 0.1  # seconds between two looks
GRACE = 5.0  # seconds in which a rank may report what made another fail
PATIENCE = 600.0  # seconds that ranks wait for each other: the others' start, the slowest in a step, a save by rank 0
STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # by which a scheduler asks to stop


class RankError(RuntimeError):
    """A rank failed; the notes hold its traceback."""


@dataclass(frozen=True)
class _Job:
    """Tasks that follow this process: where they look for calls, and the name under which they reach it."""

    folder: Path
    host: str


_job: _Job | None = None


def together(
    function: Callable[..., Any], settings: Any, context: Context, patience: float = PATIENCE, **values: Any
) -> Any:
    """Run `function(settings, context, **values)` in `context.tasks` ranks at once.

    Args:
        function: of a module, by name: ranks import it.
        settings: a dataclass of plain values.
        patience: seconds that ranks wait for each other before they fail.
        values: JSON, and paths.

    Returns:
        What the function returns in rank 0, through JSON. With one task it runs right here.

    Raises:
        RankError: a rank failed, died, or waited for another in vain.
        UserError: raised by a rank.
        Preempted: a stop was requested; what the ranks' loop saved is there.
    """
    if context.tasks == 1:
        with isolated(context.seed):
            return json.loads(json.dumps(function(settings, context, **values)))
    call = {
        "function": _name(function),
        "class": _name(type(settings)),
        "settings": asdict(settings),
        "context": {key: _plain(value) for key, value in vars(context).items()},
        "values": {key: _plain(value) for key, value in values.items()},
        "patience": patience,
    }
    if _job is not None:
        return _lead(call, _job.folder, _job.host, context.tasks, mine=[0])
    folder = Path(tempfile.mkdtemp(prefix="repro-ranks-"))
    try:
        return _lead(call, folder, "127.0.0.1", context.tasks, mine=range(context.tasks))
    finally:
        shutil.rmtree(folder)


@contextmanager
def leading(folder: Path, host: str) -> Iterator[None]:
    """In the block, the other tasks of this job take part in every `together`; at its end they are let go."""
    global _job
    folder.mkdir(parents=True)
    _job = _Job(folder, host)
    try:
        yield
    finally:
        _job = None
        (folder / "end").touch()


def follow(folder: Path, rank: int, local_rank: int) -> None:
    """Take part, as task number `rank`, in every call of the process that leads; return when it is done.

    When that process dies, whoever started both ends this one too (srun --kill-on-bad-exit).
    """
    for stop in STOP:  # the ranks hear them
        signal.signal(stop, signal.SIG_IGN)
    number = 0
    while True:
        call, end = folder / f"{number}.json", folder / "end"
        while not (call.exists() or end.exists()):
            time.sleep(POLL)
        if not call.exists():
            return
        process = _start(call, rank, local_rank)
        number += 1
        while process.poll() is None and not (end.exists() or (folder / f"{number}.json").exists()):
            time.sleep(POLL)
        if process.poll() is None:
            process.kill()
        _report_death(process, call, rank)


def _lead(call: Mapping[str, Any], folder: Path, host: str, tasks: int, mine: Sequence[int]) -> Any:
    """Announce a call, start the ranks that are `mine`, and watch all."""
    listener = socket.socket()
    listener.bind((host, 0))
    listener.listen()
    port = listener.getsockname()[1]
    import torch.distributed as dist

    # ranks meet here: no port is named before it is bound
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    number = sum(1 for _ in folder.glob("*.json"))
    path = folder / f"{number}.json"
    text = json.dumps({**call, "host": host, "port": port, "tasks": tasks, "local": len(mine)})
    with heeding():
        write_atomically(path, text)
        processes = {rank: _start(path, rank, rank) for rank in mine}
        try:
            return _watch(path, tasks, processes, call["patience"])
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
            del store


def _watch(path: Path, tasks: int, processes: Mapping[int, "subprocess.Popen[bytes]"], patience: float) -> Any:
    """Wait for all ranks, pass on requests to stop, and raise what the first that did not end well reports."""
    deadline, noted = float("inf"), 0
    while True:
        over = [rank for rank, process in processes.items() if process.poll() is not None]
        ends = {rank: end for rank in range(tasks) if (end := _end(path, rank))}
        for rank in over:
            if rank not in ends:
                ends[rank] = _report_death(processes[rank], path, rank)
        if len(ends) == tasks and len(over) == len(processes):
            break
        if len(ends) > noted:
            noted = len(ends)
            well = all(end["how"] == "done" for end in ends.values())
            deadline = time.monotonic() + (patience if well else GRACE)
        if time.monotonic() > deadline:
            break
        if requested():
            for process in processes.values():
                process.send_signal(signal.SIGTERM)
        time.sleep(POLL)
    return _outcome(ends, tasks)


def _outcome(ends: Mapping[int, Mapping[str, Any]], tasks: int) -> Any:
    """Result of rank 0, or what ended the ranks: one that was killed, or the first that did not end well; both make the
    others fail, and a death is noticed late."""
    bad = {rank: end for rank, end in ends.items() if end["how"] != "done"}
    if bad:
        rank = min(bad, key=lambda rank: (bad[rank]["how"] != "died", bad[rank]["time"]))
        end = bad[rank]
        if end["how"] == "preempted":
            raise Preempted(saved=end["saved"])
        if end["how"] == "pruned":
            raise Pruned
        if end["user"]:
            raise UserError(end["error"])
        error = RankError(f"rank {rank} of {tasks}: {end['error']}")
        error.add_note(end["traceback"])
        raise error
    if missing := sorted(set(range(tasks)) - set(ends)):
        raise RankError(f"rank {missing[0]} of {tasks} did not end, though others did")
    return ends[0]["result"]


def _start(call: Path, rank: int, local_rank: int) -> "subprocess.Popen[bytes]":
    about = json.loads(call.read_text())
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(about["tasks"]),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(about["local"]),
        "MASTER_ADDR": about["host"],
        "MASTER_PORT": str(about["port"]),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the process that leads has the store
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # as in `launch.cell_environment`, where a command starts ranks
    }
    if about["host"] == "127.0.0.1":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    command = [sys.executable, "-u", "-m", "common.experiments.ranks", str(call)]
    deaf_to = (*STOP, signal.SIGINT)  # until it hears the first; Ctrl-C is the business of the process that watches
    return children.start(command, environment=environment, deaf_to=deaf_to)


def _end(call: Path, rank: int) -> dict[str, Any] | None:
    """How a rank ended, None while it runs."""
    try:
        end: dict[str, Any] = json.loads(_ending(call, rank).read_text())
    except FileNotFoundError:
        return None
    return end


def _ending(call: Path, rank: int) -> Path:
    return call.with_suffix(f".rank-{rank}")


def _report_death(process: "subprocess.Popen[bytes]", call: Path, rank: int) -> dict[str, Any]:
    """What a rank that has ended said, or how it died."""
    return _report(call, rank, "died", error=f"died ({children.ending(process)})", traceback="", user=False)


def _name(thing: Any) -> str:
    if "." in thing.__qualname__ or "<" in thing.__qualname__:
        raise ValueError(
            f"ranks import what they run by name, and {thing.__qualname__} is not at the top of its module"
        )
    return f"{thing.__module__}:{thing.__qualname__}"


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _plain(value: Any) -> Any:
    return {"path": str(value.absolute())} if isinstance(value, Path) else value


def _revived(value: Any) -> Any:
    return Path(value["path"]) if isinstance(value, dict) and value.keys() == {"path"} else value


def _main() -> None:
    """One rank: run the function of a call and report how it ended."""
    path, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            preemption.request()

    try:
        for number in STOP:
            signal.signal(number, hear)
        _run(path, rank)
    except Preempted as stop:
        _report(path, rank, "preempted", saved=stop.saved)
    except UserError as error:
        _report_error(path, rank, error)
        sys.exit(1)
    except Exception as error:
        _report_error(path, rank, error)
        traceback.print_exc()
        sys.exit(1)


def _run(path: Path, rank: int) -> None:
    from common.training.distributed import joined

    call = json.loads(path.read_text())
    function, plain = _named(call["function"]), opened(_named(call["class"]))
    context = Context(**{key: _revived(value) for key, value in call["context"].items()})
    values = {key: _revived(value) for key, value in call["values"].items()}
    settings = OmegaConf.to_object(OmegaConf.merge(plain, call["settings"]))
    seed_everything(context.seed, context.cpus)
    with joined(call["patience"]):  # a rank that leaves makes the others fail: first the report
        try:
            result = function(settings, context, **values)
            _report(path, rank, "done", result=result if rank == 0 else None)
        except Preempted as stop:
            _report(path, rank, "preempted", saved=stop.saved)
        except Pruned:
            _report(path, rank, "pruned")
        except Exception as error:
            _report_error(path, rank, error)
            raise


def _report(call: Path, rank: int, how: str, **about: Any) -> dict[str, Any]:
    """Write how a rank ended, unless it said so before."""
    end = _end(call, rank) or {"how": how, "time": time.time(), **about}
    write_atomically(_ending(call, rank), json.dumps(end))
    return end


def _report_error(call: Path, rank: int, error: Exception) -> None:
    user = isinstance(error, UserError)
    line = str(error) if user else f"{type(error).__name__}: {error}"
    _report(call, rank, "failed", error=line, traceback=traceback.format_exc(), user=user)


if __name__ == "__main__":
    _main()
