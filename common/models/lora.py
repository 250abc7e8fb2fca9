"""Low-rank adapters (LoRA, Hu et al. 2022) in a transformers model, by PEFT: put in, found, added to its weights."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn


def with_adapters(model: Any, rank: int, alpha: float, tokens: Sequence[int] | None = None) -> Any:
    """A PEFT model around `model`: additions of that rank to all its linear layers but the output, zero at first.

    They alone are trained; `model` itself computes with them from now on. torch's generator draws them.

    Args:
        alpha: additions count alpha / rank.
        tokens: whose embeddings are trained as well; None for none.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        fan_in_fan_out=model.config.model_type == "gpt2",  # its linear layers keep weights as [in, out]
        trainable_token_indices=tokens,
    )
    return get_peft_model(model, config)


def adapter_layers(model: nn.Module) -> list[Any]:
    """PEFT's layers in a model; none where PEFT was never imported."""
    if "peft" not in sys.modules:
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def whole_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights as the model has them without PEFT's layers, what its LoRA adds added in; one at a time.

    A weight without adapter is the tensor itself, one with an adapter a new one of the same dtype.

    Raises:
        ValueError: adapters that are not LoRA's: embeddings of `tokens`.
    """
    layers = set(adapter_layers(model))
    if layers:
        from peft.tuners.lora import LoraLayer

        if other := {type(layer).__name__ for layer in layers if not isinstance(layer, LoraLayer)}:
            raise ValueError(f"only what LoRA adds can be added to weights, not that of {', '.join(sorted(other))}")
    adapted = {f"{name}.base_layer.weight": part for name, part in model.named_modules() if part in layers}
    for name, weight in model.state_dict().items():
        if "lora_" in name:
            continue
        if layer := adapted.get(name):
            deltas = [layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters]
            weight = (weight.float() + sum(deltas)).to(weight.dtype)
        name = name.replace(".base_layer.", ".")
        yield name, weight.detach()
