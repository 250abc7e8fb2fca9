"""Trainings that are interrupted: a checkpoint after every step, and an exception out of the log."""

from collections.abc import Callable

import pytest

from common.training import folder, supervised


class Stop(Exception):
    """Raised amid a training."""


def save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, of every training in a folder."""

    def often(*args, **options) -> None:
        supervised.fit(*args, **{**options, "save_every": 0.0})

    monkeypatch.setattr(folder, "fit", often)


def stop_at(step: int) -> Callable[[str], None]:
    """A `say` that stops the training at the log line of a step; its checkpoint is that of the step before."""

    def say(line: str) -> None:
        if line.startswith(f"step {step} "):
            raise Stop

    return say
