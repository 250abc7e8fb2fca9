"""A causal language model whose own weights never change, and what may be put around them.

Vectors among its tokens (a soft prompt), keys and values before them (`Prefix`), low-rank adapters that are on only
inside `adapters()`. Gradients flow through the frozen weights to whatever was put there; `check` finds any change.

    lm = FrozenLM(model, tokenizer)
    vectors = torch.cat([lm.embed(head), memory, lm.embed(question)], dim=1)   # [B, T, D]
    logits = lm.logits(vectors)
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache

from common.models.hub import mute_kernel_advice

Prefix = Sequence[tuple[Tensor, Tensor]]  # keys and values of each attending layer, [B, G, P, E] each


def hash_of(named: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names and bytes of tensors, in their order."""
    total = hashlib.sha256()
    for name, tensor in named:
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


class FrozenLM:
    """A decoder-only model of transformers, in evaluation mode, with gradients to none of its weights.

    Args:
        model: its linear layers are wrapped when adapters are added; the weights stay the same objects.
        tokenizer: a fast tokenizer.

    Attributes:
        width: hidden size D.
        hash: SHA-256 over names and bytes of its weights, as they were given.
        adapter_parameters: of the adapters, trainable; empty without.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.width = int(model.config.hidden_size)
        self.adapter_parameters: list[nn.Parameter] = []
        self._layers: list[Any] = []  # that hold an adapter
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self.hash = self.weights_hash()
        ends = model.generation_config.eos_token_id if model.generation_config is not None else None
        self.ends = [
            i for i in {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} if i is not None
        ]
        if model.device.type == "cpu":
            mute_kernel_advice()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    # --- the weights ----------------------------------------------------------------------------------------------

    def weights_hash(self) -> str:
        """SHA-256 over names and bytes of the model's own weights, adapters or not."""
        named = self.model.named_parameters()
        return hash_of((name.replace(".base_layer", ""), value) for name, value in named if "lora_" not in name)

    def check(self) -> None:
        """RuntimeError when a weight is not what it was."""
        if self.weights_hash() != self.hash:
            raise RuntimeError("the weights of a frozen language model have changed")

    def add_adapters(self, rank: int, alpha: float) -> None:
        """LoRA (Hu et al. 2022) on all linear layers but the output; nothing at first, and off until `adapters()`.

        Raises:
            ValueError: it has adapters already.
        """
        from peft import LoraConfig, get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        if self._layers:
            raise ValueError("this model has adapters already")
        transposed = self.model.config.model_type == "gpt2"  # its linear layers keep weights as [in, out]
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", fan_in_fan_out=transposed)
        get_peft_model(self.model, config)
        self._layers = [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)]
        self.adapter_parameters = [p for name, p in self.model.named_parameters() if "lora_" in name]
        self._switch(on=False)

    @contextmanager
    def adapters(self) -> Iterator[None]:
        """Passes inside go through the adapters."""
        self._switch(on=True)
        try:
            yield
        finally:
            self._switch(on=False)

    def _switch(self, on: bool) -> None:
        for layer in self._layers:
            layer.enable_adapters(on)
        for parameter in self.adapter_parameters:  # peft freezes those that are off; a graph may still need them
            parameter.requires_grad_(True)

    # --- passes ---------------------------------------------------------------------------------------------------

    def ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token ids padded on the right, [B, T]: what follows a token of a causal model does not reach it."""
        width = max(map(len, rows))
        fill = self.tokenizer.pad_token_id or 0
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=self.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Input vectors of token ids, [..., D]."""
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def states(self, vectors: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Last hidden states of input vectors, both [B, T, D]; padding, if any, on the right.

        Positions count from the end of the prefix. Gradients reach `vectors`, `prefix` and adapters that are on.
        """
        cache = self.cache(prefix) if prefix is not None else None
        before = prefix[0][0].shape[2] if prefix is not None else 0
        positions = torch.arange(before, before + vectors.shape[1], device=vectors.device)[None]
        output = self.model.base_model(
            inputs_embeds=vectors, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, vectors: Tensor, where: Tensor | None = None, prefix: Prefix | None = None) -> Tensor:
        """Next-token logits, [B, T, V], or [N, V] at the positions of the mask `where` [B, T] alone."""
        states = self.states(vectors, prefix)
        logits: Tensor = self.model.get_output_embeddings()(states if where is None else states[where])
        return logits.float()

    # --- keys and values ------------------------------------------------------------------------------------------

    def attending(self) -> list[int]:
        """Numbers of the layers that have keys and values; a convolution has none."""
        config = self.model.config
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        return [i for i, kind in enumerate(kinds) if kind.endswith("attention")]

    def key_shape(self) -> tuple[int, int]:
        """Key-value heads G and the size E of one."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def cache(self, prefix: Prefix | None) -> DynamicCache:
        """A cache that begins with the prefix; an empty one for None."""
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in zip(self.attending(), prefix or (), strict=prefix is not None):
            cache.update(keys, values, layer)
        return cache


class Decoding:
    """Prompts of different lengths under way to their completions, one token a pass.

    Args:
        prompts: input vectors of each, [T_i, D]; padded on the left.
        prefix: keys and values before all of them, or None.
    """

    def __init__(self, lm: FrozenLM, prompts: Sequence[Tensor], prefix: Prefix | None = None) -> None:
        longest = max(len(prompt) for prompt in prompts)
        self._lm, self._cache = lm, lm.cache(prefix)
        self._vectors = torch.stack([pad(prompt, (0, 0, longest - len(prompt), 0)) for prompt in prompts])
        before = prefix[0][0].shape[2] if prefix is not None else 0
        mask = [[1] * before + [0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self._mask = torch.tensor(mask, device=lm.device)

    def next_logits(self) -> Tensor:
        """Logits of the token that comes next, [B, V]; call `take` before the next call."""
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -self._vectors.shape[1] :]
        output = self._lm.model(
            inputs_embeds=self._vectors,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def take(self, tokens: Tensor) -> None:
        """The chosen tokens, [B]."""
        self._vectors = self._lm.embed(tokens[:, None])
        self._mask = pad(self._mask, (0, 1), value=1)


@torch.no_grad()
def complete(
    lm: FrozenLM,
    prompts: Sequence[Tensor],
    tokens: int,
    prefix: Prefix | None = None,
    against: Sequence[Tensor] = (),
    alpha: float = 0.0,
) -> list[str]:
    """Greedy completions of at most `tokens` tokens, cut at the end token.

    Args:
        prompts: input vectors of each, [T_i, D].
        against: the same questions asked otherwise: each token is the best of (1 + α) z - α z_against.
        alpha: α >= 0; 0 leaves `against` out.
    """
    if alpha and len(against) != len(prompts):
        raise ValueError(f"{len(against)} prompts against {len(prompts)}")
    lengths = [len(prompt) for prompt in prompts]
    if prefix is not None and len(set(lengths)) > 1:  # LFM2's convolutions see no mask behind a prefix: no padding then
        texts = [""] * len(prompts)
        for length in set(lengths):
            rows = [i for i, other in enumerate(lengths) if other == length]
            part = [(keys[rows], values[rows]) for keys, values in prefix]
            others = [against[i] for i in rows] if alpha else ()
            found = complete(lm, [prompts[i] for i in rows], tokens, part, others, alpha)
            for i, text in zip(rows, found, strict=True):
                texts[i] = text
        return texts
    under_way = Decoding(lm, prompts, prefix)
    other = Decoding(lm, against) if alpha else None
    chosen: list[Tensor] = []
    ends = torch.tensor(lm.ends, device=lm.device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=lm.device)
    for _ in range(tokens):
        logits = under_way.next_logits()
        if other is not None:
            logits = (1 + alpha) * logits - alpha * other.next_logits()
        chosen.append(logits.argmax(-1))
        done |= torch.isin(chosen[-1], ends)
        if bool(done.all()):
            break
        for decoding in (under_way, other) if other is not None else (under_way,):
            decoding.take(chosen[-1])
    texts = []
    for row in torch.stack(chosen, 1).tolist():
        end = next((i for i, token in enumerate(row) if token in lm.ends), len(row))
        texts.append(lm.tokenizer.decode(row[:end], skip_special_tokens=True).strip())
    return texts
