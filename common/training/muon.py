"""Muon (Jordan et al., 2024): momentum whose update of a weight matrix is made orthogonal; AdamW for everything else.

`torch.optim.Muon` iterates in bf16, which costs several times a training step on a processor without bf16 units, and
leaves the other parameters to a second optimizer. A test holds the two equal within bf16's precision.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, steepest at zero
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """One optimizer: group 0 holds the matrices, the other groups are AdamW's.

    A matrix [R, C] moves by 0.2 sqrt(max(R, C)) lr, root mean square that of AdamW (Liu et al., arXiv:2502.16982), so
    that one learning rate serves both.

    Args:
        matrices: two-dimensional weights inside the network; neither embeddings nor the output layer.
        others: parameter groups of AdamW.

    Raises:
        ValueError: a matrix has not two dimensions.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        if any(matrix.dim() != 2 for matrix in matrices):
            raise ValueError(f"matrices have two dimensions, not {[tuple(m.shape) for m in matrices if m.dim() != 2]}")
        super().__init__([{"params": list(matrices)}, *others], lr=lr, betas=betas, weight_decay=weight_decay)
        self.momentum = momentum

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.no_grad():
            self._move_matrices()
        return super().step(closure)  # type: ignore[no-any-return]

    def _move_matrices(self) -> None:
        group = self.param_groups[0]
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # shape -> matrices and updates
        for matrix in group["params"]:
            if matrix.grad is not None:
                state = self.state[matrix]
                if not state:
                    state |= {"step": torch.tensor(0.0), "average": torch.zeros_like(matrix)}
                state["step"] += 1
                average = state["average"]
                average.lerp_(matrix.grad, 1 - self.momentum)
                alike[matrix.shape].append((matrix, matrix.grad.lerp(average, self.momentum)))  # Nesterov's
                matrix.grad = None  # AdamW passes it by
        for shape, moved in alike.items():
            rate = 0.2 * max(shape) ** 0.5 * group["lr"]
            updates = orthogonal(torch.stack([update for _, update in moved]))
            for (matrix, _), update in zip(moved, updates, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest semi-orthogonal matrices, [N, R, C]: singular values between 0.7 and 1.2 (Newton-Schulz)."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x: Tensor = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
