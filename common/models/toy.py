"""Random-weight checkpoints of every architecture family at toy width, in the format of real ones.

    toy_checkpoint("qwen3", folder)       # config, safetensors, tokenizer, chat template; loads like a download

For tests of code that loads and runs models (any backend, any method that reaches into layers), not for figures: a toy
has the modules, names and shapes of its family and knows nothing. Its tokenizer reads any text, one token a byte.
"""

from pathlib import Path
from typing import Any

from common.models.footprint import Shape

HEADS, KV_HEADS, HEAD = 2, 1, 32  # 32 is the smallest head that vLLM's CPU attention takes
WIDTH, FEED_FORWARD, LAYERS = HEADS * HEAD, 96, 2
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
VOCABULARY = 320  # 256 bytes and the special tokens, rounded up to a multiple of 64 as real ones are
CONTEXT = 512  # tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

TOYS = {
    "gpt2": Shape("gpt2", LAYERS, WIDTH, HEADS, HEADS, HEAD, FEED_FORWARD, VOCABULARY, True, positions=CONTEXT),
    "gptj": Shape("gptj", LAYERS, WIDTH, HEADS, HEADS, HEAD, FEED_FORWARD, VOCABULARY, False),
    "lfm2": Shape("lfm2", 3, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD, VOCABULARY, True, attention_layers=1),
    "llama": Shape("llama", LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD, VOCABULARY, False),
    "mistral": Shape("mistral", LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD, VOCABULARY, False, window=48),
    "qwen2": Shape("qwen2", LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD, VOCABULARY, True),
    "qwen3": Shape("qwen3", LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FEED_FORWARD, VOCABULARY, True),
    "t5": Shape("t5", LAYERS, WIDTH, HEADS, HEADS, HEAD, FEED_FORWARD, VOCABULARY, True, gated=True),
}


def toy_checkpoint(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random checkpoint of that family into `folder` and return it; the same seed gives the same bytes.

    Raises:
        ValueError: a family that `TOYS` lacks.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if family not in TOYS:
        raise ValueError(f"no toy of family '{family}'; known: {', '.join(TOYS)}")
    shape = TOYS[family]
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    tokenizer = byte_tokenizer()
    ids = {f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for role, token in _ROLES.items()}
    if family == "t5":
        ids["decoder_start_token_id"] = ids["pad_token_id"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(configuration(shape, **_SPREAD, **ids))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_ROLES = {"pad": "pad", "bos": "bos", "eos": "end"}
_SPREAD = {"initializer_range": 0.3, "initializer_factor": 4.0}  # wide enough that greedy decoding does not stand still


def byte_tokenizer() -> Any:
    """A tokenizer of transformers with one token a byte, the tokens of `SPECIAL` and a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        **{f"{role}_token": f"<|{token}|>" for role, token in _ROLES.items()},
    )


def configuration(shape: Shape, **options: Any) -> Any:
    """A transformers config of these dimensions; `options` are its further arguments (token ids).

    Rotary families get a context of `CONTEXT` tokens. ValueError for a family without a language model (BERT).
    """
    from transformers import AutoConfig

    decoder = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": CONTEXT,
    }
    gpt = {
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.feed_forward,
        "n_positions": shape.positions or CONTEXT,
    }
    families: dict[str, dict[str, Any]] = {
        "gpt2": gpt,
        "gptj": gpt | {"rotary_dim": shape.head // 4},
        "lfm2": decoder | _lfm2(shape),
        "llama": decoder,
        "mistral": decoder | {"sliding_window": shape.window},
        "qwen2": decoder,
        "qwen3": decoder,
        "t5": {
            "d_model": shape.width,
            "num_layers": shape.layers,
            "num_heads": shape.heads,
            "d_kv": shape.head,
            "d_ff": shape.feed_forward,
            "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        },
    }
    if shape.family not in families:
        raise ValueError(f"no configuration for family '{shape.family}'; known: {', '.join(families)}")
    return AutoConfig.for_model(
        shape.family,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **families[shape.family],
        **options,
    )


def _lfm2(shape: Shape) -> dict[str, Any]:
    """What LFM2 adds: which layers attend (spread evenly, the last among them), and the names that vLLM reads."""
    attending = shape.attention_layers or 0
    every = {shape.layers - 1 - i * shape.layers // attending for i in range(attending)} if attending else set()
    return {
        "layer_types": ["full_attention" if i in every else "conv" for i in range(shape.layers)],
        "block_auto_adjust_ff_dim": False,
        "block_dim": shape.width,
        "conv_dim": shape.width,
        "conv_dim_out": shape.width,
    }
