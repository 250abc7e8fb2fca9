"""Language models of transformers, in this process: any decoder-only checkpoint, on a CPU or one GPU.

Prompts are sorted by length into batches, padded on the left, prefilled once and decoded with a key-value cache;
sequences that ended leave the batch. Sampling draws each request's random numbers before it begins, so that the other
prompts of a batch cannot change them. There is no constrained decoding here: a form that was asked for is tried for
(see `structured`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from common.experiments.errors import UserError, nearest
from common.models.hub import located, mute_kernel_advice, without_bars
from common.models.kv_cache import ATTENTION, bytes_per_token, growing_cache
from common.models.language_model import (
    Completion,
    FinishReason,
    Prompt,
    Sampling,
    Score,
    check_fits,
    check_pairs,
    encode,
    encode_continuation,
    per_prompt,
    request_seed,
    stop_at,
)
from common.models.structured import until_valid

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Products of weight and token in a pass that threads share: about 20 ms of one core. For 64 tokens and 2M weights two
# threads took 2.4 times as long as one, on two cores that other work wanted too.
SHARED = 1_000_000_000


class TransformersLM:
    """A language model of transformers with its tokenizer; see `LanguageModel` for what it promises.

    Args:
        model: a causal language model; set to evaluation, its weights untouched.
        tokenizer: a fast tokenizer of transformers.
        revision: of the weights; part of the key of cached responses.
        batch_size: most sequences decoded at once.
        batch_tokens: most tokens of context that a batch may come to; bounds memory for keys and values.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str = "in memory",
        revision: str = "",
        *,
        batch_size: int = 64,
        batch_tokens: int = 65_536,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        config = model.config
        _check_decoder_only(config, name)
        self.parameters = model.num_parameters()
        self.context = int(config.max_position_embeddings)
        self.backend = f"transformers {str(model.dtype).removeprefix('torch.')} {model.device.type}"
        self.kv_bytes_per_token = bytes_per_token(config, model.dtype)
        self.ends = _end_tokens(model, tokenizer)
        if model.device.type == "cpu":
            mute_kernel_advice()
            if config._attn_implementation == "sdpa":
                model.set_attn_implementation(ATTENTION)

    @classmethod
    def load(
        cls,
        name: str,
        revision: str | None = None,
        *,
        dtype: str = "float32",
        quantize: str = "",
        device: str | None = None,
        batch_size: int = 64,
        batch_tokens: int = 65_536,
    ) -> Self:
        """A model from a folder or from this machine's copy of the Hugging Face hub; only safetensors, no download.

        Args:
            name: `owner/name` on the hub, or a path.
            revision: commit, branch or tag on the hub; None is `main` as it was downloaded.
            dtype: float32, bfloat16 or float16. On a CPU without bfloat16 units, bfloat16 is several times slower.
            quantize: nf4 keeps linear layers in 4 bits (bitsandbytes, on a GPU) and computes in `dtype`; empty: not so.
            device: torch's word for it; None takes a GPU where there is one.

        Raises:
            UserError: it is not on this machine, has no safetensors, is no decoder-only language model that
                transformers knows, an unknown dtype, or what 4 bits take is missing; one line with the way out.
        """
        if dtype not in DTYPES:
            raise UserError(f"unknown dtype '{dtype}'{nearest(dtype, DTYPES)}")
        options = {"quantization_config": four_bits(quantize, dtype), "device_map": {"": "cuda"}} if quantize else {}
        folder, title, commit = located(name, revision)
        check_loadable(folder, title)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with without_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[dtype], use_safetensors=True, local_files_only=True, **options
            )
        if not quantize:
            model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, title, commit, batch_size=batch_size, batch_tokens=batch_tokens)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`."""
        return until_valid(self._generate, prompts, per_prompt(prompts, sampling))

    def _generate(self, prompts: Sequence[Prompt], samplings: Sequence[Sampling]) -> list[Completion]:
        requests = []
        for index, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
            ids = encode(self.tokenizer, prompt)
            check_fits(self.name, index, len(ids), sampling.max_tokens, self.context)
            requests.append(_Request(ids, sampling, request_seed(sampling.seed, prompt)))
        with torch.inference_mode():
            for batch in self._batches([len(r.prompt) + r.sampling.max_tokens for r in requests]):
                self._decode([requests[i] for i in batch])
        return [request.completion() for request in requests]

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Log-probability of each token of each continuation; see `LanguageModel.score`."""
        check_pairs(prompts, continuations)
        pairs = []
        for index, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
            before, after = encode(self.tokenizer, prompt), encode_continuation(self.tokenizer, continuation)
            check_fits(self.name, index, len(before), len(after) + 1, self.context)
            pairs.append((before, after))
        scores: dict[int, Score] = {}
        with torch.inference_mode():
            for batch in self._batches([len(before) + len(after) for before, after in pairs]):
                scores |= zip(batch, self._score([pairs[i] for i in batch]), strict=True)
        return [scores[i] for i in range(len(pairs))]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        tokens, mask = self._padded([before + after for before, after in pairs])
        longest = max(len(after) for _, after in pairs)
        if not longest:
            return [Score((), len(before)) for before, _ in pairs]
        output = self._forward(tokens, mask, logits_to_keep=longest + 1)
        log_probs = output.logits[:, :-1].float().log_softmax(-1)  # [B, longest, V]: the token before predicts each
        chosen = log_probs.gather(-1, tokens[:, -longest:, None])[..., 0].tolist()
        return [
            Score(tuple(row[longest - len(after) :]), len(before))
            for row, (before, after) in zip(chosen, pairs, strict=True)
        ]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices in batches of like lengths, the longest first: what runs out of memory does so at once."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            if batch and (len(batch) == self.batch_size or (len(batch) + 1) * lengths[batch[0]] > self.batch_tokens):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _padded(self, sequences: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids padded on the left, and the mask of what is no padding, [B, T] each."""
        longest = max(map(len, sequences))
        pad = self.tokenizer.pad_token_id or 0
        tokens = [[pad] * (longest - len(ids)) + ids for ids in sequences]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in sequences]
        return torch.tensor(tokens, device=self.model.device), torch.tensor(mask, device=self.model.device)

    def _forward(self, tokens: Tensor, mask: Tensor, cache: Any = None, logits_to_keep: int = 1) -> Any:
        """One pass over the last tokens of sequences; the mask is of the whole, and positions count in it."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with _threads_for(self.parameters * tokens.numel()):
            return self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=logits_to_keep,
            )

    def _decode(self, requests: Sequence["_Request"]) -> None:
        """Complete one batch: prefill, then one token each until all have ended."""
        tokens, mask = self._padded([request.prompt for request in requests])
        cache = growing_cache(self.model.config)
        active = list(requests)
        while True:
            logits = self._forward(tokens, mask, cache).logits[:, -1].float()
            chosen = _choose(logits, active)
            log_probs = _log_probs(logits, chosen) if any(r.sampling.log_probs for r in active) else None
            for row, (request, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
                request.take(token, None if log_probs is None else log_probs[row], self)
            left = [row for row, request in enumerate(active) if request.finish_reason is None]
            if not left:
                return
            if len(left) < len(active):
                keep = torch.tensor(left, device=self.model.device)
                active = [active[row] for row in left]
                chosen, mask = chosen[keep], mask[keep]
                cache.reorder_cache(keep)
            tokens = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=-1)


@dataclass
class _Request:
    """One prompt being completed."""

    prompt: list[int]
    sampling: Sampling
    seed: int
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.stream = DecodeStream(ids=self.prompt, skip_special_tokens=True)
        self.uniform: list[float] = []
        if self.sampling.temperature:
            generator = torch.Generator().manual_seed(self.seed)
            self.uniform = torch.rand(self.sampling.max_tokens, generator=generator, dtype=torch.float64).tolist()

    def take(self, token: int, log_prob: float | None, lm: TransformersLM) -> None:
        """Append a token, and end where it is the model's end, completes a stop string, or is the last allowed."""
        self.token_ids.append(token)
        if self.sampling.log_probs and log_prob is not None:
            self.log_probs.append(log_prob)
        if token in lm.ends:
            self.finish_reason = "stop"
            return
        new = self.stream.step(lm.tokenizer._tokenizer, token) or ""
        self.text += new
        if new and (cut := stop_at(self.text, self.sampling.stop, len(new))) is not None:
            self.text = self.text[:cut]
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.sampling.max_tokens:
            self.finish_reason = "length"

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(
            self.text,
            tuple(self.token_ids),
            tuple(self.log_probs) if self.sampling.log_probs else None,
            self.finish_reason,
            len(self.prompt),
            len(self.token_ids),
        )


@contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """One thread for a pass of fewer than `SHARED` products: threads would wait for each other longer than compute."""
    threads = torch.get_num_threads()
    if threads == 1 or products >= SHARED:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def four_bits(kind: str, dtype: str) -> Any:
    """The `BitsAndBytesConfig` of a kind of quantization (QLoRA, Dettmers et al. 2023), without double quantization.

    Raises:
        UserError: an unknown kind, no GPU, or no bitsandbytes.
    """
    from transformers import BitsAndBytesConfig

    if kind != "nf4":
        raise UserError(f"unknown quantization '{kind}'{nearest(kind, ('nf4',))}")
    if not torch.cuda.is_available():
        raise UserError("nf4 takes an NVIDIA GPU, and there is none here; leave `quantize` empty")
    if find_spec("bitsandbytes") is None:
        raise UserError("nf4 takes bitsandbytes: pip install bitsandbytes; or leave `quantize` empty")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=DTYPES[dtype])


def check_loadable(folder: Path, name: str) -> None:
    """UserError unless the folder's config is that of a decoder-only language model that transformers knows."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"model '{name}' has no config that transformers knows in {folder}") from error
    _check_decoder_only(config, name)


def _check_decoder_only(config: Any, name: str) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if config.is_encoder_decoder:
        kind = "an encoder-decoder"
    elif config.to_dict().get("is_decoder") is False and type(config) in MODEL_FOR_MASKED_LM_MAPPING:  # BERT's family
        kind = "an encoder"
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = "something else"
    else:
        return
    raise UserError(f"'{name}' is {kind} ({config.model_type}), not a decoder-only language model")


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens at which the model ends a text: those of its generation config, and the tokenizer's."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = ends if isinstance(ends, list) else [ends]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _choose(logits: Tensor, requests: Sequence[_Request]) -> Tensor:
    """Next token of each request, [B], from logits [B, V]; FloatingPointError when a logit is not a number."""
    best, chosen = logits.max(-1)
    if best.isnan().any():
        raise FloatingPointError("a logit is not a number: the weights or the dtype are broken")
    groups: dict[tuple[float, int, float], list[int]] = {}
    for row, request in enumerate(requests):
        s = request.sampling
        if s.temperature:
            groups.setdefault((s.temperature, s.top_k, s.top_p), []).append(row)
    for (temperature, top_k, top_p), rows in groups.items():
        uniform = [requests[row].uniform[len(requests[row].token_ids)] for row in rows]
        probs = nucleus((logits[rows].double() / temperature).softmax(-1), top_k, top_p)
        chosen[rows] = draw(probs, torch.tensor(uniform, dtype=torch.float64, device=logits.device))
    return chosen


def nucleus(probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """The `top_k` likeliest tokens, and of those the fewest likeliest with probability `top_p`; the others are zero.

    Args:
        probs: [B, V], rows sum to 1; the result's rows need not.
    """
    if 0 < top_k < probs.shape[-1]:
        least = probs.topk(top_k, dim=-1).values[:, -1:]
        probs = probs.where(probs >= least, 0)
        probs = probs / probs.sum(-1, keepdim=True)
    if top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        probs = torch.zeros_like(probs).scatter(-1, order, ordered.where(before < top_p, 0))
    return probs


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """The token whose interval of the cumulative distribution holds u, [B]; the total need not be 1.

    Args:
        probs: [B, V], >= 0, float64. uniform: [B] in [0, 1).
    """
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return index.clamp(max=probs.shape[-1] - 1)  # u just below 1 may round up to the total


def _log_probs(logits: Tensor, chosen: Tensor) -> list[float]:
    found: list[float] = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0].tolist()
    return found
