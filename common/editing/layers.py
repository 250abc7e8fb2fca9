"""Where editors write: the value matrix of a block's feed-forward part, by architecture.

`FFN(f) = a W_v` with a = σ(f W_k), gated or not. The value matrix is the layer that maps `a`, [D], back to the residual
stream, [H]; transformers names and lays it out in its own way for each family.
"""

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from common.experiments.errors import UserError, nearest

# config.model_type -> blocks of the model, value layer of a block
FEED_FORWARD = {
    "gpt2": ("transformer.h", "mlp.c_proj"),
    "gptj": ("transformer.h", "mlp.fc_out"),
    "lfm2": ("model.layers", "feed_forward.w2"),
    "llama": ("model.layers", "mlp.down_proj"),
    "mistral": ("model.layers", "mlp.down_proj"),
    "qwen2": ("model.layers", "mlp.down_proj"),
    "qwen3": ("model.layers", "mlp.down_proj"),
}


def block(model: Any, layer: int) -> nn.Module:
    """The block of that number, counted from 0.

    Raises:
        UserError: an architecture that FEED_FORWARD lacks, or a block that the model lacks.
    """
    blocks, _ = _blocks(model)
    if not 0 <= layer < len(blocks):
        raise UserError(f"layer {layer}: the model has layers 0 to {len(blocks) - 1}")
    found: nn.Module = blocks[layer]
    return found


def value_layer(model: Any, layer: int) -> nn.Module:
    """The feed-forward value layer of a block: `torch.nn.Linear`, or `Conv1D` in GPT-2. Errors: `block`."""
    return block(model, layer).get_submodule(_blocks(model)[1])


def value_name(model: Any, layer: int) -> str:
    """Name of that layer's weight among `model.named_parameters()`."""
    blocks, value = FEED_FORWARD[model.config.model_type]
    return f"{blocks}.{layer}.{value}.weight"


def matrix(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """The weight (or another tensor laid out like it) as a matrix from inputs to outputs, [out, in]: a view."""
    tensor = layer.weight if weight is None else weight
    assert isinstance(tensor, Tensor)
    return tensor.T if isinstance(layer, Conv1D) else tensor


def _blocks(model: Any) -> tuple[Any, str]:
    family = model.config.model_type
    if family not in FEED_FORWARD:
        raise UserError(
            f"editing knows no feed-forward layer of architecture '{family}'{nearest(family, FEED_FORWARD)}"
        )
    blocks, value = FEED_FORWARD[family]
    return model.get_submodule(blocks), value
