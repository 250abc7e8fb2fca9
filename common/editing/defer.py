"""DEFER, a baseline of GRACE (Hartvigsen et al., NeurIPS 2023; arXiv:2211.11031): a gate that defers to a small layer.

After SERAC (Mitchell et al., ICML 2022), with a linear scope classifier and a linear counterfactual model.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.editing.editor import Outcome, contextual, nbytes, one_by_one
from common.editing.fine_tuning import descend
from common.editing.hold import Hold, answer_loss, below_once
from common.editing.layers import matrix, value_layer
from common.editing.requests import Batch, EditRequest, batch_of

NAMES = ("gate.weight", "gate.bias", "values.weight", "values.bias")


class Defer:
    """DEFER: a gate g hands over from the layer f to a small layer o.

    Both are linear in the layer's input a at the last token of the prompt, and all tokens of the text get o(a):
    g o(a) + (1 - g) f(a) with g = σ(w·a + b) while an edit is trained, o(a) where g >= 0.5 afterwards.

    Args:
        layer: whose value layer is gated.
        lr: WISE, App. A.3: 7e-5. steps: 100 in GRACE's code. seed: of the initial weights.
        contexts: texts put before the prompt, beside the bare one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        layer: int,
        lr: float = 7e-5,
        steps: int = 100,
        seed: int = 0,
        contexts: Sequence[str] = (),
    ) -> None:
        self.number, self.layer = layer, value_layer(model, layer)
        self.hold = Hold(model, "DEFER")
        self.tokenizer, self.lr, self.steps, self.contexts = tokenizer, lr, steps, tuple(contexts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            narrow, wide = matrix(self.layer).shape
            self.gate = nn.Linear(wide, 1).to(model.device)
            self.values = nn.Linear(wide, narrow).to(model.device)
        self.parameters = [*self.gate.parameters(), *self.values.parameters()]
        self.edited = False
        self._training = False
        self.hold.hook(self.layer, self._answer)

    @property
    def extra_bytes(self) -> int:
        return nbytes(self.parameters)

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """Each request in turn; see `Editor.edit`."""
        return one_by_one(requests, self._edit)

    def rollback(self) -> None:
        self.hold.release()

    def state(self) -> dict[str, Tensor]:
        tensors = {name: p.detach().clone() for name, p in zip(NAMES, self.parameters, strict=True)}
        return tensors | {"edited": torch.tensor(self.edited)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.edited = bool(state["edited"])
        with torch.no_grad():
            for name, p in zip(NAMES, self.parameters, strict=True):
                p.copy_(state[name])

    def _edit(self, request: EditRequest) -> tuple[int, float]:
        batch = batch_of(self.tokenizer, contextual(request, self.contexts), self.hold.model.device)
        before = self.state()
        self.edited = self._training = True
        try:
            with below_once(self.hold.model, self.number):
                loss = partial(answer_loss, self.hold.model, batch)
                return descend(loss, self.parameters, "adam", self.lr, self.steps)
        except BaseException:
            self.load_state(before)
            raise
        finally:
            self._training = False

    def _answer(self, batch: Batch, inputs: Tensor, output: Tensor) -> Tensor:
        if not self.edited:
            return output
        query = inputs[torch.arange(len(inputs), device=inputs.device), batch.prompt - 1].float()
        gate = torch.sigmoid(self.gate(query))[:, :, None]  # [B, 1, 1]
        values = self.values(query)[:, None].to(output.dtype).expand_as(output)
        if self._training:
            mixed: Tensor = (gate * values + (1 - gate) * output).to(output.dtype)
            return mixed
        return torch.where(gate >= 0.5, values, output)
