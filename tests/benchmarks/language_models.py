"""Tokens a second of the transformers backend beside vLLM: `python -m tests.benchmarks.language_models`.

One checkpoint (MicroLM's architecture and tokenizer, random weights, so that texts do not end early and greedy tokens
are the same in both), one machine, one run: each backend lives in a process of its own, of the environment that it
needs, and they take turns. Each has one thread: a model of this size is slower on two, in both backends. Rates are the
best of `ROUNDS`: what the backend can do, not what else the machine did.
Prefill is the call for one new token; decoding is what `TOKENS` more take beyond it. Exits with 1 when transformers
decodes less than 0.7 times as fast as vLLM at batch 64. With `--write` the table goes to reports/performance.md.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

BATCHES = (1, 8, 64)
PROMPT, TOKENS, ROUNDS = 128, 64, 4
SHARE = 0.7  # of vLLM's rate at batch 64
PYTHON = {"transformers": sys.executable, "vllm": str(ROOT / ".venv-vllm" / "bin" / "python")}


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
    from common.models.language_model import LanguageModel, Sampling
    from common.models.transformers_lm import TransformersLM
    from common.models.vllm_lm import VllmLM

    lm: Any = (TransformersLM if backend == "transformers" else VllmLM).load(folder, dtype=dtype)
    words = [lm.tokenizer.decode([i]) for i in range(600, 2600)]

    def timed(prompts: list[str], tokens: int) -> dict[str, float]:
        model: LanguageModel = lm
        start = time.perf_counter()
        found = model.generate(prompts, Sampling(max_tokens=tokens))
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


class Worker:
    """A backend in a process of its own."""

    def __init__(self, backend: str, folder: Path, dtype: str) -> None:
        command = [PYTHON[backend], "-m", "tests.benchmarks.language_models", "--work", backend, str(folder), dtype]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read("ready")

    def measure(self, batch: int, seed: int) -> tuple[float, float]:
        """Tokens a second of prefill and of decoding."""
        assert self.process.stdin is not None
        print(json.dumps({"batch": batch, "seed": seed}), file=self.process.stdin, flush=True)
        found = json.loads(self._read("{"))
        prefill, whole = found["prefill"], found["whole"]
        decoding = whole["seconds"] - prefill["seconds"] * whole["read"] / prefill["read"]
        return prefill["read"] / prefill["seconds"], (whole["written"] - batch) / decoding

    def _read(self, begins: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begins):
                return line
        raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(dtype: str) -> list[tuple[str, int, dict[str, float]]]:
    """(phase, batch, best rate by backend) as they are measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint(folder)
        backends = [backend for backend, python in PYTHON.items() if Path(python).exists()]
        workers = {backend: Worker(backend, folder, dtype) for backend in backends}
        rows = []
        try:
            for batch in BATCHES:
                rates: dict[str, list[tuple[float, float]]] = {backend: [] for backend in workers}
                for seed in range(ROUNDS):
                    for backend, worker in workers.items():
                        rates[backend].append(worker.measure(batch, seed))
                for place, phase in enumerate(("prefill", "decoding")):
                    rows.append((phase, batch, {b: max(rate[place] for rate in found) for b, found in rates.items()}))
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def main() -> None:
    lines = ["| dtype | phase | batch | transformers | vLLM | transformers / vLLM |", "|---|---|---|---|---|---|"]
    shares = {}
    for dtype in ("float32", "bfloat16"):
        for phase, batch, rates in measure(dtype):
            ours, theirs = rates["transformers"], rates.get("vllm")
            share = ours / theirs if theirs else None
            shares[dtype, phase, batch] = share
            cells = [f"{ours:,.0f}", f"{theirs:,.0f}" if theirs else "not installed", f"{share:.2f}" if share else ""]
            lines.append(f"| {dtype} | {phase} | {batch} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        assert __doc__ is not None
        about = (
            "Tokens a second on this machine's CPU: MicroLM's architecture with random weights, prompts of "
            f"{PROMPT} tokens, {TOKENS} greedy tokens; one thread, the backends take turns, best of {ROUNDS} rounds. "
            "vLLM as `VllmLM` runs it on a CPU: in process, eager (compiled, it took a minute to load and was as fast)."
        )
        write_section("Language models", "tests.benchmarks.language_models", about + "\n\n" + "\n".join(lines))
    share = shares["float32", "decoding", 64]
    slow = share is not None and share < SHARE
    sys.exit(f"transformers decodes at {share:.2f} of vLLM's rate, less than {SHARE}" if slow else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:5])
    else:
        main()
