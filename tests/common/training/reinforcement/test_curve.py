"""The learning curve of a policy in a cell's record: every number logged, its ends as metrics, episodes as items."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.experiments.context import Context
from common.training.reinforcement.curve import learning_curve
from common.training.reinforcement.train import CURVE, EPISODES


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A curve of twenty steps whose reward is the number of the step; the gap is told at two of them."""
    rows: list[dict[str, Any]] = [
        {"step": i, "reward": float(i), "reward.r1": i / 100, "entropy": 2.0, "turns": 3} for i in range(20)
    ]
    rows[4]["gap"], rows[9]["gap"] = 0.25, 0.75
    rows[0]["note"] = "first"
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / CURVE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = [{"step": step, "episodes": [{"group": group, "turns": []} for group in "ab"]} for step in (0, 19)]
    (folder / EPISODES).write_text("".join(json.dumps(row) + "\n" for row in kept))
    return folder


def test_every_number_is_logged_and_the_tenths_are_metrics(policy: Path, tmp_path: Path) -> None:
    found = learning_curve(policy, Context(0, tmp_path), "reward", "reward.r1", means=("gap", "kl"))
    assert found == {
        "reward_start": 0.5,
        "reward_end": 18.5,
        "r1_start": pytest.approx(0.005),
        "r1_end": pytest.approx(0.185),
        "gap": 0.5,
    }
    logged = lines_of(tmp_path / "metrics.jsonl")
    assert logged[0] == {"step": 0, "reward": 0.0, "reward.r1": 0.0, "entropy": 2.0, "turns": 3}
    assert logged[4]["gap"] == 0.25 and [line["step"] for line in logged] == list(range(20))


def test_a_curve_of_few_steps_has_ends_of_one(policy: Path, tmp_path: Path) -> None:
    curve = policy / CURVE
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:3]))
    assert learning_curve(policy, Context(0, tmp_path), "reward") == {"reward_start": 0.0, "reward_end": 2.0}


def test_episodes_are_items_those_before_training_first(policy: Path, tmp_path: Path) -> None:
    learning_curve(policy, Context(0, tmp_path))
    rows = lines_of(tmp_path / "items" / "episodes.jsonl")
    assert [(row["group"], row["step"]) for row in rows] == [("a", 0), ("b", 0), ("a", 19), ("b", 19)]
    assert rows[0] == {"step": 0, "group": "a", "turns": []}
