"""Which architecture learns to read sooner: `python -m tests.benchmarks.architectures`.

MicroLM's hybrid of short convolutions and attention beside a plain Llama of the same width and layers: the same data,
updates and optimizer, from nothing, at the same time, each in a process of one thread; on a GPU, where there is one, in
larger steps. With `--write` the table goes to reports/performance.md.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch

from common.models.microlm.evaluate import forced_accuracy, held_out_items, last_answers
from common.models.microlm.model import Shape, build_model, parameter_count
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.train import PROBES, cpu_recipe, step_data
from common.training.supervised import fit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, STEP_TOKENS = {"cpu": (1500, 2048), "cuda": (1000, 16384)}[DEVICE]
TAIL = 50  # steps whose mean loss is reported
SHOWN = ("recall", "read, 4 passages", "two hops, 4 passages", "relevance", "extract", "update")
KINDS = {"Lfm2": "lfm2", "Llama": "llama"}


def measured(kind: str) -> tuple[int, int, float, float, dict[str, float]]:
    """Parameters, tokens, seconds, loss of the last steps in nats, and shares of right answers by probe."""
    torch.set_num_threads(1)
    recipe = replace(cpu_recipe(Shape(kind)), steps=STEPS, step_tokens=STEP_TOKENS, micro_tokens=STEP_TOKENS)
    tokenizer = microlm_tokenizer()
    model = build_model(recipe.shape, tokenizer, recipe.seed)
    steps: list[dict[str, float]] = []
    began = time.perf_counter()
    data = step_data(recipe, tokenizer, DEVICE, None)
    fit(model, data, STEPS, recipe.optimization, device=DEVICE, on_step=lambda step, figures: steps.append(figures))
    seconds = time.perf_counter() - began
    loss = sum(figures["loss"] for figures in steps[-TAIL:]) / TAIL
    right = {}
    for name in SHOWN:
        items = held_out_items("kind", "validation", *PROBES[name], 128)
        right[name] = forced_accuracy(model, last_answers(tokenizer, items), DEVICE)
    return parameter_count(model), int(steps[-1]["tokens"]), seconds, loss, right


def main() -> None:
    head = ["", "parameters", "tokens", "tokens/s", f"loss of the last {TAIL} steps", *SHOWN]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    with ProcessPoolExecutor(len(KINDS), multiprocessing.get_context("spawn")) as processes:
        found = zip(KINDS, processes.map(measured, KINDS.values()), strict=True)
        for name, (parameters, tokens, seconds, loss, right) in found:
            cells = [name, f"{parameters:,}", f"{tokens:,}", f"{tokens / seconds:,.0f}", f"{loss:.3f}"]
            cells += [f"{100 * right[probe]:.1f}%" for probe in SHOWN]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        where = f"on one {torch.cuda.get_device_name()}" if DEVICE == "cuda" else "on one core each"
        about = (
            f"A plain Llama beside MicroLM's hybrid of convolutions and attention: {STEPS} updates of {STEP_TOKENS:,} "
            f"tokens of the base schedule from nothing, the same data, at the same time {where}. Shares of 128 "
            "held-out items each of validation worlds, answers by the likeliest tokens."
        )
        write_section("Architectures of MicroLM", "tests.benchmarks.architectures", about + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
