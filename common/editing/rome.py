"""ROME (Meng et al., NeurIPS 2022; arXiv:2202.05262): one fact, one rank-one update of one value matrix.

The value matrix W is read as an associative memory that maps the key k* of a subject to a value v*. Sec. 3.1:

    minimise ‖Ŵ K - V‖  subject to  Ŵ k* = v*      ⇒      Ŵ = W + Λ (C⁻¹ k*)ᵀ,   Λ = (v* - W k*) / ((C⁻¹ k*)ᵀ k*)

with C = K Kᵀ of keys that other text has. Shapes: D inputs and H outputs of the value layer, B contexts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.editing.editor import Outcome, WeightState, contextual, one_by_one
from common.editing.fine_tuning import descend
from common.editing.hold import below_once, captured, target_logits
from common.editing.layers import matrix, value_layer, value_name
from common.editing.requests import EditRequest, batch_of, subject_end


def rank_one(weight: Tensor, root: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Ŵ - W of Eq. 2, [H, D]: the change of least cost under C that maps `key`, [D], to `value`, [H], without bias.

    Args:
        weight: W, [H, D]. root: L of C = L Lᵀ up to a factor, lower triangular, [D, D], float64.

    Raises:
        ValueError: the shapes differ.
    """
    if root.shape != (len(key), len(key)) or weight.shape != (len(value), len(key)):
        raise ValueError(f"weight {tuple(weight.shape)}, L {tuple(root.shape)}, k {len(key)}, v {len(value)} differ")
    direction = torch.cholesky_solve(key.double()[:, None], root)[:, 0].to(key.dtype)
    change: Tensor = torch.outer((value - weight @ key) / (direction @ key), direction)
    return change


@dataclass(frozen=True)
class Search:
    """The search for v* (`best_shift`); values of ROME's code for GPT-2 XL.

    Attributes:
        lr, steps: of Adam. kl, decay: weights of its terms. clamp: longest shift, in lengths of the unedited state.
        stop: no step is taken once the loss is at most this.
    """

    lr: float = 0.5
    steps: int = 20
    kl: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    stop: float = 0.05


class SubjectRows:
    """An edit's rows (bare and in contexts) with the place of the subject's last token in each, [B].

    `searched` has one row more, ROME's prompt `<subject> is a`, whose next token the search keeps as it is; its
    completion is of no use.
    """

    def __init__(self, tokenizer: Any, request: EditRequest, contexts: Sequence[str], device: Any) -> None:
        pairs = contextual(request, contexts)
        essence = (f"{request.subject} is a", request.target)
        self.batch = batch_of(tokenizer, pairs, device)
        self.searched = batch_of(tokenizer, [*pairs, essence], device)
        self.ends = torch.tensor(
            [subject_end(tokenizer, prompt, request.subject) for prompt, _ in [*pairs, essence]], device=device
        )

    def at_subject(self, states: Tensor) -> Tensor:
        """States at the subject's last token, [B, ...], from [B, T, ...]; of `searched` too, [B + 1, ...]."""
        ends = self.ends[: len(states)]
        chosen: Tensor = states[torch.arange(len(ends), device=states.device), ends]
        return chosen


def best_shift(
    model: Any, number: int, layer: nn.Module, scale: nn.Module, rows: SubjectRows, search: Search
) -> tuple[Tensor, int, float]:
    """δ, [H], that added to the layer's output at the subject makes the target likely (Eq. 4): δ, steps, last loss.

    Minimises the target's cross-entropy, plus `kl` times the divergence from the unedited model's next token after
    `<subject> is a`, plus `decay` ‖δ‖ / ‖v‖² as in ROME's code. v is the output of `scale` at the subject of the bare
    prompt, and ‖δ‖ stays within `clamp` ‖v‖. `layer` lies in block `number`.
    """
    answers = len(rows.batch.targets)
    with torch.no_grad(), captured(model, [layer, scale]) as found:
        before = target_logits(model, rows.searched)[answers].log_softmax(-1)
    size = rows.at_subject(found[1][1])[0].float().norm()
    shift = torch.zeros(found[0][1].shape[-1], device=before.device, requires_grad=True)

    def add(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shifted = torch.zeros_like(output)
        shifted[torch.arange(len(rows.ends)), rows.ends] = shift.to(output.dtype)
        moved: Tensor = output + shifted
        return moved

    def loss() -> Tensor:
        logits = target_logits(model, rows.searched)
        wrong = nn.functional.cross_entropy(logits[:answers], rows.batch.targets)
        after = logits[answers].log_softmax(-1)
        drift = nn.functional.kl_div(after, before, log_target=True, reduction="sum")
        total: Tensor = wrong + search.kl * drift + search.decay * shift.norm() / size**2
        return total

    def project() -> None:
        with torch.no_grad():
            shift.mul_(torch.clamp(search.clamp * size / shift.norm().clamp_min(1e-12), max=1.0))

    handle = layer.register_forward_hook(add)
    try:
        with below_once(model, number):
            taken, last = descend(loss, [shift], "adam", search.lr, search.steps, search.stop, project)
    finally:
        handle.remove()
    return shift.detach(), taken, last


class Rome(WeightState):
    """ROME.

    Args:
        layer: whose value matrix is written. WISE, App. A.3: 5 of 32.
        moment: C of that layer's inputs on the model's own text, [D, D], positive definite (`own_text`).
        contexts: texts put before the prompt: k* and v* are means over them (Eq. 3).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        layer: int,
        moment: Tensor,
        search: Search | None = None,
        contexts: Sequence[str] = (),
    ) -> None:
        self.number, self.layer = layer, value_layer(model, layer)
        super().__init__(model, "ROME", [value_name(model, layer)])
        self.tokenizer, self.contexts = tokenizer, tuple(contexts)
        self.root = torch.linalg.cholesky(moment.double())
        self.search = search or Search()

    def edit(self, requests: Sequence[EditRequest]) -> list[Outcome]:
        """Each request in turn; see `Editor.edit`. UserError where the prompt lacks the subject."""
        return one_by_one(requests, self._edit)

    def _edit(self, request: EditRequest) -> tuple[int, float]:
        model = self.hold.model
        rows = SubjectRows(self.tokenizer, request, self.contexts, model.device)
        with torch.no_grad(), captured(model, [self.layer]) as found:
            target_logits(model, rows.batch)
        inputs, outputs = found[0]
        key = rows.at_subject(inputs).float().mean(0)
        with torch.no_grad():  # the layer's own answer to the mean key, so that Ŵ k* + b is exactly what was searched
            mean_output = rows.at_subject(outputs).float().mean(0)
            weight = matrix(self.layer).float()
            bias = mean_output - weight @ key
        shift, steps, loss = best_shift(model, self.number, self.layer, self.layer, rows, self.search)
        with self.hold.attempt(), torch.no_grad():
            matrix(self.layer).add_(rank_one(weight, self.root, key, mean_output + shift - bias).to(model.dtype))
        return steps, loss
