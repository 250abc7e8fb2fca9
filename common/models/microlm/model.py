"""MicroLM's architecture: `Lfm2`, short convolutions and attention in turn, or a plain Llama for comparison."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_POSITIONS = 8192


@dataclass(frozen=True)
class Shape:
    """Size of a model.

    Attributes:
        kind: `lfm2` or `llama`.
        width: hidden size, a multiple of 32: heads have 32 dimensions, the least that vLLM takes on CPU.
        layers: `lfm2` alternates convolution and attention, convolution first.
        inner: width of the gated feed-forward layer.

    Raises:
        ValueError: another width or kind.
    """

    kind: str = "lfm2"
    width: int = 128
    layers: int = 8
    inner: int = 384

    def __post_init__(self) -> None:
        if self.width < 32 or self.width % 32:
            raise ValueError(f"width must be a multiple of 32, not {self.width}")
        if self.kind not in ("lfm2", "llama"):
            raise ValueError(f"kind must be lfm2 or llama, not {self.kind}")


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """A fresh model in fp32 whose vocabulary fits the tokenizer, padded to a multiple of 64.

    A word with and without its space starts from one embedding: what is learned of one form helps the other.
    """
    vocabulary = -(-len(tokenizer) // 64) * 64
    heads = shape.width // 32
    common = {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.kind == "llama":
            model: Any = LlamaForCausalLM(LlamaConfig(**common))
        else:
            layers = ["full_attention" if i % 2 else "conv" for i in range(shape.layers)]
            # vLLM reads conv_dim, conv_dim_out and block_dim; transformers ignores them.
            dims = dict.fromkeys(("conv_dim", "conv_dim_out", "block_dim"), shape.width)
            model = Lfm2ForCausalLM(Lfm2Config(**common, layer_types=layers, block_auto_adjust_ff_dim=False, **dims))
        share_forms(model, tokenizer)
    return model


def share_forms(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the vector of a word without its space start from that of the word with it."""
    vocabulary = tokenizer.get_vocab()
    pairs = [
        (i, vocabulary[piece[1:]]) for piece, i in vocabulary.items() if piece[0] == "Ġ" and piece[1:] in vocabulary
    ]
    spaced, bare = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[bare] = table[spaced] + 0.2 * table[bare]


def parameter_count(model: Any) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())
