"""How the base MicroLM is trained: stages of growing difficulty, the mixture of skills, and the data of each step."""

import itertools
import multiprocessing
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from common.data.text_world import dialogues, labels, search, topics
from common.data.text_world.world import World
from common.files import replacing
from common.models.microlm import skills
from common.models.microlm.lexicon import lexicon, name_parts
from common.models.microlm.model import Shape
from common.models.microlm.skills import Item, Level, draw_world, taught_world
from common.models.microlm.tokenizer import build_tokenizer
from common.training.supervised import Batch, Example, Optimization, collate, in_order, of_similar_length


@dataclass(frozen=True)
class Stage:
    """A part of training.

    Attributes:
        until: share of all steps, in (0, 1], at which the stage ends.
        mixture: skill -> weight.
        prompt_weight: mean weight of prompt tokens as targets, beside 1 for the answers'; every fourth one is taken, at
            four times the weight, since logits are costly.
    """

    until: float
    level: Level
    mixture: Mapping[str, float]
    prompt_weight: float = 0.0


ALL_SKILLS = {
    "recall": 2.0, "read": 4.0, "compare": 1.5, "list": 1.5, "temporal": 2.0, "unknown": 1.0, "relevance": 1.5,
    "extract": 1.0, "sufficient": 1.0, "next_query": 1.0, "read_notes": 1.0, "merge": 1.0, "update": 1.5,
    "summarise": 0.5, "tool_call": 0.7, "tool_read": 0.7, "critique": 1.5, "repair": 0.7, "closed_book": 1.0,
    "copy": 0.3,
}  # fmt: skip

STAGES = (
    Stage(  # copying and short texts: where reading begins
        0.08,
        Level(passages=(1, 2), facts=1, hops=(1, 1, 1, 2), turns=8, notes=2),
        {
            "copy": 1.0,
            "recall": 8.0,
            "read": 3.0,
            "list": 1.0,
            "extract": 1.0,
            "read_notes": 1.0,
            "merge": 1.0,
            "relevance": 1.0,
        },
        prompt_weight=0.1,
    ),
    Stage(
        0.35,
        Level(passages=(1, 2, 3, 4, 6), facts=2, hops=(1, 1, 2, 3), turns=12, notes=5),
        {**ALL_SKILLS, "recall": 6.0},
    ),
    Stage(
        1.0,
        Level(passages=(2, 2, 3, 4, 6, 8, 12, 16), facts=3, hops=(1, 2, 2, 3), turns=16, notes=8),
        {
            **ALL_SKILLS,
            "recall": 4.0,
            "read": 6.0,
            "compare": 2.5,
            "list": 2.5,
            "unknown": 2.5,
            "relevance": 3.0,
            "extract": 2.5,
            "merge": 2.0,
            "update": 3.0,
            "closed_book": 1.5,
            "copy": 0.2,
        },
    ),
)

REFINE = (  # on trained weights, at a rate that only falls
    Stage(
        1.0,
        Level(passages=(2, 2, 3, 4, 6, 8, 16), facts=3, hops=(1, 2, 2, 3), turns=20, notes=8),
        {
            **ALL_SKILLS,
            "recall": 4.0,
            "read": 5.0,
            "list": 2.0,
            "unknown": 2.0,
            "relevance": 2.0,
            "extract": 1.5,
            "update": 2.0,
            "merge": 1.5,
            "closed_book": 1.5,
            "copy": 0.2,
        },
    ),
)
QUICK = (  # for minutes of a CPU: short texts, many questions about each
    Stage(
        0.3,
        Level(passages=(1,), facts=1, hops=(1,), turns=8, notes=2),
        {"copy": 2.0, "recall": 6.0, "read_notes": 1.0, "merge": 1.0},
        prompt_weight=0.1,
    ),
    Stage(
        1.0,
        Level(passages=(1, 2, 3), facts=2, hops=(1, 1, 2), turns=12, notes=4),
        {**ALL_SKILLS, "recall": 6.0, "copy": 0.5},
    ),
)
SCHEDULES = {
    "quick": QUICK,
    "base": STAGES,
    "refine": REFINE,
}
FRESH = ("quick", "base")  # those that start from nothing
POOL_SHARES = (0.08, 0.27, 0.65)  # of a pool's tokens, by stage


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on, besides the code.

    Attributes:
        schedule: a key of SCHEDULES.
        start: revision of the weights that training starts from; "" for fresh ones.
        pool: sha256 of the conversations drawn ahead; "" where each step draws its own.
        seed: of data and initial weights.
        step_tokens: tokens of a step, at least.
        micro_tokens: tokens that go through the model at a time, at most.
    """

    shape: Shape = field(default_factory=Shape)
    schedule: str = "base"
    start: str = ""
    pool: str = ""
    seed: int = 0
    steps: int = 1000
    step_tokens: int = 8192
    micro_tokens: int = 8192
    optimization: Optimization = field(default_factory=Optimization)


def microlm_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the shipped weights."""
    words = lexicon(skills.PROMPTS, topics.WORDS, dialogues.WORDS, labels.WORDS, search.WORDS)
    return build_tokenizer(words, name_parts())


def encode_items(tokenizer: PreTrainedTokenizerFast, items: Iterable[Item]) -> list[NDArray[np.uint16]]:
    """Token ids of each conversation, [T_i] each, as the chat template gives them."""
    items = list(items)
    texts = [text for item in items for turn in item.turns for text in turn]
    pieces = iter(tokenizer(texts, add_special_tokens=False).input_ids if texts else [])
    bos, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    user, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    encoded = []
    for item in items:
        ids = [bos]
        for _ in item.turns:
            ids += [user, *next(pieces), end, assistant, *next(pieces), end]
        encoded.append(np.array(ids, dtype=np.uint16))
    return encoded


def target_weights(
    ids: NDArray[np.uint16], tokenizer: PreTrainedTokenizerFast, prompt_weight: float = 0.0, phase: int = 0
) -> NDArray[np.float32]:
    """Weight of each token as a target, [T]: 1 in answers, their end tokens included.

    Args:
        ids: [T].
        prompt_weight: mean weight of the others; every fourth one is taken, from `phase` on, at four times the weight.
    """
    user, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    place = np.arange(len(ids))
    opened = np.maximum.accumulate(np.where((ids == user) | (ids == assistant), place, 0))
    answers = (ids[opened] == assistant) & (place != opened)
    weights: NDArray[np.float32] = answers.astype(np.float32)
    if prompt_weight:
        weights[(weights == 0) & (place % 4 == phase % 4)] = 4 * prompt_weight
        weights[0] = 0.0
    return weights


def draw_items(rng: random.Random, level: Level, mixture: Mapping[str, float], taught: World) -> Iterable[Item]:
    """Items without end: a new train world every few, skills drawn by weight."""
    names, weights = list(mixture), list(mixture.values())
    while True:
        world = draw_world(rng, "train", level)
        for skill in rng.choices(names, weights, k=12):
            for _ in range(50):
                item = skills.SKILLS[skill](rng, taught if skill == "closed_book" else world, level)
                if item:
                    yield item
                    break


class RecipeData:
    """The steps of a recipe, drawn as they are needed. Step `i` depends on the recipe and `i` alone."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.taught = taught_world()

    def step(self, index: int) -> list[Batch]:
        """Micro-batches of step `index`, of `step_tokens` tokens or a few more."""
        stage = stage_at(index / self.recipe.steps, SCHEDULES[self.recipe.schedule])
        rng = random.Random(f"microlm {self.recipe.schedule}/{self.recipe.seed}/{index}")
        encoded = _draw_tokens(rng, stage, self.tokenizer, self.taught, self.recipe.step_tokens)
        return _batches(encoded, stage, self.tokenizer, self.recipe.micro_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


class PoolData:
    """The steps of a recipe from conversations drawn ahead (`draw_pool`), each stage's in a new order every round.

    A GPU trains faster than the world is drawn; names are random, so that a few rounds teach no fact by heart. The
    whole pool lies on the device: making a step is one look-up.

    Raises:
        ValueError: a recipe of another schedule than `base`, or a pool with another number of stages.
    """

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: Path, device: str = "cpu") -> None:
        if recipe.schedule != "base":
            raise ValueError(f"a pool is drawn for the schedule base, not {recipe.schedule}")
        self.recipe, self.pad, self.device = recipe, tokenizer.pad_token_id, device
        self.stages: list[_Pooled] = []
        done = 0
        tokens = [ids for _, ids in sorted(load_file(pool).items())]
        if len(tokens) != len(STAGES):
            raise ValueError(f"{pool} has {len(tokens)} stages, the recipe {len(STAGES)}")
        for number, (stage, ids) in enumerate(zip(STAGES, tokens, strict=True)):
            last = next((i for i in range(done, recipe.steps) if i / recipe.steps >= stage.until), recipe.steps)
            starts = np.flatnonzero(ids == tokenizer.bos_token_id)
            lengths = np.diff(np.append(starts, len(ids)))
            rng = np.random.default_rng([recipe.seed, number])
            rounds = int((last - done) * recipe.step_tokens / len(ids)) + 2
            order = np.concatenate([rng.permutation(len(lengths)) for _ in range(rounds)])
            cuts = np.searchsorted(np.cumsum(lengths[order]), np.arange(last - done + 1) * recipe.step_tokens)
            weights = target_weights(ids, tokenizer, stage.prompt_weight)
            weights[starts] = 0.0
            on_device = (torch.from_numpy(ids.astype(np.int32)).to(device), torch.from_numpy(weights).to(device))
            self.stages.append(_Pooled(done, starts, lengths, order, cuts, *on_device))
            done = last

    def step(self, index: int) -> list[Batch]:
        """Micro-batches of about `step_tokens` tokens, padding left out, on the device of the pool."""
        stage = next(stage for stage in reversed(self.stages) if stage.first_step <= index)
        place = index - stage.first_step
        chosen = stage.order[stage.cuts[place] : stage.cuts[place + 1]]
        groups = of_similar_length(stage.lengths[chosen], self.recipe.micro_tokens)
        return [self._batch(stage, chosen[group]) for group in groups]

    def _batch(self, stage: "_Pooled", chosen: NDArray[np.int64]) -> Batch:
        starts, lengths = (torch.from_numpy(x[chosen]).to(self.device)[:, None] for x in (stage.starts, stage.lengths))
        column = torch.arange(int(stage.lengths[chosen].max()), device=self.device)[None]
        inside = column < lengths
        where = (starts + column).clamp(max=len(stage.ids) - 1)
        ids = torch.where(inside, stage.ids[where], self.pad).long()
        return Batch(ids, torch.where(inside, stage.weights[where], 0.0))

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


@dataclass(frozen=True)
class _Pooled:
    """One stage of a pool: where each conversation starts, its length, their order, and where the steps cut it."""

    first_step: int
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    order: NDArray[np.int64]
    cuts: NDArray[np.int64]
    ids: Tensor
    weights: Tensor


def draw_pool(seed: int, tokens: Sequence[int], path: Path, processes: int = 1) -> None:
    """Draw `tokens[i]` tokens of conversations for stage `i` and write them to a safetensors file."""
    share = 1 << 18  # most tokens of a piece of work
    tasks = [
        (seed, number, part, min(share, count))
        for number, count in enumerate(tokens)
        for part in range(-(-count // share))
    ]
    if processes == 1:
        parts = list(itertools.starmap(_draw_part, tasks))
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            parts = workers.starmap(_draw_part, tasks, chunksize=1)
    arrays = {}
    for number in range(len(tokens)):
        own = [part for task, part in zip(tasks, parts, strict=True) if task[1] == number]
        arrays[f"stage{number}"] = np.concatenate(own)
    with replacing(path) as partial:
        save_file(arrays, partial)


def _draw_part(seed: int, number: int, part: int, tokens: int) -> NDArray[np.uint16]:
    rng = random.Random(f"microlm pool/{seed}/{number}/{part}")
    return np.concatenate(_draw_tokens(rng, STAGES[number], microlm_tokenizer(), taught_world(), tokens))


def stage_at(share: float, stages: Sequence[Stage]) -> Stage:
    """The stage that a share of all steps, in [0, 1), falls into."""
    return next(stage for stage in stages if share < stage.until)


def _draw_tokens(
    rng: random.Random, stage: Stage, tokenizer: PreTrainedTokenizerFast, taught: World, tokens: int
) -> list[NDArray[np.uint16]]:
    """Conversations of a stage, of `tokens` tokens or a few more; encoded 64 at a time: one call of the tokenizer."""
    encoded: list[NDArray[np.uint16]] = []
    stream = iter(draw_items(rng, stage.level, stage.mixture, taught))
    while sum(map(len, encoded)) < tokens:
        encoded += encode_items(tokenizer, itertools.islice(stream, 64))
    total = np.cumsum([len(ids) for ids in encoded])
    return encoded[: int(np.searchsorted(total, tokens)) + 1]


def _batches(
    encoded: Sequence[NDArray[np.uint16]], stage: Stage, tokenizer: PreTrainedTokenizerFast, micro_tokens: int
) -> list[Batch]:
    examples = [
        Example(ids, target_weights(ids, tokenizer, stage.prompt_weight, phase)) for phase, ids in enumerate(encoded)
    ]
    return collate(examples, tokenizer.pad_token_id, micro_tokens)
