"""How many parameters a transformer has, and how much memory it needs: closed forms of its dimensions.

Symbols: L layers, d width, h query heads, g key-value heads, e head size, f feed-forward size, V vocabulary,
P learned positions, b bytes of one number, B sequences, T tokens of each. 1 GB is 10⁹ bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Training = Literal["adamw_float32", "adamw_mixed", "lora"]

BYTES: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
OVERHEAD = 1_500_000_000  # bytes on a GPU beside weights and cache: context, workspaces, logits; our estimate
T5_BUCKETS = 32  # relative-position buckets of every published T5


@dataclass(frozen=True)
class Shape:
    """The dimensions that decide a model's size.

    Attributes:
        family: key of `FAMILIES`; the `model_type` of transformers.
        layers: L; of T5, of its encoder and again of its decoder.
        width: d.
        heads: h.
        kv_heads: g.
        head: e.
        feed_forward: f as it is in the weights (LFM2: after its rounding).
        vocabulary: V, rows of the embedding matrix.
        tied: whether input and output embeddings are one matrix.
        positions: P; 0 where positions are rotary or relative.
        gated: whether a T5 feed-forward has a gate (T5 v1.1, Flan); the other families have one form each.
        attention_layers: LFM2: how many of the L layers attend, the others being short convolutions; else None.
        window: tokens that attention looks back at most; None for all.
    """

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    feed_forward: int
    vocabulary: int
    tied: bool
    positions: int = 0
    gated: bool = False
    attention_layers: int | None = None
    window: int | None = None


def parameters(shape: Shape) -> int:
    """Distinct weights; a tied matrix counts once. ValueError for a family without a formula."""
    if shape.family not in FAMILIES:
        raise ValueError(f"no parameter count for family '{shape.family}'; known: {', '.join(FAMILIES)}")
    return FAMILIES[shape.family](shape)


def _llama(s: Shape, extra: int = 0) -> int:
    """(1 or 2) V d + L (2 d h e + 2 d g e + 3 d f + 2 d + extra) + d"""
    attention = 2 * s.width * s.head * (s.heads + s.kv_heads)
    layer = attention + 3 * s.width * s.feed_forward + 2 * s.width + extra
    return _embeddings(s) + s.layers * layer + s.width


def _qwen2(s: Shape) -> int:
    """Llama with biases of queries, keys and values: extra = (h + 2 g) e."""
    return _llama(s, (s.heads + 2 * s.kv_heads) * s.head)


def _qwen3(s: Shape) -> int:
    """Llama with norms of queries and keys: extra = 2 e."""
    return _llama(s, 2 * s.head)


def _lfm2(s: Shape, kernel: int = 3) -> int:
    """Per layer attention with norms of queries and keys, or a convolution: 4 d² + 3 d; then Llama's feed-forward."""
    attending = s.attention_layers or 0
    attention = 2 * s.width * s.head * (s.heads + s.kv_heads) + 2 * s.head
    convolution = 4 * s.width**2 + kernel * s.width
    layer = 3 * s.width * s.feed_forward + 2 * s.width
    return _embeddings(s) + attending * attention + (s.layers - attending) * convolution + s.layers * layer + s.width


def _gpt2(s: Shape) -> int:
    """V d + P d + L (4 d² + 2 d f + f + 9 d) + 2 d: biases everywhere, norms with weight and bias."""
    layer = 4 * s.width**2 + 2 * s.width * s.feed_forward + s.feed_forward + 9 * s.width
    return _embeddings(s) + s.positions * s.width + s.layers * layer + 2 * s.width


def _gptj(s: Shape) -> int:
    """2 V d + V + L (4 d² + 2 d f + f + 3 d) + 2 d: one norm a layer, no biases in attention, one on the logits."""
    layer = 4 * s.width**2 + 2 * s.width * s.feed_forward + s.feed_forward + 3 * s.width
    return _embeddings(s) + s.vocabulary + s.layers * layer + 2 * s.width


def _t5(s: Shape) -> int:
    """(1 or 2) V d + L (12 d h e + (4 or 6) d f + 5 d) + 2 d + 64 h: no biases; position biases of first layers."""
    attention = 4 * s.width * s.heads * s.head  # once in the encoder, twice in the decoder
    feed_forward = (3 if s.gated else 2) * s.width * s.feed_forward
    layers = s.layers * (3 * attention + 2 * feed_forward + 5 * s.width)
    return _embeddings(s) + layers + 2 * s.width + 2 * T5_BUCKETS * s.heads


def _bert(s: Shape) -> int:
    """(V + P + 2) d + 2 d + L (4 d² + 2 d f + f + 9 d) + d² + d: two token types, norm after embedding, pooler."""
    layer = 4 * s.width**2 + 2 * s.width * s.feed_forward + s.feed_forward + 9 * s.width
    return (s.vocabulary + s.positions + 4) * s.width + s.layers * layer + s.width**2 + s.width


def _embeddings(s: Shape) -> int:
    return (1 if s.tied else 2) * s.vocabulary * s.width


FAMILIES: Mapping[str, Callable[[Shape], int]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "gptj": _gptj,
    "lfm2": _lfm2,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "t5": _t5,
}


def cache_bytes(shape: Shape, dtype: Dtype, batch: int, context: int) -> int:
    """Keys and values of `batch` sequences of `context` tokens.

    2 L g e B T b          T at most the window, where attention has one
    T5: 4 L h e B T b      of the output so far and of the input, each of T tokens
    LFM2: attending layers as above, and 3 d B b for each convolution
    BERT: 0
    """
    b = BYTES[dtype]
    if shape.family == "bert":
        return 0
    attending = shape.layers if shape.attention_layers is None else shape.attention_layers
    tokens = min(context, shape.window or context)
    per_layer = 2 * shape.kv_heads * shape.head * batch * tokens * b * (2 if shape.family == "t5" else 1)
    return attending * per_layer + (shape.layers - attending) * 3 * shape.width * batch * b


def inference_bytes(shape: Shape, dtype: Dtype = "bfloat16", batch: int = 1, context: int = 2048) -> int:
    """Memory to generate: parameters x b + `cache_bytes` + `OVERHEAD`."""
    return parameters(shape) * BYTES[dtype] + cache_bytes(shape, dtype, batch, context) + OVERHEAD


def lora_parameters(shape: Shape, rank: int) -> int:
    """Adapters of that rank on all linear layers but the output: r x (inputs + outputs) each.

    attention              4 d + 2 e (h + g); GPT-2: 6 d, queries, keys and values being one matrix
    feed-forward           3 (d + f); 2 (d + f) without a gate
    convolution of LFM2    6 d
    pooler of BERT         2 d
    T5                     3 L attentions, 2 L feed-forwards
    """
    gated = shape.gated if shape.family == "t5" else shape.family not in ("bert", "gpt2", "gptj")
    feed_forward = (3 if gated else 2) * (shape.width + shape.feed_forward)
    attention = 4 * shape.width + 2 * shape.head * (shape.heads + shape.kv_heads)
    attending = shape.layers if shape.attention_layers is None else shape.attention_layers
    if shape.family == "gpt2":
        attention = 6 * shape.width
    if shape.family == "t5":
        return rank * shape.layers * (3 * attention + 2 * feed_forward)
    pooler = 2 * shape.width if shape.family == "bert" else 0
    convolutions = (shape.layers - attending) * 6 * shape.width
    return rank * (attending * attention + convolutions + shape.layers * feed_forward + pooler)


def training_bytes(shape: Shape, method: Training, rank: int = 16) -> int:
    """Memory for weights, gradients and optimiser. Activations come on top: they go with batch, length, checkpointing.

    With N parameters and A adapter parameters (`lora_parameters`):

        adamw_float32   16 N: weights 4, gradients 4, two moments 8
        adamw_mixed     16 N: bfloat16 weights 2 and gradients 2, float32 master weights 4, two moments 8
        lora             2 N + 16 A: frozen bfloat16 weights; adapters, their gradients and moments in float32
    """
    if method == "lora":
        return 2 * parameters(shape) + 16 * lora_parameters(shape, rank)
    return 16 * parameters(shape)


def reinforcement_bytes(shape: Shape, critic: bool, reference: bool, rank: int = 0) -> int:
    """Memory to train a policy by `common.training.reinforcement`, on one device.

        all weights   16 N; a critic 16 N more; a frozen reference 4 N (float32)
        adapters      2 N + 16 A; a critic as much again; the reference is the policy without them

    The critic counts as large as the policy, although it has one output. On top come activations, copies that autocast
    rounds, and an engine of its own that rollouts are sampled from.

    Args:
        rank: of adapters of frozen bfloat16 weights; 0 trains all.
    """
    policy = training_bytes(shape, "lora", rank) if rank else training_bytes(shape, "adamw_float32")
    frozen = 4 * parameters(shape) if reference and not rank else 0
    return policy * (2 if critic else 1) + frozen
