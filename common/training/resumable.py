"""A training loop of one's own that can be stopped and go on: all that its next step depends on, in one file.

`fit` draws data and dropout of a step from its number. A loop that draws from torch's global generators keeps their
state too, beside its parts:

    @heeding()
    def train(model, optimizer, order, steps, folder):
        state = Resumable(folder, {"model": model, "optimizer": optimizer, "order": order}, {"steps": steps})
        for step in range(state.done, steps):
            ...
            state.after(step + 1, last=step + 1 == steps)

A loop that is stopped and called again equals the uninterrupted one, to the bit on a CPU. One process, not ranks.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from common.files import replacing
from common.training.preemption import CHECKPOINT, Preempted, requested


class Stateful(Protocol):
    """What else a loop changes: the order of its data, what it has found so far."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class Tensors(list[Tensor]):
    """A growing list of tensors, as a part of a loop."""

    def state_dict(self) -> dict[str, Tensor]:
        return {str(i): tensor for i, tensor in enumerate(self)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self[:] = [state[str(i)] for i in range(len(state))]


class Resumable:
    """Parts of a loop, restored in place from the checkpoint of `folder` where it holds one.

    Args:
        folder: None for no checkpoint.
        parts: by name. The file holds their tensors and the state of torch's global generators.
        settings: plain values that the loop depends on.
        save_every: seconds between checkpoints.

    Attributes:
        done: steps done by earlier attempts.

    Raises:
        ValueError: the checkpoint is of a loop of other settings.
    """

    def __init__(
        self,
        folder: Path | None,
        parts: Mapping[str, nn.Module | Optimizer | Stateful],
        settings: Mapping[str, Any],
        save_every: float = 60.0,
    ) -> None:
        self._folder, self._parts, self._save_every = folder, parts, save_every
        self._settings = json.dumps(settings, sort_keys=True)
        self.done = self._load()
        self._saved = time.monotonic()

    def after(self, step: int, last: bool) -> None:
        """Say that `step` steps are done; saves when it is time, at the last, and on request.

        Raises:
            Preempted: a stop was requested; the checkpoint holds every step.
        """
        stop = requested()
        if self._folder is not None and (stop or last or time.monotonic() - self._saved > self._save_every):
            self._save(self._folder, step)
            self._saved = time.monotonic()
        if stop:
            raise Preempted(saved=self._folder is not None)

    def _save(self, folder: Path, step: int) -> None:
        tensors = {f"generators.{name}": state for name, state in _generators().items()}
        for part, value in self._parts.items():
            for name, tensor in _tensors(value).items():
                tensors[f"{part}.{name}"] = tensor.detach().cpu().contiguous()
        with replacing(folder / CHECKPOINT) as partial:
            save_file(tensors, partial, metadata={"done": str(step), "settings": self._settings})

    def _load(self) -> int:
        if self._folder is None or not (path := self._folder / CHECKPOINT).exists():
            return 0
        with safe_open(path, framework="pt") as file:
            head = file.metadata()
        if head["settings"] != self._settings:
            raise ValueError(f"{path} is a checkpoint of other settings: {head['settings']}, not {self._settings}")
        found: dict[str, dict[str, Tensor]] = {part: {} for part in ("generators", *self._parts)}
        for name, tensor in load_file(path).items():
            part, _, rest = name.partition(".")
            found[part][rest] = tensor
        for part, value in self._parts.items():
            _restore(value, found[part])
        _restore_generators(found["generators"])
        return int(head["done"])


def _tensors(part: nn.Module | Optimizer | Stateful) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):  # tied weights once
        return {**dict(part.named_parameters()), **dict(part.named_buffers())}
    if isinstance(part, Optimizer):
        states = part.state_dict()["state"].items()
        return {f"{i}.{name}": value for i, state in states for name, value in state.items()}
    return part.state_dict()


def _restore(part: nn.Module | Optimizer | Stateful, tensors: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        with torch.no_grad():
            for name, tensor in _tensors(part).items():
                tensor.copy_(tensors[name])
    elif isinstance(part, Optimizer):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            i, _, key = name.partition(".")
            state.setdefault(int(i), {})[key] = tensor
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
    else:
        part.load_state_dict(tensors)


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {str(i): state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states.pop("cpu"))
    for i, state in states.items():
        torch.cuda.set_rng_state(state, int(i))
