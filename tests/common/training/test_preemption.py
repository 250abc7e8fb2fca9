"""A request to stop: heard between two steps where a loop listens, at once where none does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.experiments.context import Context
from common.training import preemption
from common.training.preemption import CHECKPOINT, Preempted, heeding, request, requested
from tests.common.training.test_supervised import Steps, trained


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(preemption, "_requested", False)
    yield
    assert preemption._loops == 0


def test_without_a_loop_a_request_ends_the_run_at_once() -> None:
    with pytest.raises(Preempted) as stop:
        request()
    assert not stop.value.saved and not isinstance(stop.value, Exception)


def test_a_loop_hears_a_request_when_it_asks() -> None:
    done = []

    @heeding()
    def train() -> None:
        for step in range(5):
            done.append(step)
            if step == 2:
                request()
                done.append(-1)  # the step is finished
            if requested():
                raise Preempted(saved=True)

    with pytest.raises(Preempted) as stop:
        train()
    assert done == [0, 1, 2, -1] and stop.value.saved


def test_a_request_after_the_last_question_is_not_forgotten() -> None:
    with pytest.raises(Preempted), heeding():
        request()


def test_a_builder_goes_on_from_the_checkpoint_that_a_stopped_one_left(tmp_path: Path) -> None:
    context, starts = Context(seed=0, folder=tmp_path), []

    def build(folder: Path) -> None:
        starts.append(sorted(path.name for path in folder.iterdir()))
        if len(starts) < 3:
            (folder / (CHECKPOINT if len(starts) == 2 else "half")).touch()
            raise Preempted(saved=True)

    for _ in range(2):
        with pytest.raises(Preempted):
            context.artifact("piece", {}, build)
    context.artifact("piece", {}, build)
    assert starts == [[], [], [CHECKPOINT]]  # what is no checkpoint is not trusted


def test_fit_loses_no_step_to_a_requested_stop_and_the_next_run_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(step: int, figures: dict[str, float]) -> None:
        if step == 3:
            request()

    with pytest.raises(Preempted) as stopped:
        trained(Steps(), folder=tmp_path, on_step=stop)
    assert stopped.value.saved
    monkeypatch.setattr(preemption, "_requested", False)
    resumed = trained(Steps(), folder=tmp_path, on_step=lambda step, figures: seen.append(step))
    whole = trained(Steps())
    assert seen == [4, 5]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
