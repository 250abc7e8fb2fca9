"""Child processes that end with us: when we say so, when we are done, and when we are killed."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

_prctl, _PDEATHSIG = ctypes.CDLL(None).prctl, 1  # Linux


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[Any] | None = None,
    at_our_death: signal.Signals = signal.SIGKILL,
    deaf_to: Sequence[signal.Signals] = (),
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process.

    Args:
        environment: variables beside ours.
        output: where its standard output and error go; None: where ours do.
        at_our_death: the signal it gets when the thread that started it is gone.
        deaf_to: signals that it ignores until it asks for them.
        own_group: lead a process group, out of reach of signals to ours.
    """
    return subprocess.Popen(
        command,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output and subprocess.STDOUT,
        start_new_session=own_group,
        preexec_fn=_prepared(os.getpid(), at_our_death, deaf_to),
    )


def _prepared(parent: int, at_its_death: signal.Signals, deaf_to: Sequence[signal.Signals]) -> Callable[[], None]:
    def prepare() -> None:
        for number in deaf_to:
            signal.signal(number, signal.SIG_IGN)
        _prctl(_PDEATHSIG, at_its_death)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return prepare


def stop(process: subprocess.Popen[bytes], gently: float = 15.0) -> None:
    """End the leader of a process group and all that it started; `gently`: seconds it has before it is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(gently)
        except subprocess.TimeoutExpired:
            continue
    process.wait(gently)


def ending(process: subprocess.Popen[bytes]) -> str:
    """How an ended process ended, for people: `exit code 1`, `SIGKILL`."""
    code = process.wait()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
