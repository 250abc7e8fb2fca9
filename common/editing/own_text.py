"""Text that a model writes by itself: contexts before edited prompts, and the sample for key statistics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.editing.hold import captured, target_logits
from common.editing.requests import batch_of
from common.models.language_model import Sampling
from common.models.transformers_lm import TransformersLM


def own_texts(model: Any, tokenizer: Any, openings: Sequence[str], count: int, tokens: int, seed: int = 0) -> list[str]:
    """`count` texts of up to `tokens` sampled tokens (temperature 1), openings in turn, each with its opening."""
    starts = [openings[i % len(openings)] for i in range(count)]
    samplings = [Sampling(max_tokens=tokens, temperature=1.0, seed=seed + i) for i in range(count)]
    done = TransformersLM(model, tokenizer).generate(starts, samplings, "own text")
    return [start + completion.text for start, completion in zip(starts, done, strict=True)]


@torch.no_grad()
def second_moment(
    model: Any, tokenizer: Any, layers: Sequence[nn.Module], texts: Sequence[str], batch: int = 32
) -> list[Tensor]:
    """E[k kᵀ] of the inputs k of each layer over all tokens of the texts, [D, D] each (ROME, Sec. 3.1: C = K Kᵀ)."""
    totals: list[Tensor] = []
    tokens = 0
    for start in range(0, len(texts), batch):
        rows = batch_of(tokenizer, [(text, "") for text in texts[start : start + batch]], model.device)
        with captured(model, layers) as found:
            target_logits(model, rows)
        keys = [inputs[rows.prompt_mask].float() for inputs, _ in found]
        totals = [k.T @ k for k in keys] if not totals else [t + k.T @ k for t, k in zip(totals, keys, strict=True)]
        tokens += int(rows.prompt.sum())
    return [total / tokens for total in totals]


def ridged(moment: Tensor, share: float) -> Tensor:
    """The moment, [D, D], its diagonal raised by `share` of its mean: invertible with fewer tokens than inputs."""
    return moment + share * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)
