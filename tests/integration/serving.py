"""A real `vllm serve` on loopback, at a free port, shut down whatever happens."""

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
PRCTL, PR_SET_PDEATHSIG = ctypes.CDLL(None).prctl, 1
PATIENCE = 420  # seconds that a server may take to answer; alone on two cores it takes 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(folder: Path, log: Path, context: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """URL and process (leader of its own group) of a server of the model in `folder`, named `model`."""
    port = free_port()
    command = [str(VLLM), "serve", str(folder), "--served-model-name", "model", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"]
    command += ["--kv-cache-memory-bytes", "500000000", "--load-format", "safetensors"]
    command += ["--compilation-config", '{"custom_ops": ["-rotary_embedding"]}']  # see common/models/vllm_lm.py
    command += [] if context is None else ["--max-model-len", str(context)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True, preexec_fn=_end_with_its_parent
        )
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        stop(process)


def _end_with_its_parent() -> None:
    """Also when the tests are killed outright, so that no `finally` runs."""
    PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes], gently: float = 15) -> None:
    """End a server and all that it started."""
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


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    raise RuntimeError(f"vllm serve did not come up:\n{log.read_text()[-4000:]}")
