"""MEMIT (Meng et al., ICLR 2023; arXiv:2210.07229): many facts at once, spread over the value matrices of some blocks.

For edit i a shift of the last block's output, z_i - h_i, is searched that makes its target likely (Eq. 16). Block by
block, from the first, the value matrix takes an equal share of what is still missing (Eq. 20, Alg. 1):

    Δ = R Kᵀ (λ C + K Kᵀ)⁻¹,   R_i = (z_i - h_i) / (blocks left),   K = keys of all edits        (Eq. 14)

computed as R (λ I + Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹, which is the same and needs C's Cholesky factor once.
Shapes: E edits, D inputs and H outputs of a value layer.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.editing.editor import Outcome, WeightState, one_by_one
from common.editing.hold import captured, target_logits
from common.editing.layers import block, matrix, value_layer, value_name
from common.editing.requests import EditRequest, check_requests
from common.editing.rome import Search, SubjectRows, best_shift

Found = tuple[SubjectRows, Tensor, int, float]


def spread(root: Tensor, keys: Tensor, residuals: Tensor, strength: float) -> Tensor:
    """Δ of Eq. 14, [H, D]: the minimiser of ‖Δ K - R‖² + λ tr(Δ C Δᵀ).

    Args:
        root: L of C = L Lᵀ, lower triangular, [D, D], float64. keys: K, [D, E]. residuals: R, [H, E]. strength: λ > 0.

    Raises:
        ValueError: the shapes differ.
    """
    if keys.shape[1] != residuals.shape[1] or root.shape != (len(keys), len(keys)):
        raise ValueError(f"L {tuple(root.shape)}, K {tuple(keys.shape)} and R {tuple(residuals.shape)} do not fit")
    eased = torch.cholesky_solve(keys.double(), root)  # C⁻¹ K
    inner = keys.double().T @ eased
    inner.diagonal().add_(strength)
    change: Tensor = torch.linalg.solve(inner, residuals.double(), left=False) @ eased.T
    return change.to(keys.dtype)


class Memit(WeightState):
    """MEMIT.

    Args:
        layers: written to, in order. WISE, App. A.3: 4 to 8 of 32.
        moments: C of each layer's inputs on the model's own text, [D, D].
        strength: λ; MEMIT, Sec. 5: 15,000 for C a mean over tokens.
        mass: all requests of a call together (MEMIT-MASS in WISE); otherwise one after the other.
        search: for z; without one, that of ROME with the clamp 0.75 of MEMIT's code.
        contexts: texts put before the prompt: keys and shifts are means over them.

    Raises:
        ValueError: `layers` do not ascend, or differ in number from `moments`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        layers: Sequence[int],
        moments: Sequence[Tensor],
        strength: float = 15_000.0,
        mass: bool = True,
        search: Search | None = None,
        contexts: Sequence[str] = (),
    ) -> None:
        if len(layers) != len(moments) or sorted(layers) != list(layers):
            raise ValueError(f"layers {list(layers)} must ascend, with a moment each, not {len(moments)}")
        self.layers = [value_layer(model, layer) for layer in layers]
        self.number = layers[-1]
        self.last = block(model, layers[-1])
        super().__init__(model, "MEMIT", [value_name(model, layer) for layer in layers])
        self.tokenizer, self.strength, self.mass = tokenizer, strength, mass
        self.roots = [torch.linalg.cholesky(moment.double()) for moment in moments]
        self.contexts = tuple(contexts)
        self.search = search or Search(clamp=0.75)

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """All requests together, or in turn; see `Editor.edit`. Seconds of a mass edit are shared out equally."""
        if not self.mass:
            return one_by_one(requests, lambda request: self._write([self._search(request)])[0])
        check_requests(requests)
        if not requests:
            return []
        start = time.perf_counter()
        found = [self._tried(request) for request in requests]
        made = iter(self._write([one for one in found if not isinstance(one, str)]))
        each = (time.perf_counter() - start) / len(requests)
        return [Outcome(0, 0.0, each, one) if isinstance(one, str) else Outcome(*next(made), each) for one in found]

    def _search(self, request: EditRequest) -> Found:
        """The request's rows, with the shift that the last layer shall give there, steps and last loss."""
        rows = SubjectRows(self.tokenizer, request, self.contexts, self.hold.model.device)
        # A shift of the last value layer's output is one of the block's output: both add to the residual stream.
        return rows, *best_shift(self.hold.model, self.number, self.layers[-1], self.last, rows, self.search)

    def _tried(self, request: EditRequest) -> Found | str:
        """The same, or why there is none: one request of many that leads nowhere is left out."""
        try:
            return self._search(request)
        except FloatingPointError as error:
            return str(error)

    def _write(self, found: Sequence[Found]) -> list[tuple[int, float]]:
        if not found:
            return []
        edits = [rows for rows, _, _, _ in found]
        _, start = self._states(edits, len(self.layers) - 1)
        wanted = start + torch.stack([shift for _, shift, _, _ in found], 1)
        with self.hold.attempt(), torch.no_grad():
            for index, layer in enumerate(self.layers):
                keys, states = self._states(edits, index)
                residuals = (wanted - states) / (len(self.layers) - index)
                change = spread(self.roots[index], keys, residuals, self.strength)
                matrix(layer).add_(change.to(self.hold.model.dtype))
        return [(steps, loss) for _, _, steps, loss in found]

    @torch.no_grad()
    def _states(self, edits: Sequence[SubjectRows], index: int) -> tuple[Tensor, Tensor]:
        """Keys of layer `index`, [D, E], and outputs of the last block, [H, E]: means over contexts, at the subject."""
        keys, states = [], []
        for rows in edits:
            with captured(self.hold.model, [self.layers[index], self.last]) as found:
                target_logits(self.hold.model, rows.batch)
            keys.append(rows.at_subject(found[0][0]).float().mean(0))
            states.append(rows.at_subject(found[1][1]).float().mean(0))
        return torch.stack(keys, 1), torch.stack(states, 1)
