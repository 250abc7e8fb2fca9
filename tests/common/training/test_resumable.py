"""A loop of one's own, stopped after any step and called again, equals the uninterrupted one to the bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.training import preemption, resumable
from common.training.preemption import CHECKPOINT, Preempted, heeding, request
from common.training.resumable import Resumable, Tensors

STEPS = 7
OPTIMIZERS = {
    "adafactor": lambda weights: torch.optim.Adafactor(weights, lr=0.1),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.1),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(preemption, "_requested", False)
    yield
    assert preemption._loops == 0


class Tied(nn.Module):
    """Two layers of one weight, dropout, and a running mean that no optimizer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.dropout = nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout(0.3)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(self.dropout(self.norm(self.one(x))))
        return found


@heeding()
def train(folder: Path | None, optimizer: str = "adafactor", stop_at: int = 0, save_every: float = 60.0) -> Tensors:
    """Losses of all steps, and the weights at the end, of a training that asks itself to stop after step `stop_at`."""
    torch.manual_seed(0)
    model, losses = Tied(), Tensors()
    steps = OPTIMIZERS[optimizer](model.parameters())
    parts = {"model": model, "optimizer": steps, "losses": losses}
    state = Resumable(folder, parts, {"optimizer": optimizer}, save_every)
    for step in range(state.done + 1, STEPS + 1):
        steps.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        steps.step()
        losses.append(loss.detach())
        if step == stop_at:
            request()
        state.after(step, last=step == STEPS)
    return Tensors([*losses, *model.state_dict().values()])


def equal(one: Tensors, other: Tensors) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop_at", [1, 4, STEPS])
def test_a_stopped_loop_goes_on_to_the_bit(tmp_path, optimizer, stop_at, monkeypatch):
    with pytest.raises(Preempted) as stop:
        train(tmp_path, optimizer, stop_at)
    assert stop.value.saved
    monkeypatch.setattr(preemption, "_requested", False)
    assert equal(train(tmp_path, optimizer), train(None, optimizer))


def test_a_killed_loop_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    def die(*args: object, **options: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        calls = iter([False, False, False])
        patch.setattr(resumable, "requested", lambda: next(calls, None) is None and die())
        train(tmp_path, save_every=0.0)
    drawn = []
    with monkeypatch.context() as patch:
        draw = torch.randn
        patch.setattr(torch, "randn", lambda *size: drawn.append(size) or draw(*size))
        found = train(tmp_path)
    assert len(drawn) == STEPS - 3
    assert equal(found, train(None))


def test_a_finished_loop_is_not_repeated_and_gives_the_same(tmp_path, monkeypatch):
    first = train(tmp_path)
    monkeypatch.setattr(torch.optim.Adafactor, "step", lambda self: pytest.fail("trained again"))
    assert equal(train(tmp_path), first)


def test_without_a_folder_a_stop_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(Preempted) as stop:
        train(None, stop_at=2)
    assert not stop.value.saved


def test_no_checkpoint_between_two_that_are_due(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Resumable, "_save", lambda self, folder, step: saved.append(step))
    train(tmp_path)
    assert saved == [STEPS]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(tmp_path, "adam")
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(ValueError, match="other settings"):
        train(tmp_path, "momentum")
