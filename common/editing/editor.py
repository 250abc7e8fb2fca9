"""The protocol of editors: write facts into a language model, undo, keep and bring back what was written.

    editor = Rome(model, tokenizer, layer=5, moment=moment)
    outcomes = editor.edit([EditRequest("Question: Where was Ada born? Answer:", " Rome", subject="Ada")])
    save(editor, path)          # later, on the same base model: load(editor, path)
    editor.rollback()           # the model is as it was, and free for another editor

Requests of one call are written one after the other, unless an editor says that it takes them together. An edit whose
loss is not finite is given up alone: the model is as before it, its outcome says so, and the next one is tried.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.editing.hold import Hold
from common.editing.requests import EditRequest, check_requests


@dataclass(frozen=True)
class Outcome:
    """One edit.

    Attributes:
        steps: gradient steps. loss: the last one's, in nats. seconds: wall time.
        failed: why it was given up; empty when it was made.
    """

    steps: int
    loss: float
    seconds: float
    failed: str = ""


class Editor(Protocol):
    """Anything that edits a model in place.

    Attributes:
        hold: its hold on the model, with the model itself.
        extra_bytes: what the edited model needs beside the base model's weights, bytes.
    """

    hold: Hold

    @property
    def extra_bytes(self) -> int: ...

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """Write the requests. UserError for contradictory ones; none at all change nothing."""
        ...

    def rollback(self) -> None:
        """Undo all edits and give the model back; the editor is of no use afterwards."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that was written, as tensors."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what `state` gave, on the same base model."""
        ...


def save(editor: Editor, path: Path) -> None:
    """Write what was edited to a safetensors file, with the identity of base model and editor."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in editor.state().items()}
    save_file(state | {"base": _digits(editor.hold.identity)}, path)


def load(editor: Editor, path: Path) -> None:
    """Bring saved edits back.

    Raises:
        ValueError: they were made on other weights, by another editor or on other layers.
    """
    state = load_file(path)
    if not torch.equal(state.pop("base"), _digits(editor.hold.identity)):
        raise ValueError(f"{path} was edited from other weights, by another editor or on other layers")
    editor.load_state({name: tensor.to(editor.hold.model.device) for name, tensor in state.items()})


def _digits(identity: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(identity)), dtype=torch.uint8)


def one_by_one(requests: Sequence[EditRequest], edit: Callable[[EditRequest], tuple[int, float]]) -> list[Outcome]:
    """Edit in turn.

    Args:
        edit: makes one edit and gives its steps and last loss. It raises FloatingPointError when the loss is not
            finite, and then has left everything as before.
    """
    check_requests(requests)
    outcomes = []
    for request in requests:
        start = time.perf_counter()
        try:
            steps, loss = edit(request)
            outcomes.append(Outcome(steps, loss, time.perf_counter() - start))
        except FloatingPointError as error:
            outcomes.append(Outcome(0, 0.0, time.perf_counter() - start, str(error)))
    return outcomes


def finite(loss: Tensor) -> float:
    """The loss as a number; FloatingPointError when it is none."""
    value = loss.item()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {value}")
    return value


def contextual(request: EditRequest, contexts: Sequence[str]) -> list[tuple[str, str]]:
    """The request bare and after each context: `context + " " + prompt`, all with the same target."""
    prompts = [request.prompt, *(f"{context} {request.prompt}" for context in contexts)]
    return [(prompt, request.target) for prompt in prompts]


def nbytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


class WeightState:
    """What editors that change weights have in common: they keep nothing but the weights that they own."""

    def __init__(self, model: Any, owner: str, owned: Sequence[str]) -> None:
        self.hold = Hold(model, owner, owned)

    @property
    def extra_bytes(self) -> int:
        """None: edits stand in the weights."""
        return 0

    def rollback(self) -> None:
        self.hold.release()

    def state(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.hold.owned.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.hold.write(dict(state))
