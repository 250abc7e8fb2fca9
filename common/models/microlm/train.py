"""Train the base MicroLM from nothing: for a number of minutes on this machine, or for a number of steps.

Resumable: an interrupted run goes on from its checkpoint. The folder ends as an ordinary transformers model with the
recipe and the training log beside it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from common.models.hub import folder_revision, mute_kernel_advice, without_bars
from common.models.microlm.evaluate import forced_accuracy, held_out_items, last_answers
from common.models.microlm.model import Shape, build_model, parameter_count
from common.models.microlm.recipe import PoolData, Recipe, RecipeData, microlm_tokenizer
from common.models.microlm.skills import Level
from common.models.microlm.tokenizer import save_tokenizer
from common.training.distributed import of_first, rank
from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Optimization, StepData, fit

# What is looked at in training, on validation worlds; the skill table proper is made from test worlds, by generation.
PROBES: Mapping[str, tuple[str, Level]] = {
    "recall": ("recall", Level(passages=(3,))),
    "read, 4 passages": ("read", Level(passages=(4,), hops=(1,))),
    "read, 16 passages": ("read", Level(passages=(16,), hops=(1,))),
    "two hops, 4 passages": ("read", Level(passages=(4,), hops=(2,))),
    "three hops, 8 passages": ("read", Level(passages=(8,), hops=(3,))),
    "unknown": ("unknown", Level(passages=(4,), hops=(1, 2))),
    "temporal": ("temporal", Level(passages=(4,))),
    "relevance": ("relevance", Level()),
    "extract": ("extract", Level()),
    "update": ("update", Level()),
    "critique": ("critique", Level()),
    "closed book": ("closed_book", Level()),
}

PROBE_ITEMS = 32  # of each; on a CPU looking costs as much as training


def train(
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
    minutes: float | None = None,
    pool: Path | None = None,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> Any:
    """Train by the recipe, write the model into `folder`, return it; in ranks all of them call this.

    Args:
        minutes: where given, `recipe.steps` is set to what this machine does in that time.
        start: a folder with weights to start from, of the recipe's shape; their revision enters the recipe.
        pool: conversations drawn ahead (`draw_pool`); None draws them as they are needed.
    """
    say = say if rank() == 0 else (lambda line: None)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        mute_kernel_advice()
    tokenizer = AutoTokenizer.from_pretrained(start) if start else microlm_tokenizer()
    recipe = replace(
        recipe,
        start=folder_revision(start) if start else "",
        pool=hashlib.sha256(pool.read_bytes()).hexdigest() if pool else "",
    )
    if minutes is not None:
        begun = folder / "recipe.json"
        known = json.loads(begun.read_text()).get("steps", 0) if rank() == 0 and begun.exists() else 0
        steps = of_first(known) or max(1.0, 60 * minutes * steps_per_second(recipe, device, pool))
        recipe = replace(recipe, steps=int(steps))
    if begin(folder, asdict(recipe)):
        say(f"{folder} is trained already")
        with without_bars():
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    model = initial_model(recipe, tokenizer, start)
    say(f"{parameter_count(model):,} parameters, {recipe.steps:,} steps of {recipe.step_tokens:,} tokens on {device}")

    probes = {
        name: last_answers(tokenizer, held_out_items("probe", "validation", *probe, PROBE_ITEMS))
        for name, probe in PROBES.items()
    }

    def look() -> dict[str, float]:
        return {name: round(forced_accuracy(model, asked, device), 3) for name, asked in probes.items()}

    def save(into: Path) -> None:
        save_tokenizer(tokenizer, into)
        model.to("cpu").save_pretrained(into)

    data = step_data(recipe, tokenizer, device, pool)
    fit_logged(
        folder, model, data, recipe.steps, recipe.optimization,
        device=device, autocast=bf16_pays(device), seed=recipe.seed,
        every=max(1, recipe.steps // 12), look=look, say=say,
    )  # fmt: skip
    with without_bars():
        finish(folder, save)
    return model


def step_data(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, device: str, pool: Path | None) -> StepData:
    """The data of a recipe: drawn as needed, or from a pool."""
    return PoolData(recipe, tokenizer, pool, device) if pool else RecipeData(recipe, tokenizer)


def initial_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, start: Path | None) -> Any:
    """Fresh weights by the recipe's seed, or those of a folder.

    Raises:
        ValueError: the weights in the folder have another shape than the recipe.
    """
    if start is None:
        return build_model(recipe.shape, tokenizer, recipe.seed)
    with without_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, use_safetensors=True)
    config, shape = model.config, recipe.shape
    found = Shape(config.model_type, config.hidden_size, config.num_hidden_layers, config.intermediate_size)
    if found != shape:
        raise ValueError(f"the weights of {start} have {found}, not {shape}")
    return model


def steps_per_second(recipe: Recipe, device: str, pool: Path | None, steps: int = 24) -> float:
    """Speed of the last stage, by doing some of its steps on a model that is thrown away."""
    tokenizer = microlm_tokenizer()
    data = step_data(replace(recipe, steps=steps), tokenizer, device, pool)
    marks: list[float] = []
    model = build_model(recipe.shape, tokenizer, recipe.seed)
    fit(
        model, data, steps, recipe.optimization, None, device, bf16_pays(device),
        on_step=lambda step, figures: marks.append(time.monotonic()),
    )  # fmt: skip
    half = steps // 2
    return of_first((steps - 1 - half) / (marks[-1] - marks[half]) if marks else 0.0)


def bf16_pays(device: str) -> bool:
    """Whether the processor multiplies bf16 matrices natively (AMX).

    On a GPU, TF32 does: a model this small waits for launches, not for arithmetic.
    """
    return device == "cpu" and torch.cpu._is_amx_tile_supported()


def cpu_recipe(shape: Shape | None = None, schedule: str = "base", processes: int = 1) -> Recipe:
    """Small steps, 2,048 tokens a process: on a CPU the number of updates is what is short.

    In `refine` the rate only falls.
    """
    optimization = {
        "base": Optimization(lr=4e-3, warmup=50, muon=True),
        "quick": Optimization(lr=4e-3, warmup=50, muon=True),
        "refine": Optimization(lr=1.5e-3, warmup=50, decay=1.0, muon=True),
    }[schedule]
    tokens = 2048 * processes
    return Recipe(shape or Shape(), schedule, step_tokens=tokens, micro_tokens=tokens, optimization=optimization)


def gpu_recipe(shape: Shape | None = None) -> Recipe:
    """The base schedule as one GPU takes it: larger steps."""
    optimization = Optimization(lr=4e-3, warmup=300, decay=0.7, muon=True)
    return Recipe(shape or Shape(), step_tokens=65536, micro_tokens=98304, optimization=optimization)
