"""A causal language model whose own weights never change, and what may be put around them.

Vectors among its tokens (a soft prompt), keys and values before them (`Prefix`), low-rank adapters that are on only
inside `adapters()`. Gradients flow through the frozen weights to whatever was put there; `check` finds any change.

    lm = FrozenLM(model, tokenizer)
    vectors = torch.cat([lm.embed(head), memory, lm.embed(question)], dim=1)   # [B, T, D]
    logits = lm.logits(vectors)
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache

from common.models.hub import mute_kernel_advice
from common.models.kv_cache import attending_layers
from common.models.lora import adapter_layers, with_adapters

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
        if self._layers:
            raise ValueError("this model has adapters already")
        with_adapters(self.model, rank, alpha)
        self._layers = adapter_layers(self.model)
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
        """Next-token logits, [B, T, V], or [N, V] at the positions of the mask `where` [B, T] alone.

        Under autocast the output layer still multiplies in the precision of its weights.
        """
        states, head = self.states(vectors, prefix), self.model.get_output_embeddings()
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = head((states if where is None else states[where]).to(head.weight.dtype))
        return logits.float()

    # --- keys and values ------------------------------------------------------------------------------------------

    def cache(self, prefix: Prefix | None) -> DynamicCache:
        """A cache that begins with the prefix; an empty one for None."""
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in zip(attending_layers(self.model.config), prefix or (), strict=prefix is not None):
            cache.update(keys, values, layer)
        return cache


class Decoding:
    """Prompts of different lengths under way to their completions, one token a pass.

    Args:
        prompts: input vectors of each, [T_i, D]; padded on the left.
        prefix: keys and values before all of them, or None.
        against: the same questions asked otherwise; logits are then (1 + α) z - α z_against.
    """

    def __init__(
        self,
        lm: FrozenLM,
        prompts: Sequence[Tensor],
        prefix: Prefix | None = None,
        against: "Decoding | None" = None,
        alpha: float = 0.0,
    ) -> None:
        longest = max(len(prompt) for prompt in prompts)
        self._lm, self._cache = lm, lm.cache(prefix)
        self._against, self._alpha = against, alpha
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
        if self._against is not None:
            logits = (1 + self._alpha) * logits - self._alpha * self._against.next_logits()
        return logits

    def take(self, tokens: Tensor) -> None:
        """The chosen tokens, [B]."""
        self._vectors = self._lm.embed(tokens[:, None])
        self._mask = pad(self._mask, (0, 1), value=1)
        if self._against is not None:
            self._against.take(tokens)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows, [N], any of them several times; call `take` before the next logits."""
        self._cache.reorder_cache(rows)
        self._mask = self._mask[rows]
        if self._against is not None:
            self._against.keep(rows)


@torch.no_grad()
def complete(
    lm: FrozenLM,
    prompts: Sequence[Tensor],
    tokens: int,
    prefix: Prefix | None = None,
    against: Sequence[Tensor] = (),
    alpha: float = 0.0,
    beams: "Beams | None" = None,
) -> list[str]:
    """Completions of at most `tokens` tokens, cut at the end token.

    Args:
        prompts: input vectors of each, [T_i, D].
        against: the same questions asked otherwise: each token is the best of (1 + α) z - α z_against.
        alpha: α >= 0; 0 leaves `against` out.
        beams: of `beam_search`; greedy if None.

    Raises:
        ValueError: with α > 0, not one of `against` for each prompt.
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
            found = complete(lm, [prompts[i] for i in rows], tokens, part, others, alpha, beams)
            for i, text in zip(rows, found, strict=True):
                texts[i] = text
        return texts
    decoding = Decoding(lm, prompts, prefix, Decoding(lm, against) if alpha else None, alpha)
    search = greedy(decoding, tokens, lm.ends) if beams is None else beam_search(decoding, tokens, lm.ends, beams)
    return [lm.tokenizer.decode(row, skip_special_tokens=True).strip() for row in search]


def greedy(decoding: Decoding, tokens: int, ends: Collection[int]) -> list[list[int]]:
    """The likeliest token at each step: ids of each prompt's completion, without its end."""
    chosen: list[Tensor] = []
    done = torch.zeros(1, dtype=torch.bool)
    while len(chosen) < tokens and not bool(done.all()):
        if chosen:
            decoding.take(chosen[-1])
        chosen.append(decoding.next_logits().argmax(-1))
        ended = torch.isin(chosen[-1], chosen[-1].new_tensor(list(ends)))
        done = ended if len(chosen) == 1 else done | ended
    rows = torch.stack(chosen, 1).tolist()
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]


# --- diverse beam search ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beams:
    """Sizes of a diverse beam search; one group is a plain beam search.

    Attributes:
        count: beams of a prompt, a multiple of `groups`.
        groups: they take turns at every step.
        diversity: λ, what a token loses for each beam of an earlier group that took it at this step, in nats.

    Raises:
        ValueError: a number below 1, or `count` is no multiple of `groups`.
    """

    count: int = 12
    groups: int = 4
    diversity: float = 10.0

    def __post_init__(self) -> None:
        if self.groups < 1 or self.count < 1 or self.count % self.groups:
            raise ValueError(f"{self.count} beams are no multiple of {self.groups} groups")


class Beam(NamedTuple):
    """A sum (of what has finished: a mean) of log-probabilities less penalties, the ids so far, its parent's row."""

    score: float
    ids: list[int]
    row: int


def beam_search(decoding: Decoding, tokens: int, ends: Collection[int], beams: Beams) -> list[list[int]]:
    """Ids of each prompt's best completion, without its end: of all that were finished, the best mean log-probability.

    Diverse beam search with Hamming diversity (Vijayakumar et al. 2018; arXiv:1610.02424, Alg. 1), whose groups stop
    once each of their beams has finished one, as `generate` of transformers 4 has it with `early_stopping`: there
    penalties stay in a beam's score, the mean counts the end, and an end must be among the best of its group.
    """
    size, logits = beams.count // beams.groups, decoding.next_logits()
    batch, words = logits.shape
    nobody = Beam(-math.inf, [0], 0)
    alive = [[[Beam(0.0, [], 0), *[nobody] * (size - 1)]] * beams.groups for _ in range(batch)]
    finished: list[list[list[Beam]]] = [[[] for _ in range(beams.groups)] for _ in range(batch)]
    decoding.keep(torch.arange(batch, device=logits.device).repeat_interleave(beams.count))
    logits = logits.repeat_interleave(beams.count, 0)
    for length in range(1, tokens + 1):
        log_probs, taken = logits.log_softmax(-1).view(batch, beams.groups, size, words), logits.new_zeros(batch, words)
        for group in range(beams.groups):
            sums = logits.new_tensor([[beam.score for beam in groups[group]] for groups in alive])
            scores = sums[..., None] + log_probs[:, group] - beams.diversity * taken[:, None]
            best = scores.flatten(1).topk(min(size * (1 + len(ends)), size * words))
            for prompt, candidates in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                first, done, grown = (prompt * beams.groups + group) * size, finished[prompt][group], list[Beam]()
                for rank, (score, place) in enumerate(zip(*candidates, strict=True)):
                    parent, token = divmod(place, words)
                    ids = alive[prompt][group][parent].ids
                    if score == -math.inf or len(grown) == size:
                        break
                    if token not in ends:
                        grown.append(Beam(score, [*ids, token], first + parent))
                    elif rank < size:
                        done.append(Beam(score / length, ids, first))
                grown = [] if len(done) >= size else grown
                for beam in grown:
                    taken[prompt, beam.ids[-1]] += 1
                alive[prompt][group] = [*grown, *[nobody] * (size - len(grown))]
        flat = [beam for groups in alive for group in groups for beam in group]
        if length == tokens or all(beam is nobody for beam in flat):
            break
        decoding.keep(torch.tensor([beam.row for beam in flat], device=logits.device))
        decoding.take(torch.tensor([beam.ids[-1] for beam in flat], device=logits.device))
        logits = decoding.next_logits()
    for prompt, groups in enumerate(alive):
        for done, beams_left in zip(finished[prompt], groups, strict=True):
            done += [Beam(beam.score / tokens, beam.ids, 0) for beam in beams_left if beam is not nobody]
    return [max((beam for done in groups for beam in done), key=lambda beam: beam.score).ids for groups in finished]
