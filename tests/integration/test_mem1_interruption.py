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

STEPS = 12
CELL = f"""
import sys
import time
from pathlib import Path
import torch
from common.experiments.context import Context
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.scratch import Size
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from common.training.reinforcement import policy
from common.training.reinforcement.settings import Reinforcement
from projects.mem1 import run as cell
from projects.mem1.settings import *

torch.set_num_threads(1)
train, last = policy.train, int(sys.argv[2])


def until_killed(*arguments, on_step, **others):
    def step(line, episodes):
        on_step(line, episodes)
        time.sleep(600.0 if line["step"] == last else 0.0)

    train(*arguments, on_step=step, save_every=0.0, **others)


policy.train = until_killed
core = Reinforcement("ppo", steps={STEPS}, mini_batches=2, kl="reward", kl_estimator="k1_positive", kl_coef=0.01)
settings = Settings(
    base="scratch",
    scratch=Size(width=32, layers=2, inner=32),
    lm=LanguageModelSettings("", device="cpu"),
    questions=Questions(count=1),
    world=TextWorld(style="notes", worlds=2),
    rules=Rules(turn_tokens=8, instructed=False),
    taught=Teaching(24, dict(TEACHERS)),
    tuning=Tuning(steps=4, step_tokens=256, replay=0.0, warmup=1),
    skills=Skills([2], 1, [0.0], 0.0, [0.0]),
    sft=Imitation(tuning=Tuning(replay=0.0)),
    rl=Learning(tasks=4, core=core),
)
folder = Path(sys.argv[1])
cell.run(settings, Context(seed=0, folder=folder / "cell", artifacts=folder / "artifacts"))
"""


def start(folder: Path, last: int = -1) -> subprocess.Popen[str]:
    """The cell, which waits for its end after step `last`."""
    command = [sys.executable, "-c", CELL, str(folder), str(last)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(folder: Path) -> None:
    process = start(folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def lines(folder: Path) -> list[dict[str, float]]:
    """The curve so far, without its times."""
    found = [path.read_text() for path in folder.glob("artifacts/policy-*/curve.jsonl")]
    read = [json.loads(line) for line in (found[0] if found else "").splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_seconds")} for line in read]


def written(folder: Path, name: str) -> bytes:
    [path] = folder.glob(f"artifacts/policy-*/{name}")
    return path.read_bytes()


def test_kill_nine_amid_reinforcement_then_the_same_curve_to_the_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole)
    for step in (2, 6):
        process = start(killed, step)
        deadline = time.monotonic() + 300
        while len(lines(killed)) <= step:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(lines(killed)) == step + 1
    finish(killed)
    assert lines(killed) == lines(whole)
    assert len(lines(whole)) == STEPS
    assert written(killed, "model.safetensors") == written(whole, "model.safetensors")
    assert written(killed, "episodes.jsonl") == written(whole, "episodes.jsonl")
