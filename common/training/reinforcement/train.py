"""The training loop: roll out, settle, update; a line of the learning curve for each step, a checkpoint now and then.
A few episodes of the first and of the last step are kept as texts.

    lm = TransformersLM(model, tokenizer)                 # samples from the weights that are trained
    train(model, lm, tokenizer, task, Reinforcement(steps=200), folder)

Episodes, seeds and mini-batches of a step are functions of its number, and all else that the next step depends on is in
the checkpoint: a run that was killed and called again equals the uninterrupted one, to the bit on a CPU. One process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.models.language_model import LanguageModel, Sampling
from common.training.folder import log_line
from common.training.preemption import heeding
from common.training.reinforcement.advantages import Estimator
from common.training.reinforcement.episodes import Episode
from common.training.reinforcement.layouts import Layout
from common.training.reinforcement.learner import Learner
from common.training.reinforcement.rollout import Mask, Task, roll_out
from common.training.reinforcement.settings import Reinforcement
from common.training.resumable import Resumable

CURVE, EPISODES = "curve.jsonl", "episodes.jsonl"  # file names
SHOWN = 2  # episodes of the first and of the last step that are kept to be read


def nothing() -> None:
    """A sampler that shares the weights needs no transfer."""


@heeding()
def train(
    model: Any,
    lm: LanguageModel,
    tokenizer: Any,
    task: Task,
    settings: Reinforcement,
    folder: Path | None = None,
    *,
    estimator: Estimator | None = None,
    layout: Layout | None = None,
    mask: Mask | None = None,
    sync: Callable[[], None] = nothing,
    look: Callable[[int], Mapping[str, float]] = lambda step: {},
    on_step: Callable[[dict[str, float], Sequence[Episode]], None] = lambda line, episodes: None,
    save_every: float = 60.0,
) -> None:
    """Train `model` in place, going on from `folder` where it holds a checkpoint.

    Args:
        model: a transformers language model; for LoRA, one with adapters (`with_adapters`).
        lm: what rollouts are sampled from; `TransformersLM(model, ...)`, or a server or engine that `sync` feeds.
        tokenizer: of both.
        folder: for the checkpoint, the curve and the episodes; None for none of them.
        estimator, layout: a method's own, in place of what the settings name.
        mask: which tokens of a turn are trained; None for all.
        sync: brings the weights of `model` to `lm`; called before each rollout.
        look: what else the line of a step tells: evaluations; called after the step, with its number.
        on_step: called with the line and the episodes of each step.
        save_every: seconds between checkpoints.

    Raises:
        UserError: settings that do not fit the model; a context that is too long.
        ValueError: the checkpoint is of other settings.
        Preempted: a stop was requested; the checkpoint holds every step taken.
        FloatingPointError: a loss is not finite.
    """
    learner = Learner(model, settings, estimator, layout)
    state = Resumable(folder, learner.parts, asdict(settings), save_every)
    for step in range(state.done, settings.steps):
        began = time.monotonic()
        sync()
        seed = int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0])
        sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, seed=seed, log_probs=True)
        episodes = roll_out(task, step, lm, tokenizer, sampling, settings.slots, mask)
        rolled = time.monotonic()
        figures = learner.update(episodes, step)
        updated = time.monotonic()
        line = {"step": step, **described(episodes), **figures, **look(step)}
        line |= {"rollout_seconds": round(rolled - began, 3), "update_seconds": round(updated - rolled, 3)}
        if folder is not None:
            log_line(folder / CURVE, line)
            if step in (0, settings.steps - 1):
                log_line(folder / EPISODES, {"step": step, "episodes": rendered(episodes, tokenizer)})
        on_step(line, episodes)
        state.after(step + 1, last=step + 1 == settings.steps)


def described(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over episodes: reward and its parts, turns, tokens generated, longest context; share of answers cut off."""
    turns = [turn for episode in episodes for turn in episode.turns]
    parts = sorted({name for episode in episodes for name in episode.outcome.parts})

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    figures = {f"reward.{name}": mean([e.outcome.parts.get(name, 0.0) for e in episodes]) for name in parts}
    return {
        "reward": mean([episode.reward for episode in episodes]),
        **figures,
        "turns": mean([len(episode.turns) for episode in episodes]),
        "tokens": mean([episode.generated for episode in episodes]),
        "longest": mean([max((len(turn.context) for turn in e.turns), default=0) for e in episodes]),
        "cut": mean([turn.finish_reason == "length" for turn in turns]),
    }


def rendered(episodes: Sequence[Episode], tokenizer: Any) -> list[dict[str, Any]]:
    """The first episodes of different groups, to be read: reward and its parts; prompt and completion of each turn.

    Texts are those of the tokens, special ones too.
    """
    first: dict[str, Episode] = {}
    for episode in episodes:
        first.setdefault(episode.group, episode)
    return [
        {
            "group": episode.group,
            "reward": episode.reward,
            **{f"reward.{name}": value for name, value in episode.outcome.parts.items()},
            "turns": [
                {"prompt": tokenizer.decode(turn.context), "completion": tokenizer.decode(turn.token_ids)}
                for turn in episode.turns
            ],
        }
        for episode in list(first.values())[:SHOWN]
    ]
