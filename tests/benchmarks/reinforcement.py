"""GRPO beside TRL's, on one model and batch: `python -m tests.benchmarks.reinforcement`.

A model of MicroLM's shape with random weights, which hardly ever ends a text, so that both write equally long answers;
each in a process of one thread, one after the other. Rollouts: sampling with log-probabilities and rewards. Update: all
else of a step. Peak memory: of the process, less what it had before the first step. With `--write` the table goes to
reports/performance.md.
"""

import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from random import Random
from typing import Any

import torch

from common.data.text_world.text import corpus
from common.data.text_world.world import make_world
from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.models.transformers_lm import TransformersLM
from common.training.reinforcement.episodes import Outcome
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import train
from tests.common.training.reinforcement.acting import Writer

PROMPTS, ROLLOUTS, TOKENS, STEPS = 16, 8, 48, 6  # steps: the first is not counted
MICRO = 16_384  # tokens that go through the model at a time
Times = list[tuple[float, float, int]]  # seconds of rollout and update, tokens written; a step each


def prompts() -> list[str]:
    """Passages of a text world, about a hundred tokens each."""
    rng, world = Random(0), make_world(0, "train")
    return [" ".join(passage.text for passage in rng.sample(corpus(rng, world, 60), 4)) for _ in range(PROMPTS)]


class Fixed:
    """A `Task`: the same prompts in every step, rewards at random."""

    def __init__(self) -> None:
        self.prompts = prompts()

    def begin(self, step: int) -> list[Writer]:
        return [Writer(text, turns=1, max_tokens=TOKENS) for text in self.prompts for _ in range(ROLLOUTS)]

    def settle(self, agents: Sequence[Writer]) -> list[Outcome]:
        rng = Random(0)
        return [Outcome((rng.random(),)) for _ in agents]


def ours(model: Any, tokenizer: Any) -> Times:
    times: Times = []

    def on_step(line: dict[str, float], episodes: Sequence[Any]) -> None:
        written = sum(episode.generated for episode in episodes)
        times.append((line["rollout_seconds"], line["update_seconds"], written))

    lm = TransformersLM(model, tokenizer, batch_size=PROMPTS * ROLLOUTS)
    settings = Reinforcement(steps=STEPS, micro_tokens=MICRO, grouping="instance", warmup=0)
    train(model, lm, tokenizer, Fixed(), settings, on_step=on_step)
    return times


def trls(model: Any, tokenizer: Any) -> Times:
    import trl
    from datasets import Dataset

    times: Times = []
    rolled: list[float] = []
    written: list[int] = []

    class Timed(trl.GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            began = time.monotonic()
            found = super()._generate_and_score_completions(inputs)
            rolled.append(time.monotonic() - began)
            written.append(int(found["completion_mask"].sum()))
            return found

    class Steps(trl.trainer.grpo_trainer.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            whole = time.monotonic() - self.began
            times.append((rolled[-1], whole - rolled[-1], written[-1]))

    rng = Random(0)
    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder, num_generations=ROLLOUTS, per_device_train_batch_size=PROMPTS * ROLLOUTS,
            max_completion_length=TOKENS, max_steps=STEPS, beta=0.0, use_cpu=True, bf16=False, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
        )  # fmt: skip
        trainer = Timed(
            model,
            reward_funcs=lambda completions, **_: [rng.random() for _ in completions],
            args=config,
            train_dataset=Dataset.from_list([{"prompt": f"{text}:"} for text in prompts()]),
            processing_class=tokenizer,
            callbacks=[Steps()],
        )
        trainer.train()
    return times


KINDS = {"this project": ours, "TRL": trls}


def measured(name: str) -> tuple[list[float], list[float], int, float]:
    """Seconds of the rollouts and of the updates, tokens of a step, and megabytes at the peak over those before."""
    torch.set_num_threads(1)
    tokenizer = microlm_tokenizer()
    model = build_model(Shape(), tokenizer, seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = KINDS[name](model, tokenizer)[1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rollouts, updates, written = (list(column) for column in zip(*times, strict=True))
    return rollouts, updates, round(statistics.fmean(written)), (peak - before) / 1024


def main() -> None:
    lines = ["| | tokens written a step | rollout, tokens/s | update, tokens/s | peak memory, MB |", "|---" * 5 + "|"]
    for name in KINDS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rollouts, updates, written, peak = process.submit(measured, name).result()
        speeds = [f"{written / statistics.median(seconds):,.0f}" for seconds in (rollouts, updates)]
        lines.append(f"| {name} | {written:,} | {speeds[0]} | {speeds[1]} | {peak:,.0f} |")
        print(lines[-1], flush=True)
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        about = (
            f"GRPO on a model of MicroLM's shape with random weights: {PROMPTS} prompts of about a hundred tokens, "
            f"{ROLLOUTS} rollouts each of at most {TOKENS} tokens, one thread; medians of {STEPS - 1} steps, one "
            "library after the other. Peak memory: of the process over what it held before."
        )
        write_section("Reinforcement", "tests.benchmarks.reinforcement", about + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
