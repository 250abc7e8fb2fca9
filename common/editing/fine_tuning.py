"""Fine-tuning one value matrix on each edit: FT-L, and FT-EWC, which pulls at what earlier edits needed.

FT-L: Zhu et al. (arXiv:2012.00363), as ROME (arXiv:2202.05262) and WISE (App. A.3) set it: Adam, a fixed number of
steps, every weight kept within an L∞ ball around its value before the edit. FT-EWC: Kirkpatrick et al. (PNAS 2017) in
the sequential form of GRACE (arXiv:2211.11031): the Fisher information comes from the latest edits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.editing.editor import Outcome, WeightState, contextual, finite, one_by_one
from common.editing.hold import answer_loss, below_once
from common.editing.layers import value_layer, value_name
from common.editing.requests import Batch, EditRequest, batch_of

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def descend(
    loss_of: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    optimizer: str,
    lr: float,
    steps: int,
    stop: float = 0.0,
    after: Callable[[], None] | None = None,
) -> tuple[int, float]:
    """Minimise a loss over leaf tensors; the steps taken and the last loss.

    Args:
        stop: no step is taken once the loss is at most this.
        after: called after each step, for projections.

    Raises:
        FloatingPointError: the loss is not finite; the tensors are then wherever they went.
    """
    descent = OPTIMIZERS[optimizer](parameters, lr=lr)
    value = 0.0
    for step in range(steps):
        loss = loss_of()
        value = finite(loss)
        if value <= stop:
            return step, value
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        descent.step()
        if after is not None:
            after()
    for parameter in parameters:
        parameter.grad = None
    return steps, value


class FineTuning(WeightState):
    """FT-L.

    Args:
        layer: whose value matrix is tuned. WISE, App. A.3: 27 of 32.
        lr, steps: WISE, App. A.3: Adam with 5e-4, 50 steps.
        optimizer: adam | sgd; `stop`: loss at which an edit ends early, 0 for a fixed number of steps.
        radius: most that a weight moves in one edit; infinite for none.
        contexts: texts put before the prompt, beside the bare one.
    """

    owner = "FT-L"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        layer: int,
        lr: float = 5e-4,
        steps: int = 50,
        optimizer: str = "adam",
        stop: float = 0.0,
        radius: float = float("inf"),
        contexts: Sequence[str] = (),
    ) -> None:
        value_layer(model, layer)
        super().__init__(model, self.owner, [value_name(model, layer)])
        self.weight: Tensor = self.hold.owned[value_name(model, layer)]
        self.tokenizer, self.number, self.contexts = tokenizer, layer, tuple(contexts)
        self.lr, self.steps, self.optimizer, self.stop, self.radius = lr, steps, optimizer, stop, radius

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """Each request in turn; see `Editor.edit`."""
        return one_by_one(requests, self._edit)

    def batch(self, request: EditRequest) -> Batch:
        """Rows that an edit learns from."""
        return batch_of(self.tokenizer, contextual(request, self.contexts), self.hold.model.device)

    def penalty(self) -> Tensor:
        """What is added to the loss of the target, a scalar: nothing."""
        return self.weight.new_zeros(())

    def _edit(self, request: EditRequest) -> tuple[int, float]:
        batch = self.batch(request)
        low, high = self.weight.detach() - self.radius, self.weight.detach() + self.radius

        def project() -> None:
            with torch.no_grad():
                self.weight.copy_(self.weight.clamp(low, high))

        with self.hold.attempt(), below_once(self.hold.model, self.number):
            self.weight.requires_grad_(True)
            try:
                return descend(
                    lambda: answer_loss(self.hold.model, batch) + self.penalty(),
                    [self.weight],
                    self.optimizer,
                    self.lr,
                    self.steps,
                    self.stop,
                    project,
                )
            finally:
                self.weight.requires_grad_(False)


class ElasticFineTuning(FineTuning):
    """FT-EWC: the loss of an edit and λ Σ_j F_j (θ_j - θ*_j)².

    θ* are the weights before the edit, F the mean over the latest `memory` edits of the squared gradient of their loss,
    taken there: `fisher`. Without an earlier edit there is no penalty.

    Args:
        weight: λ. memory: items of the Fisher information. WISE, App. A.3: lr 1e-2, λ 0.1, 10 items.
    """

    owner = "FT-EWC"

    def __init__(
        self, model: Any, tokenizer: Any, *, weight: float = 0.1, memory: int = 10, lr: float = 1e-2, **options: Any
    ) -> None:
        super().__init__(model, tokenizer, lr=lr, **options)
        self.strength, self.memory = weight, memory
        self.past: list[Batch] = []
        self.fisher = torch.zeros_like(self.weight)
        self.anchor = self.weight.detach().clone()

    def penalty(self) -> Tensor:
        held: Tensor = self.strength * (self.fisher * (self.weight - self.anchor) ** 2).sum()
        return held

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The weights; later edits are held to what comes after them only."""
        super().load_state(state)
        self.past = []

    def _edit(self, request: EditRequest) -> tuple[int, float]:
        self.anchor = self.weight.detach().clone()
        self.fisher = self.fisher_of(self.past)
        result = super()._edit(request)
        self.past = [*self.past, self.batch(request)][-self.memory :]
        return result

    def fisher_of(self, batches: Sequence[Batch]) -> Tensor:
        """Mean over batches of the squared gradient of their loss at the present weights, shaped as these."""
        total = torch.zeros_like(self.weight)
        self.weight.requires_grad_(True)
        try:
            for batch in batches:
                [gradient] = torch.autograd.grad(answer_loss(self.hold.model, batch), [self.weight])
                total += gradient**2
        finally:
            self.weight.requires_grad_(False)
        return total / max(1, len(batches))
