"""`repro train-microlm` in two processes: killed or interrupted, it ends in the model of a run that nothing stopped."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from common.training.preemption import CHECKPOINT
from tests.conftest import PATIENCE, Checkout, make_checkout

pytestmark = pytest.mark.integration

STEPS = 8  # from the line of the first, seconds are left to end the others


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


def ranks_of(checkout: Checkout) -> int:
    """Live processes that train for commands of a checkout."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = (process / "cwd").readlink() == checkout.root
            count += ours and b"common.experiments.ranks" in (process / "cmdline").read_bytes()
        except OSError:
            continue
    return count


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stopped_training_leaves_no_process_and_ends_as_a_straight_one(
    number: signal.Signals, checkout: Checkout, straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    process = checkout.start(*command(folder))
    deadline = time.monotonic() + PATIENCE
    while not log(folder):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    assert ranks_of(checkout) == 2
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    while ranks_of(checkout):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (folder / "model.safetensors").exists()
    saved = number == signal.SIGTERM
    assert (folder / "checkpoint" / CHECKPOINT).exists() == saved
    assert ("stopped; the same command goes on from there" in err) == saved
    done = checkout.repro(*command(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("step "))
    assert (first.split()[1] == "1") != saved
    assert log(folder) == log(straight)
    assert (folder / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in straight.iterdir())


def test_what_the_ranks_refuse_is_one_line(checkout: Checkout, straight: Path) -> None:
    other = checkout.repro(*command(straight), "--schedule", "base")
    assert other.returncode == 2
    assert "is of another recipe; train into another folder" in other.stderr
    assert "Traceback" not in other.stdout + other.stderr


@pytest.fixture(scope="module")
def straight(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "model"
    done = checkout.repro(*command(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{STEPS} steps of 4,096 tokens" in done.stdout
    assert "is trained already" in checkout.repro(*command(folder)).stdout
    return folder
