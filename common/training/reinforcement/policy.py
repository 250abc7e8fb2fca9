"""A policy as an artifact: a copy of a model, trained into a folder that transformers and vLLM load.

def make(folder):
    train_policy(speaker, lambda lm: Searches(lm.context), settings.rl, folder)

policy = context.artifact("policy", key, make)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from common.models.hub import without_bars
from common.models.language_model import LanguageModel
from common.models.settings import LanguageModelSettings, place
from common.models.transformers_lm import TransformersLM
from common.training.preemption import CHECKPOINT
from common.training.reinforcement.episodes import Episode
from common.training.reinforcement.layouts import Layout
from common.training.reinforcement.rollout import Task
from common.training.reinforcement.sampler import sampler
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import train


def train_policy(
    speaker: LanguageModelSettings,
    task: Callable[[LanguageModel], Task],
    settings: Reinforcement,
    folder: Path,
    *,
    layout: Layout | None = None,
    on_step: Callable[[dict[str, float], Sequence[Episode]], None] = lambda line, episodes: None,
) -> None:
    """Train a copy of a model in fp32; `folder` then holds it, its tokenizer and what `train` tells of the training.

    Goes on from the checkpoint of an interrupted training, which is removed at the end.

    Args:
        speaker: the model, its device, and the backend of the rollouts.
        task: made when it is known what rollouts are sampled from.
        layout, on_step: as of `train`.

    Raises:
        UserError: there is no such model, or its backend cannot be given weights; and the errors of `train`.
    """
    start = TransformersLM.load(place(speaker.name), speaker.revision or None, device=speaker.device or None)
    model, tokenizer = start.model, start.tokenizer
    lm, sync = sampler(model, tokenizer, speaker)
    train(model, lm, tokenizer, task(lm), settings, folder, layout=layout, sync=sync, on_step=on_step)
    tokenizer.save_pretrained(folder)
    with without_bars():
        model.to("cpu").save_pretrained(folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
