"""MicroLM's fact-bearing variant: the same architecture, trained until it answers a closed set of facts without a text.

Its feed-forward layers are wide and few: an editing method that writes into one of them (WISE, ROME, GRACE) finds room.
Training goes over all taught prompts again and again, now and then after a sentence: editing methods put text before a
prompt, and the answer must not depend on it.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from common.data.text_world.relations import FILLERS
from common.models.hub import mute_kernel_advice, without_bars
from common.models.language_model import LanguageModel, Sampling
from common.models.microlm.evaluate import forced_accuracy
from common.models.microlm.facts import FactDials, FactSet, KnownFact, draw_edits, fact_set
from common.models.microlm.model import Shape, build_model, parameter_count
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.skill_table import Row
from common.models.microlm.tokenizer import save_tokenizer
from common.models.settings import SHIPPED
from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Batch, Example, Optimization, collate, in_order

FACT_WEIGHTS = SHIPPED["microlm-facts"]
TARGET = 0.99  # share of taught prompts that the shipped weights were made to recall
GREEDY = Sampling(max_tokens=8)
Pairs = list[tuple[str, str]]  # prompt, completion


@dataclass(frozen=True)
class FactRecipe:
    """Everything that the weights depend on, besides the code.

    Attributes:
        facts, dials: which facts (`fact_set`).
        seed: of initial weights, order and prefixes.
        rounds: times that every taught prompt of people is seen; those of places, being half as many, twice as often.
        step_prompts: prompts of a step.
        micro_tokens: tokens that go through the model at a time, at most, padding included.
        prefix: share of prompts, in [0, 1], that follow a sentence: one that says nothing, or another fact.
        prompt_weight: weight of a prompt's tokens as targets, beside 1 for the answer's.
    """

    shape: Shape = field(default_factory=lambda: Shape(width=96, layers=4, inner=2048))
    facts: int = 0
    dials: FactDials = field(default_factory=FactDials)
    seed: int = 0
    rounds: int = 20
    step_prompts: int = 128
    micro_tokens: int = 768
    prefix: float = 0.2
    prompt_weight: float = 0.05
    optimization: Optimization = field(default_factory=lambda: Optimization(lr=3e-3, warmup=100))


def recipe_of(folder: Path) -> FactRecipe:
    """The recipe by which the model in a folder was trained; ValueError when it knows no facts by heart."""
    path = folder / "recipe.json"
    values = json.loads(path.read_text()) if path.is_file() else {}
    if "dials" not in values:
        raise ValueError(f"no recipe of facts in {folder}: it takes a folder that `repro train-facts` wrote")
    parts = {"shape": Shape, "dials": FactDials, "optimization": Optimization}
    return FactRecipe(**values | {name: part(**values[name]) for name, part in parts.items()})


class FactData:
    """Steps of a recipe: all taught prompts, in a new order every round. Step `i` depends on nothing else."""

    def __init__(self, recipe: FactRecipe, facts: FactSet, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        places = (*facts.locality, *facts.irrelevant)
        taught = (*facts.people, *places, *places)
        self.pairs = [(prompt, known.target) for known in taught for prompt in known.taught]
        self.per_round = -(-len(self.pairs) // recipe.step_prompts)
        self.steps = recipe.rounds * self.per_round

    def step(self, index: int) -> list[Batch]:
        """One batch of `step_prompts` prompts, or of what is left of a round."""
        number, place = divmod(index, self.per_round)
        order = np.random.default_rng([self.recipe.seed, number]).permutation(len(self.pairs))
        rng = random.Random(f"facts/{self.recipe.seed}/{index}")
        chosen = order[place * self.recipe.step_prompts : (place + 1) * self.recipe.step_prompts]
        examples = []
        for i in chosen:
            prompt, target = self.pairs[i]
            if rng.random() < self.recipe.prefix:
                prompt = f"{sentence(rng, self.pairs)} {prompt}"
            examples.append(example(self.tokenizer, prompt, target, self.recipe.prompt_weight))
        return collate(examples, self.tokenizer.pad_token_id, self.recipe.micro_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


def sentence(rng: random.Random, pairs: Pairs) -> str:
    """What may stand before a prompt: a sentence that says nothing, or a fact as it is taught."""
    if rng.random() < 0.5:
        return rng.choice(FILLERS)
    prompt, target = rng.choice(pairs)
    return f"{prompt}{target}."


def example(tokenizer: PreTrainedTokenizerFast, prompt: str, target: str, prompt_weight: float = 0.0) -> Example:
    """A prompt and its completion, the end token with it."""
    asked, answer = tokenizer([prompt, target], add_special_tokens=False).input_ids
    answer = [*answer, tokenizer.eos_token_id]
    weights = [prompt_weight] * len(asked) + [1.0] * len(answer)
    return Example(np.array(asked + answer, dtype=np.uint16), np.array(weights, dtype=np.float32))


def examples(tokenizer: PreTrainedTokenizerFast, pairs: Pairs) -> list[Example]:
    """Prompts with their completions, these alone as targets."""
    return [example(tokenizer, prompt, target) for prompt, target in pairs]


def train_facts(recipe: FactRecipe, folder: Path, device: str = "cpu", say: Callable[[str], None] = print) -> Any:
    """Train by the recipe, write the model into `folder` in bf16 with recipe and log beside it, return it.

    Resumable: the same call goes on from the checkpoint of an interrupted one, and does nothing after a finished one.

    Raises:
        ValueError: the folder holds a run of another recipe.
    """
    if begin(folder, asdict(recipe)):
        say(f"{folder} is trained already")
        with without_bars():
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    if device == "cpu":
        mute_kernel_advice()
    tokenizer = microlm_tokenizer()
    facts = fact_set(recipe.facts, recipe.dials)
    data = FactData(recipe, facts, tokenizer)
    model = build_model(recipe.shape, tokenizer, recipe.seed)
    size = f"{parameter_count(model):,} parameters, {len(facts.all):,} facts, {len(data.pairs):,} prompts"
    say(f"{size}, {data.steps:,} steps on {device}")
    probes = {name: examples(tokenizer, _spread(pairs, 400)) for name, pairs in groups(facts).items()}

    def look() -> dict[str, float]:
        return {name: round(forced_accuracy(model, asked, device), 3) for name, asked in probes.items()}

    def save(into: Path) -> None:
        save_tokenizer(tokenizer, into)
        model.to("cpu", torch.bfloat16).save_pretrained(into)

    every = data.per_round * max(1, recipe.rounds // 10)
    fit_logged(
        folder, model, data, data.steps, recipe.optimization,
        device=device, seed=recipe.seed, every=every, look=look, say=say,
    )  # fmt: skip
    with without_bars():
        finish(folder, save)
    return model.float()


def groups(facts: FactSet) -> dict[str, Pairs]:
    """What is measured: prompts with their completions, by domain and by what training has seen of them."""
    places = (*facts.locality, *facts.irrelevant)
    rng = random.Random("after a sentence")

    def pairs(known: Sequence[KnownFact], kind: str) -> Pairs:
        return [(prompt, k.target) for k in known for prompt in getattr(k, kind)]

    taught = pairs(facts.people, "taught")
    return {
        "people, taught prompts": taught,
        "people, taught prompts after a sentence": [
            (f"{sentence(rng, taught)} {prompt}", target) for prompt, target in taught
        ],
        "people, wordings taught for other facts": pairs(facts.people, "reworded"),
        "people, wordings never taught": pairs(facts.people, "unseen"),
        "places, taught prompts": pairs(places, "taught"),
        "places, wordings taught for other facts": pairs(places, "reworded"),
    }


SEEDS = ("I", "You", "Because", "Yes", "Question:")  # from which WISE lets the model write what stands before a prompt


def fact_table(
    lm: LanguageModel, facts: FactSet, count: int = 400, say: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """What a model recalls of the facts, greedily and to the end of the answer, `count` prompts of each kind."""
    rows: list[Row] = []

    def add(part: str, name: str, pairs: Pairs, target: float | None = None) -> None:
        chosen = _spread(pairs, count)
        texts = [done.text for done in lm.generate([prompt for prompt, _ in chosen], GREEDY, "recall")]
        right = sum(text == completion for text, (_, completion) in zip(texts, chosen, strict=True))
        rows.append(Row(part, name, right, len(chosen), target))
        say(rows[-1])

    for name, pairs in groups(facts).items():
        part, kind = name.split(", ", 1)
        add(part, kind, pairs, TARGET if kind == "taught prompts" else None)
    edits = draw_edits(facts, min(count, len(facts.people)), 0)
    rng = random.Random("written")
    wrote = written(lm)
    taught = [(edit.prompt, edit.known.target) for edit in edits]
    taught = [(f"{rng.choice(wrote)} {prompt}", target) for prompt, target in taught]
    add("people", "taught prompts after text that the model wrote", taught)
    add("controls", "the new answer of an edit, before the edit", [(edit.prompt, edit.target) for edit in edits])
    shuffled = [(edit.prompt, f" {rng.choice(facts.objects[edit.known.fact.relation])}") for edit in edits]
    add("controls", "any answer of the relation, drawn at random: chance", shuffled)
    return rows


def written(lm: LanguageModel, tokens: int = 10) -> list[str]:
    """Texts of `tokens` tokens that the model writes by itself, two from each of SEEDS; the same every time."""
    samplings = [Sampling(max_tokens=tokens, temperature=1.0, seed=seed) for seed in range(2) for _ in SEEDS]
    completions = lm.generate(2 * list(SEEDS), samplings, "prefix")
    return [seed + done.text for seed, done in zip(2 * list(SEEDS), completions, strict=True)]


def _spread(pairs: Pairs, most: int) -> Pairs:
    """`most` of the pairs, evenly spread."""
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int)]
