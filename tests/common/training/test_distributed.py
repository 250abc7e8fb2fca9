"""Two ranks over gloo: the training of one process, gradients, resumption, and what becomes of a rank that fails."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from common.experiments.context import Context
from common.experiments.ranks import PATIENCE, RankError, together
from common.training.preemption import CHECKPOINT, Preempted
from common.training.supervised import Batch
from tests.common.training.in_ranks import STEPS, Work, die_in_one, everything, train

ROUNDING = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums in another order, over a few steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Preempted:
    """A training in two ranks of which the second is told to stop in its fourth step; the checkpoint stays."""
    (folder / "resumed").mkdir()
    with pytest.raises(Preempted) as stop:
        together(train, Work(stop_at=3), Context(5, folder, tasks=2), folder=folder / "resumed")
    return stop.value


@pytest.fixture(scope="module")
def found(folder: Path, stopped: Preempted) -> dict[str, Any]:
    """What two ranks found."""
    result: dict[str, Any] = together(everything, Work(), Context(5, folder, tasks=2), folder=folder)
    return result


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """The training in one process."""
    result: dict[str, Any] = together(train, Work(), Context(5, folder), folder=folder / "alone")
    return result


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "weights.safetensors")


def test_ranks_are_started_as_torchrun_would(found):
    assert found["ranks"] == [0, 2]
    assert found["variables"] == {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    assert found["threads"] == 1


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_gradients_are_the_mean_over_ranks_of_the_sum_over_micro_batches(found, kind):
    assert found["gradients"][kind] == [(1 + 10) * (1 + 5) / 2, (1 + 10) * (-3 + 7) / 2]


def test_ranks_agree(found):
    assert found["mean"] == (1 + 5) / 2
    assert found["any"] == [True, False, True]


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_two_ranks_train_as_one_process_does(found, alone, folder, kind):
    assert_close(weights(folder, kind), weights(folder, "alone"), **ROUNDING)
    assert len(found[kind]["figures"]) == STEPS
    for two, one in zip(found[kind]["figures"], alone["figures"], strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_a_rank_without_rows_takes_part_and_adds_nothing(found, folder):
    one = together(train, Work(rows=1), Context(5, folder), folder=folder / "one single")
    assert_close(weights(folder, "single"), weights(folder, "one single"), **ROUNDING)
    assert found["single rows"]["figures"][-1] == pytest.approx(one["figures"][-1], rel=1e-4)


def test_shards_are_halves(found, alone):
    assert found["replicated"]["held"] == alone["held"]
    assert alone["held"] / 2 <= found["sharded"]["held"] < 0.6 * alone["held"]


def test_ranks_stop_after_the_same_step_though_only_one_was_told(stopped, folder):
    ends = [(folder / "resumed" / f"stopped-{rank}").read_text() for rank in range(2)]
    assert ends == ["after step 3, saved True"] * 2


def test_a_stopped_training_goes_on_in_two_ranks_and_equals_the_uninterrupted_one(stopped, found, folder):
    assert stopped.saved
    assert len(found["resumed"]["figures"]) == STEPS - 4
    assert found["resumed"]["figures"] == found["replicated"]["figures"][4:]
    both = weights(folder, "resumed"), weights(folder, "replicated")
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[1])


def test_a_checkpoint_of_shards_is_that_of_copies(found, folder):
    assert_close(load_file(folder / "sharded" / CHECKPOINT), load_file(folder / "replicated" / CHECKPOINT), **ROUNDING)


def test_nothing_is_left_but_results(found, folder):
    assert not list(folder.glob(".ranks*"))


def test_a_rank_that_dies_ends_the_others(tmp_path):
    begin = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 of 2: died \(SIGKILL\)"):
        together(die_in_one, Work(), Context(0, tmp_path, tasks=2))
    assert time.monotonic() - begin < PATIENCE / 2
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    assert "common.experiments.ranks" not in "".join(
        Path(f"/proc/{child}/cmdline").read_text() for child in children.split()
    )


def test_rows_are_dealt_out_in_turn():
    batch = Batch(torch.arange(6).view(3, 2), torch.ones(3, 2))
    assert [batch.share(i, 2).ids.tolist() for i in range(2)] == [[[0, 1], [4, 5]], [[2, 3]]]
    assert batch.share(0, 1).ids is not None and torch.equal(batch.share(0, 1).ids, batch.ids)
    assert batch.share(3, 4).weights.tolist() == [[0, 0]]


def test_ranks_import_what_they_run(tmp_path):
    with pytest.raises(ValueError, match="not at the top of its module"):
        together(lambda settings, context: None, Work(), Context(0, tmp_path, tasks=2))
