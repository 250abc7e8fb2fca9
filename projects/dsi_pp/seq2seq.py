"""The encoder-decoder substrate: T5 from a checkpoint or from scratch, its tokenizer, and texts as tensors."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from common.models.hub import located
from projects.dsi_pp.settings import Model

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, as in T5
IGNORED = -100  # label of padding, as in torch's cross-entropy
INDEX, RETRIEVE, GENERATE = "index:", "retrieve:", "generate:"  # task prefixes (the paper's wording is not known to us)


def build_tokenizer(settings: Model, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, or one trained on the given texts: whole words, or BPE with `vocabulary` pieces."""
    if settings.checkpoint:
        return AutoTokenizer.from_pretrained(_folder(settings), local_files_only=True)
    special = [PAD, EOS, UNKNOWN, INDEX, RETRIEVE, GENERATE]
    if settings.vocabulary:
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        tokenizer.decoder = decoders.Metaspace()  # pseudo-queries are text again, as a test query is
        trainer: trainers.Trainer = trainers.BpeTrainer(
            vocab_size=settings.vocabulary, special_tokens=special, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN)


def text_vocabulary(settings: Model, tokenizer: PreTrainedTokenizerBase) -> int:
    """Embedding rows of the base model, hence the first docid token; T5 checkpoints have more rows than text tokens."""
    return AutoConfig.from_pretrained(_folder(settings)).vocab_size if settings.checkpoint else len(tokenizer)


def build_model(settings: Model, text_tokens: int) -> T5ForConditionalGeneration:
    """T5 from the checkpoint, or from scratch with `text_tokens` embeddings; draws from torch's global generator."""
    if settings.checkpoint:
        return T5ForConditionalGeneration.from_pretrained(
            _folder(settings), use_safetensors=True, local_files_only=True
        )
    config = T5Config(
        vocab_size=text_tokens,
        d_model=settings.d_model,
        d_kv=settings.d_kv,
        d_ff=settings.d_ff,
        num_layers=settings.layers,
        num_decoder_layers=settings.decoder_layers,
        num_heads=settings.heads,
        dropout_rate=settings.dropout,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def _folder(settings: Model) -> Path:
    """Where the checkpoint lies on this machine; UserError with the way to it when it does not."""
    return located(settings.checkpoint)[0]


def add_docid_tokens(model: T5ForConditionalGeneration, count: int) -> None:
    """Append embeddings for `count` docid tokens, initialised as T5 initialises embeddings."""
    model.resize_token_embeddings(model.config.vocab_size + count, mean_resizing=False)


def pack(tokenizer: PreTrainedTokenizerBase, prefix: str, texts: Sequence[str], length: int) -> Tensor:
    """`prefix`, the first `length` tokens of each text, EOS, padding; int64 [N, L] with L the longest row."""
    head = tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
    bodies = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
    rows = [head + body + [tokenizer.eos_token_id] for body in bodies]
    width = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])


def join(*batches: Tensor, fill: int) -> Tensor:
    """Stack batches [B_i, L_i] to [Σ B_i, max L_i], padded on the right with `fill`."""
    width = max(batch.shape[1] for batch in batches)
    return torch.cat([torch.nn.functional.pad(batch, (0, width - batch.shape[1]), value=fill) for batch in batches])


def seq2seq_logits(model: T5ForConditionalGeneration, inputs: Tensor, labels: Tensor) -> Tensor:
    """Teacher-forced logits, [B, T, V]; labels < 0 are padding."""
    pad = model.config.pad_token_id
    start = model.config.decoder_start_token_id
    decoder_inputs = torch.nn.functional.pad(labels[:, :-1].clamp_min(pad), (1, 0), value=start)
    output = model(input_ids=inputs, attention_mask=inputs.ne(pad), decoder_input_ids=decoder_inputs, use_cache=False)
    logits: Tensor = output.logits
    return logits
