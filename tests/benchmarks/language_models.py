"""Speed of the transformers backend beside vLLM, in process and served: `python -m tests.benchmarks.language_models`.

One checkpoint (MicroLM's architecture and tokenizer, random weights, so that texts do not end early and greedy tokens
are the same in all), one machine, one run: each backend lives in a process of its own, of the environment that it
needs, and they take turns. Each has one thread: a model of this size is slower on two, in all backends; `served` is a
`vllm serve` beside the process that asks it over HTTP. Rates are the best of `ROUNDS`: what the backend can do, not
what else the machine did. Prefill is the call for one new token; decoding is what the fastest call for `TOKENS` more
takes beyond it. Exits with 1 when transformers decodes less than 0.7 times as fast as vLLM in process at batch 64. With
`--write` the tables go to reports/performance.md.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

BATCHES = (1, 8, 64)
PROMPT, TOKENS, ROUNDS = 128, 64, 4
SHARE = 0.7  # of vLLM's rate at batch 64
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
PYTHON = {"transformers": sys.executable, "vllm": str(VLLM), "served": sys.executable}
SHOWN = {"transformers": "transformers", "vllm": "vLLM in process", "served": "`vllm serve`"}


def checkpoint(folder: Path) -> None:
    """MicroLM with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from common.models.settings import SHIPPED

    config = AutoConfig.from_pretrained(SHIPPED["microlm"])
    config.initializer_range = 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(SHIPPED["microlm"]).save_pretrained(folder)


def work(backend: str, folder: str, dtype: str) -> None:
    """Answer measurements on standard input: {"batch", "seed"} -> seconds and tokens of prefill and of the whole."""
    from transformers import AutoTokenizer

    from common.models.build import build
    from common.models.language_model import Sampling
    from common.models.settings import LanguageModelSettings

    lm = build(LanguageModelSettings(folder, backend, dtype=dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [tokenizer.decode([i]) for i in range(600, 2600)]

    def timed(prompts: list[str], tokens: int) -> dict[str, float]:
        start = time.perf_counter()
        found = lm.generate(prompts, Sampling(max_tokens=tokens))
        seconds = time.perf_counter() - start
        read = sum(c.prompt_tokens for c in found)
        return {"seconds": seconds, "read": read, "written": sum(c.completion_tokens for c in found)}

    def prompts(batch: int, seed: object) -> list[str]:
        draw = random.Random(f"{batch} {seed}")
        return ["".join(draw.choices(words, k=PROMPT)) for _ in range(batch)]

    for tokens in (1, 2):
        timed(prompts(2, f"warm {tokens}"), tokens)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        batch, seed = order["batch"], order["seed"]
        prefill = timed(prompts(batch, f"{seed} a"), 1)  # other prompts each time: vLLM keeps prefixes
        whole = timed(prompts(batch, f"{seed} b"), 1 + TOKENS)
        print(json.dumps({"prefill": prefill, "whole": whole}), flush=True)


@dataclass(frozen=True)
class Round:
    """Tokens a second of the call for one token; of the longer call tokens read, those after the first, and seconds."""

    prefill: float
    read: int
    decoded: int
    seconds: float


class Worker:
    """A backend in a process of its own; `load` is the seconds until it had answered twice."""

    def __init__(self, backend: str, folder: Path, dtype: str) -> None:
        command = [PYTHON[backend], "-m", "tests.benchmarks.language_models", "--work", backend, str(folder), dtype]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read("ready")
        self.load = time.perf_counter() - start

    def measure(self, batch: int, seed: int) -> Round:
        assert self.process.stdin is not None
        print(json.dumps({"batch": batch, "seed": seed}), file=self.process.stdin, flush=True)
        found = json.loads(self._read("{"))
        prefill, whole = found["prefill"], found["whole"]
        return Round(prefill["read"] / prefill["seconds"], whole["read"], whole["written"] - batch, whole["seconds"])

    def _read(self, begins: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begins):
                return line
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def close(self) -> None:
        """Ends it, and a server that it started, by the end of its input."""
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def measure(dtype: str) -> tuple[dict[str, float], dict[int, dict[str, list[Round]]]]:
    """Seconds to load by backend; speeds of all rounds by batch and backend."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(folder)
        workers: dict[str, Worker] = {}
        try:
            for backend in PYTHON:
                if backend == "transformers" or VLLM.exists():
                    workers[backend] = Worker(backend, folder, dtype)
            speeds: dict[int, dict[str, list[Round]]] = {}
            for batch in BATCHES:
                speeds[batch] = {backend: [] for backend in workers}
                for seed in range(ROUNDS):
                    for backend, worker in workers.items():
                        speeds[batch][backend].append(worker.measure(batch, seed))
        finally:
            for worker in workers.values():
                worker.close()
    return {backend: worker.load for backend, worker in workers.items()}, speeds


def rates(rounds: Sequence[Round]) -> tuple[float, float, float]:
    """Best tokens a second of prefill and of decoding, seconds of the fastest whole call."""
    prefill = max(found.prefill for found in rounds)
    whole = min(rounds, key=lambda found: found.seconds)
    return prefill, whole.decoded / (whole.seconds - whole.read / prefill), whole.seconds


def row(*head: object, figures: Mapping[str, float], form: str, last: str | None = None) -> str:
    """A line of a table, a column for each backend."""
    cells = [format(figures[backend], form) if backend in figures else "not installed" for backend in SHOWN]
    return f"| {' | '.join([*map(str, head), *cells, *([] if last is None else [last])])} |"


def main() -> None:
    names = " | ".join(SHOWN.values())
    speed = [f"| dtype | phase | batch | {names} | transformers / vLLM in process |", "|---" * 7 + "|"]
    clock = [f"| dtype | seconds of | {names} |", "|---" * 5 + "|"]
    share = None
    for dtype in ("float32", "bfloat16"):
        load, speeds = measure(dtype)
        clock.append(row(dtype, "loading", figures=load, form=".1f"))
        for batch, found in speeds.items():
            best = {backend: rates(rounds) for backend, rounds in found.items()}
            for place, phase in enumerate(("prefill", "decoding")):
                figures = {backend: rate[place] for backend, rate in best.items()}
                of_vllm = figures["transformers"] / figures["vllm"] if "vllm" in figures else None
                if (dtype, phase, batch) == ("float32", "decoding", 64):
                    share = of_vllm
                last = "" if of_vllm is None else f"{of_vllm:.2f}"
                speed.append(row(dtype, phase, batch, figures=figures, form=",.0f", last=last))
            seconds = {backend: rate[2] for backend, rate in best.items()}
            clock.append(row(dtype, f"a call, batch {batch}", figures=seconds, form=".2f"))
        print("\n".join([*speed, "", *clock]), flush=True)
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        about = (
            "This machine's CPU: MicroLM's architecture with random weights, prompts of "
            f"{PROMPT} tokens, {TOKENS} greedy tokens; one thread, the backends take turns, best of {ROUNDS} rounds. "
            "vLLM as the backends `vllm` and `served` run it on a CPU: eager (compiled, it took a minute to load and "
            "was as fast). Served: front end, engine and the `OpenAILM` that asks over HTTP are processes of their own."
        )
        below = (
            f"Seconds on the clock. A call: prompts read and {1 + TOKENS} tokens written to each. Loading, once: from "
            "the start of the process to the end of two first calls, with interpreter, imports and server."
        )
        text = "\n".join([about, "", "Tokens a second:", "", *speed, "", below, "", *clock])
        write_section("Language models", "tests.benchmarks.language_models", text)
    slow = share is not None and share < SHARE
    sys.exit(f"transformers decodes at {share:.2f} of vLLM's rate, less than {SHARE}" if slow else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:5])
    else:
        main()
