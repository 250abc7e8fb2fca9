"""Seconds and memory of an edit as edits add up: `python -m tests.benchmarks.editing`.

WISE beside fine-tuning (FT-L) and ROME on MicroLM's fact-bearing variant, with the settings of `wise/headline` at tiny
scale; T edits in sequence on one model, each case in a process of its own, one thread. `T ...` as arguments replaces
the lengths. With `--write` the table goes to reports/performance.md.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

LENGTHS = (10, 50, 100)
EDITORS = {"wise": "WISE", "ft_l": "FT-L", "rome": "ROME"}
SEED = 1000  # of the edits, which no report uses


def case(row: str, edits: int, artifacts: Path) -> dict[str, float]:
    """Make the edits in this process.

    Returns:
        `seconds`: of an edit, mean; `last`: of one of the last tenth; `core`: core seconds of an edit; `steps`: of an
        edit; `before`, `peak`: resident memory, MB, before the first edit and at most; `extra`: what the edited model
        needs beside the weights, MB.
    """
    import statistics
    import time

    import torch

    from common.experiments.compose import compose_table
    from common.experiments.context import Context
    from common.experiments.settings import to_settings
    from common.experiments.worker import peak_memory_mb, reset_peak_memory
    from common.models.settings import place
    from common.models.transformers_lm import TransformersLM
    from projects.wise.data import requests
    from projects.wise.editors import EDITORS as BUILDERS
    from projects.wise.editors import LOCATED, Material
    from projects.wise.run import contexts_of, moments_of

    torch.set_num_threads(1)
    settings: Any = to_settings("wise", compose_table("wise/headline").cell(row, "t100", SEED).settings)
    settings = replace(
        settings,
        data=replace(settings.data, edits=edits),
        wise=replace(settings.wise, shard_edits=max(1, edits // settings.wise.shards)),
    )
    context = Context(seed=SEED, folder=artifacts, artifacts=artifacts)
    [block] = requests(settings.data, SEED, None)
    lm = TransformersLM.load(place(settings.model), dtype=settings.dtype)
    moments = moments_of(settings, lm, context) if row in LOCATED else []
    material = Material(lm.model, lm.tokenizer, contexts_of(settings, lm, context), moments, SEED)
    editor = BUILDERS[row](settings, material)
    reset_peak_memory()
    before, cores = peak_memory_mb(), time.process_time()
    outcomes = editor.edit(block)
    cores = time.process_time() - cores
    late = outcomes[-max(1, edits // 10) :]
    return {
        "seconds": statistics.fmean(outcome.seconds for outcome in outcomes),
        "last": statistics.fmean(outcome.seconds for outcome in late),
        "core": cores / edits,
        "steps": statistics.fmean(outcome.steps for outcome in outcomes),
        "before": before,
        "peak": peak_memory_mb(),
        "extra": editor.extra_bytes / 1e6,
    }


def line(row: str, edits: int, found: dict[str, float]) -> str:
    cells = [EDITORS[row], f"{edits}", *(f"{found[name]:.2f}" for name in ("seconds", "last", "core"))]
    cells += [f"{found['steps']:.0f}", f"{found['before']:.0f}", f"{found['peak'] - found['before']:.0f}"]
    cells += [f"{found['extra']:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    lengths = [int(word) for word in sys.argv[1:] if word.isdigit()] or LENGTHS
    lines = [
        "| editor | T | seconds an edit | of the last tenth | core seconds an edit | steps | MB before | MB more "
        "at most | MB kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as artifacts:
        for row in EDITORS:
            for edits in lengths:
                command = [sys.executable, "-m", "tests.benchmarks.editing", "case", row, str(edits), artifacts]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                lines.append(line(row, edits, json.loads(done.stdout.splitlines()[-1])))
                print(lines[-1], flush=True)
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        about = (
            "MicroLM's fact-bearing variant (2 million parameters), T edits in sequence with the settings of "
            "`wise/headline` at tiny scale, one thread. Memory: resident, of a process for each case, beyond what it "
            "holds before the first edit; kept: beside the base model's weights."
        )
        write_section("Model editing", "tests.benchmarks.editing", about + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(case(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()
