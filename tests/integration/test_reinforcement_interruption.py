"""A policy whose training is killed learns on as if nothing had happened: the same curve and weights, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

STEPS = 8
CELL = """
import importlib
import sys
import time
from pathlib import Path
import torch
from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.settings import to_settings
from common.training.reinforcement import policy

torch.set_num_threads(1)
paper, row, last, folders, *overrides = sys.argv[1:]
train = policy.train


def until_killed(*arguments, on_step, **others):
    def step(line, episodes):
        on_step(line, episodes)
        time.sleep(600.0 if line["step"] == int(last) else 0.0)

    train(*arguments, on_step=step, save_every=0.0, **others)


policy.train = until_killed
[cell, *_] = compose_table(f"{paper}/headline", "tiny", overrides).cells([row], seeds=[0])
for folder in map(Path, folders.split(":")):
    context = Context(seed=0, folder=folder / "cell", artifacts=folder / "artifacts")
    importlib.import_module(f"projects.{paper}.run").rl(to_settings(paper, cell.settings), context)
"""
CELLS = {
    "mem1": [  # PPO with a critic, the distance to the base in the reward
        "settings.scratch={width: 32, layers: 2, inner: 32}",
        "settings.taught.count=24",
        "settings.tuning={steps: 4, step_tokens: 256, warmup: 1}",
        "settings.longer.count=0",
        "settings.answering.count=0",
        "settings.skills={objectives: [2], tasks: 1, state: [0], query: 0, answer: [0]}",
        "settings.world.worlds=2",
        "settings.rules.turn_tokens=8",
        "settings.rl={tasks: 4, gate: [0, 1]}",
    ],
    "mem_alpha": [  # GRPO over the turns of an instance, from the writer that ships
        "settings.gate={count: 1, oracle: 0, empty: 1}",
        "settings.rules.turn_tokens=24",
        "settings.rl={instances: 1, rollouts: 4, questions: 1}",
    ],
}


def start(paper: str, *folders: Path, last: int = -1) -> subprocess.Popen[str]:
    """The training of a policy in each folder; it waits for its end after step `last`."""
    names = ":".join(map(str, folders))
    overrides = [*CELLS[paper], f"settings.rl.core.steps={STEPS}"]
    command = [sys.executable, "-c", CELL, paper, paper, str(last), names, *overrides]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def lines(folder: Path) -> list[dict[str, float]]:
    """The curve so far, without its times."""
    found = [path.read_text() for path in folder.glob("artifacts/policy-*/curve.jsonl")]
    read = [json.loads(line) for line in (found[0] if found else "").splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_seconds")} for line in read]


def written(folder: Path, name: str) -> bytes:
    [path] = folder.glob(f"artifacts/policy-*/{name}")
    return path.read_bytes()


@pytest.mark.parametrize("paper", CELLS)
def test_kill_nine_amid_reinforcement_then_the_same_curve_to_the_bit(paper, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for step in (2, 5):
        process = start(paper, killed, last=step)
        deadline = time.monotonic() + 300
        while len(lines(killed)) <= step:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(lines(killed)) == step + 1
    process = start(paper, killed, whole)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert lines(killed) == lines(whole)
    assert len(lines(whole)) == STEPS and all(line["grad_norm"] > 0 for line in lines(whole))
    assert written(killed, "model.safetensors") == written(whole, "model.safetensors")
    assert written(killed, "episodes.jsonl") == written(whole, "episodes.jsonl")
