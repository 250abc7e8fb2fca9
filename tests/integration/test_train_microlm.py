"""`repro train-microlm` in two processes: killed or interrupted, it ends in the model of a run that nothing stopped."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Checkout, make_checkout

pytestmark = pytest.mark.integration

STEPS = 4


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(tmp_path_factory.mktemp("training") / "checkout")


def command(folder: Path) -> list[str]:
    small = ["--steps", str(STEPS), "--width", "32", "--layers", "2", "--processes", "2"]
    return ["train-microlm", "--out", str(folder), *small]


def log(folder: Path) -> list[dict[str, float]]:
    path = folder / "training.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def ranks_of(folder: Path) -> list[str]:
    """Command lines of the live processes that train into a folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in lines if "common.experiments.ranks" in line and str(folder) in line]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_stopped_training_leaves_no_process_and_ends_as_a_straight_one(
    number: signal.Signals, checkout: Checkout, straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    process = checkout.start(*command(folder))
    deadline = time.monotonic() + 120
    while not log(folder):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    assert len(ranks_of(folder)) == 2
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    while ranks_of(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (folder / "model.safetensors").exists()
    done = checkout.repro(*command(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert log(folder) == log(straight)
    assert (folder / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "model"
    done = checkout.repro(*command(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{STEPS} steps of 4,096 tokens" in done.stdout
    assert "is trained already" in checkout.repro(*command(folder)).stdout
    return folder
