"""Log-probabilities, entropies and values of generated tokens: forward passes over rows (see `layouts`)."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.experiments.errors import UserError
from common.models.lora import adapter_layers
from common.training.reinforcement.layouts import Row
from common.training.supervised import of_similar_length

ATTENDING = "full_attention"  # what transformers calls a layer that attends to all tokens before


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right.

    Attributes:
        ids: [B, T]; positions: [B, T] or None; visible: [B, 1, T, T] or None.
        predictors: of each sampled token, row by row, the place (b T + t) that predicts it, [n].
        targets: its id, [n].
        tokens: which of the generated tokens it is, [n]; on the CPU, where their vectors are.
    """

    ids: Tensor
    positions: Tensor | None
    visible: Tensor | None
    predictors: Tensor
    targets: Tensor
    tokens: Tensor


def collate(rows: Sequence[Row], device: str | torch.device = "cpu") -> Batch:
    """One batch of all rows; they are of one layout."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    visible = None if rows[0].visible is None else torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1, 1)
    for b, row in enumerate(rows):
        length = len(row.ids)
        ids[b, :length] = torch.from_numpy(row.ids)
        if row.positions is not None:
            positions[b, :length] = torch.from_numpy(row.positions)
        if visible is not None and row.visible is not None:
            visible[b, 0, :length, :length] = torch.from_numpy(row.visible)  # padding sees itself alone
    return Batch(
        ids.to(device),
        None if rows[0].positions is None else positions.to(device),
        None if visible is None else visible.to(device),
        torch.cat([b * width + torch.from_numpy(row.targets) - 1 for b, row in enumerate(rows)]).to(device),
        torch.cat([torch.from_numpy(row.ids[row.targets]) for row in rows]).to(device),
        torch.cat([torch.from_numpy(row.tokens) for row in rows]),
    )


def micro_batches(rows: Sequence[Row], micro_tokens: int) -> list[list[Row]]:
    """Rows of like length together, at most `micro_tokens` tokens with padding in each batch (or one row)."""
    return [[rows[i] for i in group] for group in of_similar_length([len(row.ids) for row in rows], micro_tokens)]


def hidden_states(body: Any, batch: Batch) -> Tensor:
    """What `body`, a transformers model without its output layer, computes at the predictors, [n, D]."""
    options: dict[str, Any] = {}
    if batch.visible is not None and batch.positions is not None:
        kinds = set(getattr(body.config, "layer_types", None) or ())
        by_kind = {kind: batch.visible if kind == ATTENDING else None for kind in kinds}
        options = {"attention_mask": by_kind or batch.visible, "position_ids": batch.positions}
    hidden: Tensor = body(input_ids=batch.ids, use_cache=False, **options).last_hidden_state
    return hidden.flatten(0, 1)[batch.predictors]


@dataclass(frozen=True)
class Scored:
    """Of each sampled token: its log-probability, and the entropy of the distribution that it came from, nats."""

    log_probs: Tensor
    entropy: Tensor


def score(model: Any, batch: Batch, temperature: float = 1.0) -> Scored:
    """Log-probability and entropy of each sampled token, [n] each, at the temperature that it was sampled with."""
    logits = model.get_output_embeddings()(hidden_states(model.base_model, batch)).float() / temperature
    log_probs = logits.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return Scored(log_probs.gather(-1, batch.targets[:, None])[:, 0], entropy)


def check_layout(model: Any, layout: str) -> None:
    """UserError where rows of several turns cannot be computed, or would not be what the layout promises.

    Short convolutions beside full attention (LFM2) read a few tokens of the turn before: `stitched`, an approximation
    anyway, takes them, `stitched_dup` does not.
    """
    if layout in ("per_turn", "growing"):
        return
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or (ATTENDING,))
    strange = kinds - ({ATTENDING, "conv"} if layout == "stitched" else {ATTENDING})
    if strange or not config._attn_implementation.startswith("sdpa"):
        what = ", ".join(sorted(strange)) or f"attention by {config._attn_implementation}"
        raise UserError(
            f"layout {layout} needs full attention by sdpa, and this model has {what}: take per_turn or growing"
        )


class Critic(nn.Module):
    """The value of the text so far, before each sampled token: a language model's body and a linear head.

    Args:
        model: a transformers language model; its body is copied, its output layer left out; with adapters, these
            and the head alone are trained. The head begins at zero, so the first values are 0.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.base_model)
        if not adapter_layers(model):
            self.body.requires_grad_(True)
        width = model.get_output_embeddings().weight.shape[-1]
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(next(model.parameters()).device)

    def forward(self, batch: Batch) -> Tensor:
        """Value at each sampled token, [n]."""
        hidden = hidden_states(self.body, batch).float()
        with torch.autocast(hidden.device.type, enabled=False):  # the body may round, values do not
            values: Tensor = self.head(hidden)[:, 0]
        return values


class Reference:
    """The policy as it was before training, for KL: its adapters switched off, or a frozen copy where it has none."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.adapters = adapter_layers(model)
        if not self.adapters:
            self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @contextmanager
    def _bare(self) -> Iterator[None]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for layer in self.adapters:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self.adapters:
                layer.enable_adapters(True)
            for parameter in trained:
                parameter.requires_grad_(True)

    def log_probs(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Of each sampled token, [n]; no gradient."""
        with torch.no_grad(), self._bare():
            return score(self.model, batch, temperature).log_probs
