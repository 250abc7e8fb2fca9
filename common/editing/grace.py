"""GRACE (Hartvigsen et al., NeurIPS 2023; arXiv:2211.11031): a codebook of balls in the inputs of one layer.

The key of a text is the layer's input at the last token of the prompt. A key within the ball of a codebook entry makes
the layer give that entry's value there in place of its own output; every other text passes untouched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from common.editing.editor import Outcome, nbytes, one_by_one
from common.editing.fine_tuning import descend
from common.editing.hold import Hold, answer_loss, below_once, captured, target_logits
from common.editing.layers import value_layer
from common.editing.requests import Batch, EditRequest, batch_of

GAP = 1e-5  # by which split balls stay apart; of the official code


@dataclass
class Codebook:
    """Balls of keys (Alg. 1), each with a label and a value: n entries.

    Attributes:
        keys: [n, D]. radii: [n]. values: [n, H].
        labels: token ids of each entry's target.
    """

    keys: Tensor
    radii: Tensor
    values: Tensor
    labels: list[tuple[int, ...]] = field(default_factory=list)

    def nearest(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to, and number of, the nearest key of each query, [B] each, from [B, D]."""
        found = torch.cdist(query.float(), self.keys, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        return found.values, found.indices

    def place(self, key: Tensor, label: tuple[int, ...], value: Tensor, radius: float) -> "tuple[Codebook, int]":
        """The codebook with room for an edit, and the entry that shall learn it (Alg. 1).

        - Further than its radius plus `radius` from the nearest key: a new ball of `radius`.
        - At the key itself, with another label: an edit of the edit, whose entry learns anew.
        - Nearer, with another label: a new ball, and both get half the distance as radius.
        - Nearer, with the same label: the nearest ball grows to reach the key.
        """
        if not self.labels:
            return self._with(key, label, value, radius), 0
        distances, numbers = self.nearest(key[None])
        distance, number = float(distances[0]), int(numbers[0])
        if distance > radius + float(self.radii[number]):
            return self._with(key, label, value, radius), len(self.labels)
        if label != self.labels[number] and distance <= 2 * GAP:  # no room for two balls
            values, labels = self.values.clone(), [*self.labels]
            values[number], labels[number] = value.float(), label
            return Codebook(self.keys, self.radii, values, labels), number
        if label != self.labels[number]:
            grown = self._with(key, label, value, distance / 2)
            grown.radii[number] = distance / 2 - GAP
            return grown, len(self.labels)
        radii = self.radii.clone()
        radii[number] = max(distance, float(radii[number]))
        return Codebook(self.keys, radii, self.values, self.labels), number

    def _with(self, key: Tensor, label: tuple[int, ...], value: Tensor, radius: float) -> "Codebook":
        return Codebook(
            torch.cat([self.keys, key[None].float()]),
            torch.cat([self.radii, self.radii.new_tensor([radius])]),
            torch.cat([self.values, value[None].float()]),
            [*self.labels, label],
        )


class Grace:
    """GRACE.

    Args:
        layer: whose value layer answers from the codebook.
        radius: ε_init; 1.0 in the code of WISE's editors.
        lr, steps: WISE, App. A.3: lr 1.0; Adam as in the official code, whose experiments take 100 steps.
        stop: loss at which an edit ends early; 0 for a fixed number of steps.

    Contexts are of no use here: only the bare prompt becomes a key.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        layer: int,
        radius: float = 1.0,
        lr: float = 1.0,
        steps: int = 100,
        stop: float = 0.0,
    ) -> None:
        self.number, self.layer = layer, value_layer(model, layer)
        self.hold = Hold(model, "GRACE")
        self.tokenizer, self.radius, self.lr, self.steps, self.stop = tokenizer, radius, lr, steps, stop
        empty = torch.zeros(0, device=model.device)
        self.book = Codebook(empty[:, None], empty, empty[:, None])
        self.hold.hook(self.layer, self._answer)

    @property
    def extra_bytes(self) -> int:
        return nbytes([self.book.keys, self.book.radii, self.book.values])

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """Each request in turn; see `Editor.edit`."""
        return one_by_one(requests, self._edit)

    def rollback(self) -> None:
        self.hold.release()

    def state(self) -> dict[str, Tensor]:
        widest = max(map(len, self.book.labels), default=0)
        labels = [[*label, *[-1] * (widest - len(label))] for label in self.book.labels]
        tensors = {"keys": self.book.keys, "radii": self.book.radii, "values": self.book.values}
        return {name: t.clone() for name, t in tensors.items()} | {"labels": torch.tensor(labels, dtype=torch.long)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        labels = [tuple(int(i) for i in row if i >= 0) for row in state["labels"]]
        self.book = Codebook(state["keys"], state["radii"], state["values"], labels)

    def _edit(self, request: EditRequest) -> tuple[int, float]:
        batch = batch_of(self.tokenizer, [(request.prompt, request.target)], self.hold.model.device)
        with torch.no_grad(), captured(self.hold.model, [self.layer]) as found:
            target_logits(self.hold.model, batch)
        last = int(batch.prompt[0]) - 1
        key, value = found[0][0][0, last], found[0][1][0, last]  # the present output: "warm" start, our choice
        before = self.book
        if not self.book.labels:
            self.book = Codebook(
                key.new_zeros(0, len(key)).float(), self.book.radii, value.new_zeros(0, len(value)).float()
            )
        self.book, number = self.book.place(key, tuple(batch.targets.tolist()), value, self.radius)
        trained = self.book.values[number].clone().requires_grad_(True)
        kept = self.book.values

        def loss() -> Tensor:
            self.book.values = torch.cat([kept[:number], trained[None], kept[number + 1 :]])
            return answer_loss(self.hold.model, batch)

        try:
            with below_once(self.hold.model, self.number):
                taken, last_loss = descend(loss, [trained], "adam", self.lr, self.steps, self.stop)
        except BaseException:
            self.book = before
            raise
        self.book.values = torch.cat([kept[:number], trained.detach()[None], kept[number + 1 :]])
        return taken, last_loss

    def _answer(self, batch: Batch, inputs: Tensor, output: Tensor) -> Tensor:
        if not self.book.labels:
            return output
        rows, last = torch.arange(len(output), device=output.device), batch.prompt - 1
        distances, numbers = self.book.nearest(inputs[rows, last])
        inside = distances <= self.book.radii[numbers]
        answered = output.clone()
        chosen = self.book.values[numbers].to(output.dtype)
        answered[rows, last] = torch.where(inside[:, None], chosen, output[rows, last])
        return answered
