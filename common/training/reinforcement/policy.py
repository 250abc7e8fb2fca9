"""A policy as an artifact: a copy of a model, trained into a folder that transformers and vLLM load.

def make(folder):
    train_policy(speaker, lambda lm: Searches(lm.context), settings.rl, folder)

policy = context.artifact("policy", key, make)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.experiments.randomness import isolated
from common.models.hub import without_bars
from common.models.language_model import LanguageModel
from common.models.lora import with_adapters
from common.models.settings import LanguageModelSettings, place
from common.models.transformers_lm import TransformersLM
from common.training.preemption import CHECKPOINT
from common.training.reinforcement.advantages import Estimator
from common.training.reinforcement.episodes import Episode
from common.training.reinforcement.layouts import Layout
from common.training.reinforcement.rollout import Mask, Task
from common.training.reinforcement.sampler import sampler
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import train

SHOWN = ("reward", "kl", "entropy", "turns", "tokens")  # of a line of the curve, while training goes on


def train_policy(
    speaker: LanguageModelSettings,
    task: Callable[[LanguageModel], Task],
    settings: Reinforcement,
    folder: Path,
    *,
    estimator: Estimator | None = None,
    layout: Layout | None = None,
    mask: Mask | None = None,
    on_step: Callable[[dict[str, float], Sequence[Episode]], None] = lambda line, episodes: None,
) -> None:
    """Train a copy of a model; `folder` then holds it, its tokenizer and what `train` tells of the training.

    All weights are trained in fp32, or LoRA's adapters of frozen ones, which are added to them at the end.

    Prints a line for each step. Goes on from the checkpoint of an interrupted training, which is removed at the end.

    Args:
        speaker: the model, its device, and the backend of the rollouts.
        task: made when it is known what rollouts are sampled from.
        estimator, layout, mask, on_step: as of `train`.

    Raises:
        UserError: there is no such model, or its backend cannot be given weights; and the errors of `train`.
    """
    dtype = speaker.dtype if settings.lora_rank else "float32"
    start = TransformersLM.load(
        place(speaker.name), speaker.revision or None, dtype=dtype, device=speaker.device or None
    )
    model, tokenizer = start.model, start.tokenizer
    adapted = None
    if settings.lora_rank:
        with isolated(settings.seed):
            adapted = with_adapters(model, settings.lora_rank, settings.lora_alpha)
    lm, sync = sampler(model, tokenizer, speaker)

    def watched(line: dict[str, float], episodes: Sequence[Episode]) -> None:
        print(in_short(line, settings.steps))
        on_step(line, episodes)

    train(
        model,
        lm,
        tokenizer,
        task(lm),
        settings,
        folder,
        estimator=estimator,
        layout=layout,
        mask=mask,
        sync=sync,
        on_step=watched,
    )
    tokenizer.save_pretrained(folder)
    whole = model if adapted is None else adapted.merge_and_unload()
    with without_bars():
        whole.to("cpu").save_pretrained(folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def in_short(line: Mapping[str, float], steps: int) -> str:
    """A line of the learning curve, to be read while training goes on: `step 3/40  reward 0.61  kl 0.02 ...`."""
    shown = [f"{name} {line[name]:.3g}" for name in SHOWN if name in line]
    seconds = line["rollout_seconds"] + line["update_seconds"]
    return "  ".join([f"step {line['step'] + 1}/{steps}", *shown, f"{seconds:.1f} s"])
