"""A language model fine-tuned to a paper's own prompts by demonstrations: MicroLM in minutes, or any checkpoint.

In a paper's module:

    def build(folder: Path) -> None:
        specialise(MICROLM, demonstrations(recipe), tuning, folder)

    folder = context.artifact("generator", artifact_key(MICROLM, tuning, recipe), build)
    lm = TransformersLM.load(str(folder))

`artifact` keeps the result under a key of base, tuning, recipe and code: all rows of a table share it. The folder is an
ordinary checkpoint in fp32, LoRA merged, which transformers and vLLM load alike.
"""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.models.language_model import LanguageModel, Sampling, encode, encode_continuation
from common.models.microlm.demonstrations import Demonstration, counts
from common.models.microlm.evaluate import forced_accuracy, held_out_items
from common.models.microlm.recipe import ALL_SKILLS, draw_items, encode_items, target_weights
from common.models.microlm.skills import Level, taught_world
from common.models.transformers_lm import located
from common.training.supervised import Batch, Example, Optimization, collate, fit, in_order

MICROLM = Path(__file__).parent / "weights"
REPLAYED = Level(passages=(1, 2, 4, 8), facts=2, hops=(1, 2, 3), turns=2, notes=5)


@dataclass(frozen=True)
class Tuning:
    """How a base is specialised. Time is proportional to `steps * step_tokens`.

    Attributes:
        method: `full` trains all weights, `lora` low-rank additions to all linear layers, merged at the end.
        rank, alpha: of LoRA; the addition is scaled by alpha / rank.
        embeddings: with LoRA, also train the embeddings of the tokens that the demonstrations use: MicroLM has words in
            its lexicon that no training showed it.
        steps: updates.
        step_tokens: tokens of an update, replayed ones included.
        micro_tokens: tokens that go through the model at a time, at most.
        replay: share of the tokens, in [0, 1), that are MicroLM's base skills, so that they are not forgotten; 0 for
            another model.
        seed: of LoRA's initial weights, the order of demonstrations and what is replayed.
    """

    method: Literal["full", "lora"] = "full"
    rank: int = 16
    alpha: float = 32.0
    embeddings: bool = True
    steps: int = 200
    step_tokens: int = 2048
    micro_tokens: int = 4096
    replay: float = 0.15
    seed: int = 0
    optimization: Optimization = field(default_factory=lambda: Optimization(lr=1e-3, warmup=10, decay=0.5))

    def __post_init__(self) -> None:
        if self.method not in ("full", "lora"):
            raise ValueError(f"method must be full or lora, not '{self.method}'")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay must lie in [0, 1), not {self.replay}")
        if min(self.rank, self.steps, self.step_tokens) < 1:
            raise ValueError(f"rank, steps and step_tokens must be at least 1: {self}")


def artifact_key(base: str | Path, tuning: Tuning, recipe: Any) -> dict[str, Any]:
    """What the specialised weights depend on besides code: settings for `Context.artifact`.

    Args:
        recipe: what the demonstrations are drawn by: a dataclass or a JSON-serialisable value.
    """
    values = asdict(recipe) if is_dataclass(recipe) and not isinstance(recipe, type) else recipe
    return {"base": _located(base)[1], "tuning": asdict(tuning), "recipe": values}


def specialise(
    base: str | Path,
    demonstrations: Sequence[Demonstration],
    tuning: Tuning,
    folder: Path,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fine-tune a copy of `base` on the demonstrations; returns `folder`, which then holds the model.

    Beside the model: `specialisation.json` (tuning, base, what was demonstrated, with which faults), `training.jsonl`,
    and for LoRA `adapter/`, the additions alone. Resumable: after an interruption the same call goes on from the
    checkpoint, to the same weights; after the end it does nothing. The same arguments give the same bytes on a CPU.

    Args:
        base: a folder, or an id on this machine's copy of the hub; its tokenizer has a chat template.

    Raises:
        UserError: there is no such base.
        ValueError: no demonstrations; or `folder` holds another specialisation.
    """
    if not demonstrations:
        raise ValueError("there are no demonstrations")
    source, revision = _located(base)
    plan = {
        "base": revision,
        "tuning": asdict(tuning),
        "demonstrations": {"count": len(demonstrations), "sha256": _digest(demonstrations), **counts(demonstrations)},
    }
    _begin(folder, plan)
    if (folder / "model.safetensors").exists():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    data = DemonstrationData(demonstrations, tuning, tokenizer)
    adapted = with_adapters(model, tuning, data.tokens()) if tuning.method == "lora" else None
    losses: list[float] = []
    start = time.monotonic()

    def on_step(step: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        if (step + 1) % max(1, tuning.steps // 10) == 0 or step + 1 == tuning.steps:
            line = {"step": step + 1, "loss": round(sum(losses) / len(losses), 4)}
            line["seconds"] = round(time.monotonic() - start, 1)
            losses.clear()
            with open(folder / "training.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            say("  ".join(f"{name} {value}" for name, value in line.items()))

    fit(model, data, tuning.steps, tuning.optimization, folder / "checkpoint", device, on_step=on_step)
    if adapted is not None:
        adapted.save_pretrained(folder / "adapter")
        model = adapted.merge_and_unload()
    tokenizer.save_pretrained(folder)
    model.to("cpu").save_pretrained(folder)
    shutil.rmtree(folder / "checkpoint")
    return folder


def with_adapters(model: Any, tuning: Tuning, tokens: Sequence[int]) -> Any:
    """A PEFT model around `model`: low-rank additions to its linear layers, and the embeddings of `tokens` if wanted.

    They alone are trained, and are zero at first; `model` itself computes with them from now on.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        target_modules="all-linear",
        trainable_token_indices=list(tokens) if tuning.embeddings else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tuning.seed)
        return get_peft_model(model, config)


class DemonstrationData:
    """The steps of a specialisation: demonstrations in a new order every round, and replayed base skills.

    Step `i` is a function of the demonstrations, the tuning and `i`.
    """

    def __init__(self, demonstrations: Sequence[Demonstration], tuning: Tuning, tokenizer: Any) -> None:
        self.tuning, self.tokenizer = tuning, tokenizer
        self.examples = [example(tokenizer, shown) for shown in demonstrations]
        self.taught = taught_world()
        lengths = np.array([len(one.ids) for one in self.examples])
        own = round(tuning.step_tokens * (1 - tuning.replay))  # tokens of demonstrations in a step
        rounds = int(tuning.steps * own / lengths.sum()) + 2
        rng = np.random.default_rng(tuning.seed)
        self.order = np.concatenate([rng.permutation(len(lengths)) for _ in range(rounds)])
        self.cuts = np.searchsorted(np.cumsum(lengths[self.order]), np.arange(tuning.steps + 1) * own)

    def tokens(self) -> list[int]:
        """Every token of the demonstrations, once, sorted."""
        return sorted({int(token) for one in self.examples for token in one.ids})

    def step(self, index: int) -> list[Batch]:
        """Micro-batches of `step_tokens` tokens, more or less one demonstration."""
        chosen: NDArray[np.int64] = self.order[self.cuts[index] : max(self.cuts[index + 1], self.cuts[index] + 1)]
        examples = [self.examples[i] for i in chosen]
        replayed = 0
        stream = iter(
            draw_items(random.Random(f"replay/{self.tuning.seed}/{index}"), REPLAYED, ALL_SKILLS, self.taught)
        )
        while replayed < self.tuning.replay * self.tuning.step_tokens:
            [ids] = encode_items(self.tokenizer, [next(stream)])
            examples.append(Example(ids, target_weights(ids, self.tokenizer)))
            replayed += len(ids)
        return collate(examples, self.tokenizer.pad_token_id or 0, self.tuning.micro_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


def example(tokenizer: Any, shown: Demonstration) -> Example:
    """A demonstration as the model will see it: the prompt as `generate` renders it; answer and end are targets."""
    prompt = encode(tokenizer, shown.prompt)
    answer = [*encode_continuation(tokenizer, shown.answer), tokenizer.eos_token_id]
    weights = [0.0] * len(prompt) + [1.0] * len(answer)
    return Example(np.array(prompt + answer, dtype=np.int64), np.array(weights, dtype=np.float32))


def accuracy(lm: LanguageModel, demonstrations: Sequence[Demonstration], max_tokens: int = 256) -> dict[str, float]:
    """Share of answers given exactly, greedily, by source: what a paper gates its run on."""
    completions = lm.generate([shown.prompt for shown in demonstrations], Sampling(max_tokens=max_tokens), "gate")
    right: dict[str, list[bool]] = {}
    for shown, done in zip(demonstrations, completions, strict=True):
        right.setdefault(shown.source, []).append(done.text.strip() == shown.answer.strip())
    return {source: sum(hits) / len(hits) for source, hits in sorted(right.items())}


def base_skills(model: Any, tokenizer: Any, skills: Mapping[str, Level], count: int = 64) -> dict[str, float]:
    """MicroLM's base skills on validation worlds, by teacher forcing: before and after tell what was forgotten."""
    return {
        skill: forced_accuracy(model, tokenizer, held_out_items("kept", "validation", skill, level, count))
        for skill, level in skills.items()
    }


def _located(base: str | Path) -> tuple[Path, str]:
    """Folder and revision of a base."""
    folder, _, revision = located(str(base), None)
    return folder, revision


def _digest(demonstrations: Sequence[Demonstration]) -> str:
    text = json.dumps([asdict(shown) for shown in demonstrations], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _begin(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write down what is made in `folder`; ValueError when that was something else."""
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / "specialisation.json", json.dumps(plan, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path} is of another specialisation; take another folder")
    path.write_text(text)
