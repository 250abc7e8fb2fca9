"""A language model fine-tuned to a paper's own prompts by demonstrations: MicroLM in minutes, or any checkpoint.

In a paper whose `Settings` have `lm: LanguageModelSettings`, `tuning: Tuning` and `taught: Teaching`:

    def make(folder: Path) -> None:
        lessons = teach(TEACHERS, settings.taught)
        specialise(settings.lm.name, lessons, settings.tuning, folder, settings.lm.revision)

    key = artifact_key(settings.lm.name, settings.tuning, settings.taught, settings.lm.revision)
    lm = build(replace(settings.lm, name=str(context.artifact("generator", key, make)), revision=""))

`artifact` keeps the result under a key of base, tuning, what is taught, and code: all rows of a table share it. The
folder is an ordinary checkpoint in fp32, LoRA merged, which transformers and vLLM load alike.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.experiments.errors import UserError
from common.experiments.randomness import isolated
from common.models.hub import located, mute_kernel_advice, without_bars
from common.models.language_model import LanguageModel, Sampling, encode, encode_continuation
from common.models.lora import with_adapters
from common.models.microlm.demonstrations import Demonstration, counts
from common.models.microlm.recipe import ALL_SKILLS, draw_items, encode_items, target_weights
from common.models.microlm.skills import Level, taught_world
from common.models.microlm.tokenizer import CHAT_TEMPLATE
from common.models.microlm.tuning import Tuning
from common.models.settings import place
from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Batch, Example, Optimization, collate, in_order

REPLAYED = Level(passages=(1, 2, 4, 8), facts=2, hops=(1, 2, 3), turns=2, notes=5)


def artifact_key(base: str | Path, tuning: Tuning, taught: Any, revision: str = "") -> dict[str, Any]:
    """What the specialised weights depend on besides code: settings for `Context.artifact`.

    Args:
        taught: what the demonstrations are drawn by: a dataclass or a JSON-serialisable value.
    """
    values = asdict(taught) if is_dataclass(taught) and not isinstance(taught, type) else taught
    return {"base": located(place(str(base)), revision or None)[2], "tuning": asdict(tuning), "taught": values}


def specialise(
    base: str | Path,
    demonstrations: Sequence[Demonstration],
    tuning: Tuning,
    folder: Path,
    revision: str = "",
    device: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fine-tune a copy of `base` on the demonstrations; returns `folder`, which then holds the model.

    Beside the model: `recipe.json` (base, tuning, what was demonstrated, with which faults), `training.jsonl`, and for
    LoRA `adapter/`, the additions alone. Resumable: after an interruption the same call goes on from the checkpoint, to
    the same weights; after the end it does nothing. The same arguments give the same bytes on a CPU.

    Args:
        base: as `LanguageModelSettings.name` of a model in this process; its tokenizer has a chat template.
        revision, device: as in `LanguageModelSettings`.

    Raises:
        UserError: there is no such base; or replay is asked for, and its tokenizer is not MicroLM's.
        ValueError: no demonstrations, or no steps; or `folder` holds another specialisation.
    """
    if not demonstrations:
        raise ValueError("there are no demonstrations")
    if not tuning.steps:
        raise ValueError("a tuning of 0 steps specialises nothing: take the base as it is")
    source, name, commit = located(place(str(base)), revision or None)
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    if tuning.replay and tokenizer.chat_template != CHAT_TEMPLATE:
        raise UserError(f"replay is of MicroLM's skills, which model '{name}' was never taught: set replay to 0")
    demonstrated = {"count": len(demonstrations), "sha256": _digest(demonstrations), **counts(demonstrations)}
    if begin(folder, {"base": commit, "tuning": asdict(tuning), "demonstrations": demonstrated}):
        return folder
    options = {"use_safetensors": True, "local_files_only": True}
    with without_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    data = DemonstrationData(demonstrations, tuning, tokenizer)
    adapted = None
    if tuning.method == "lora":
        with isolated(tuning.seed):
            adapted = with_adapters(model, tuning.rank, tuning.alpha, data.tokens() if tuning.embeddings else None)

    def save(into: Path) -> None:
        whole = model.to("cpu")
        if adapted is not None:
            adapted.save_pretrained(into / "adapter")
            whole = adapted.merge_and_unload()
        tokenizer.save_pretrained(into)
        whole.save_pretrained(into)

    optimization = Optimization(lr=tuning.lr, warmup=tuning.warmup, decay=tuning.decay, muon=tuning.muon)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        mute_kernel_advice()
    fit_logged(folder, model, data, tuning.steps, optimization, device=device, seed=tuning.seed, say=say)
    with without_bars():
        finish(folder, save)
    return folder


class DemonstrationData:
    """The steps of a specialisation: demonstrations in a new order every round, and replayed base skills.

    Step `i` is a function of the demonstrations, the tuning and `i`.
    """

    def __init__(self, demonstrations: Sequence[Demonstration], tuning: Tuning, tokenizer: Any) -> None:
        self.tuning, self.tokenizer = tuning, tokenizer
        self.examples = [example(tokenizer, shown) for shown in demonstrations]
        self.world = taught_world()
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
        stream = iter(draw_items(random.Random(f"replay/{self.tuning.seed}/{index}"), REPLAYED, ALL_SKILLS, self.world))
        while replayed < self.tuning.replay * self.tuning.step_tokens:
            [ids] = encode_items(self.tokenizer, [next(stream)])
            examples.append(Example(ids, target_weights(ids, self.tokenizer)))
            replayed += len(ids)
        return collate(examples, 0, self.tuning.micro_tokens)

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


def _digest(demonstrations: Sequence[Demonstration]) -> str:
    text = json.dumps([asdict(shown) for shown in demonstrations], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
