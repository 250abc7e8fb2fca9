"""Servers of vLLM that this process starts for itself: `backend: served` of `LanguageModelSettings`.

    lm = build(LanguageModelSettings(backend="served", name="microlm"))     # in a cell: ended with the cell
    with served(settings) as url:                                           # anywhere: ended with the block

One process holds the model and batches all requests to it, in the same allocation as the cell and on its GPUs; on a CPU
it needs no vLLM in the cell's own environment. A server listens on loopback, on a free port, and wants a key that only
this process knows, so that no other cell of the node reaches it, or is reached, by mistake. It ends when it is told to,
when this process ends, and when this process is killed.
"""

import atexit
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from common import children
from common.experiments.errors import UserError
from common.models.hub import located
from common.models.settings import LanguageModelSettings, place

KEY = "REPRO_SERVER_KEY"  # environment variable with the key of all servers of this process
PATIENCE = 1800.0  # seconds that a server may take to load its model
LOOK = 0.5  # seconds between two looks whether it answers
TRIES = 3  # ports, where another process takes one before the server does
INSTALL = "no vLLM here to serve '{}': pip install -e '.[vllm]' (GPU), or `make vllm` (CPU)"


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: of the protocol's root.
        output: what it wrote.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    def end(self) -> None:
        """End it and all its processes; the last lines of one that ended by itself go to standard error."""
        if self.process.poll() is not None:
            print(f"vllm serve had ended by itself: {_last_words(self.process, self.output)}", file=sys.stderr)
        children.stop(self.process)
        self.output.close()


_running: dict[tuple[Any, ...], Server] = {}


def url_of(settings: LanguageModelSettings, patience: float = PATIENCE) -> str:
    """URL of this process's server of a model: started where there is none, then used by all who ask.

    It runs until `end_all`, which closes every cell, or the end of the process.
    """
    s = settings
    key = (s.name, s.revision, s.dtype, s.context, s.memory, s.gpus)
    if key in _running and _running[key].process.poll() is not None:
        _running.pop(key).end()
    if key not in _running:
        _running[key] = start(settings, None, patience)
    return _running[key].url


@atexit.register
def end_all() -> None:
    """End the servers of `url_of`."""
    while _running:
        _running.popitem()[1].end()


@contextmanager
def served(settings: LanguageModelSettings, log: Path | None = None, patience: float = PATIENCE) -> Iterator[str]:
    """URL of a server of the model in the block; the variable `KEY` holds its key. See `start`."""
    server = start(settings, log, patience)
    try:
        yield server.url
    finally:
        server.end()


def start(settings: LanguageModelSettings, log: Path | None = None, patience: float = PATIENCE) -> Server:
    """Start a server and wait until it answers.

    Args:
        settings: of which `name`, `revision`, `dtype`, `context`, `memory` and `gpus` say what is served, and how.
        log: where its output goes; None: to a file without a name, whose end is shown when it dies.
        patience: seconds that it may take.

    Raises:
        UserError: no vLLM here, or no such model.
        RuntimeError: the server died, or took longer; with the last lines of its output.
    """
    program = vllm_program()
    if program is None:
        raise UserError(INSTALL.format(settings.name))
    folder, _, _ = located(place(settings.name), settings.revision or None)
    os.environ.setdefault(KEY, secrets.token_hex(16))
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": os.environ[KEY]}
    command = [program, *options(settings, folder)]
    for _ in range(TRIES - 1):
        with suppress(_PortTaken):
            return _start(command, environment, log, patience)
    return _start(command, environment, log, patience)


class _PortTaken(RuntimeError):
    """Another process listens where a server was to."""


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path | None, patience: float) -> Server:
    port = _free_port()
    output: IO[bytes] = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115
    process = children.start(
        [*command, "--port", str(port)],
        environment=environment,
        output=output,
        at_our_death=signal.SIGTERM,
        own_group=True,
    )
    server = Server(f"http://127.0.0.1:{port}/v1", process, output)
    try:
        _await(server, patience)
    except BaseException:
        children.stop(process)
        output.close()
        raise
    return server


def options(settings: LanguageModelSettings, folder: Path) -> list[str]:
    """Arguments of `vllm` that serve the model in `folder` as `VllmLM` would load it."""
    import torch

    from common.models.vllm_lm import CPU_OPERATORS

    s, cpu = settings, not torch.cuda.is_available()
    chosen: dict[str, Any] = {
        "served-model-name": s.name,
        "host": "127.0.0.1",
        "dtype": s.dtype,
        "load-format": "safetensors",
        "generation-config": "vllm",
    }
    if s.context:
        chosen["max-model-len"] = s.context
    if s.memory or cpu:
        chosen["kv-cache-memory-bytes"] = int((s.memory or 0.5) * 1e9)
    if s.gpus > 1:
        chosen["tensor-parallel-size"] = s.gpus
    if cpu:
        chosen["compilation-config"] = json.dumps(CPU_OPERATORS)
    arguments = [text for name, value in chosen.items() for text in (f"--{name}", str(value))]
    return ["serve", str(folder), *arguments, *(["--enforce-eager"] if cpu else [])]


def vllm_program() -> str | None:
    """The `vllm` on PATH, of this environment, or in .venv-vllm beside it; None where there is none."""
    here = Path(sys.prefix)
    places = [os.environ.get("PATH", os.defpath), str(here / "bin"), str(here.with_name(".venv-vllm") / "bin")]
    return shutil.which("vllm", path=os.pathsep.join(places))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(server: Server, patience: float) -> None:
    """Return once the server lists its models to whoever has our key."""
    deadline = time.monotonic() + patience
    request = urllib.request.Request(f"{server.url}/models", headers={"Authorization": f"Bearer {os.environ[KEY]}"})
    while server.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise _PortTaken(f"another server answers at {server.url}") from None
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"vllm serve did not answer in {patience:g} s: {_last_lines(server.output)}")
        time.sleep(LOOK)
    words = _last_words(server.process, server.output)
    kind = _PortTaken if "address already in use" in words.lower() else RuntimeError
    raise kind(f"vllm serve did not come up: {words}")


def _last_words(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> str:
    return f"{children.ending(process)}\n{_last_lines(output)}"


def _last_lines(output: IO[bytes], count: int = 15) -> str:
    """The end of what a server wrote; its own place in the file stays as it is."""
    size = os.fstat(output.fileno()).st_size
    text = os.pread(output.fileno(), 8192, max(0, size - 8192)).decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-count:])
