"""What a specialisation costs and brings: `python -m tests.benchmarks.specialisation`.

The shipped MicroLM is taught the two prompts of a toy paper, which it does not know: by all weights, by LoRA, and once
from demonstrations with faults in stated shares. Answers are greedy, on names that no training saw, and right when
they are exact. One thread, as a cell of a table has. Exits with 1 when one takes more than three minutes of two cores.
With `--write` the table goes to reports/performance.md.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from common.models.microlm.demonstrations import Teaching
from common.models.microlm.evaluate import forced_accuracy, held_out_items, last_answers
from common.models.microlm.skills import Level
from common.models.microlm.specialise import accuracy, specialise
from common.models.microlm.tuning import Tuning
from common.models.settings import SHIPPED
from common.models.transformers_lm import TransformersLM
from tests.common.models.microlm.toy_paper import EQUAL, held_out, taught

CLOCK = 180  # seconds
BUDGET = 2 * CLOCK  # core seconds
PERFECT = Teaching(3000, EQUAL)
FAULTY = Teaching(3000, EQUAL, {"rewrite": {"malformed": 0.4}, "route": {"misrouted": 0.2}}, systematic=True)
FULL = Tuning(replay=0.3)
MUON = replace(FULL, muon=True, lr=2e-3)
LORA = Tuning(method="lora", replay=0.3, lr=5e-3)
CASES = {
    "all weights": (FULL, PERFECT),
    "all weights, Muon": (MUON, PERFECT),
    "LoRA": (LORA, PERFECT),
    "all weights, faults in 40% and 20% of the answers": (FULL, FAULTY),
}
KEPT = {"read": Level(passages=(4,), hops=(1,)), "relevance": Level(), "merge": Level(), "tool_call": Level()}


@dataclass(frozen=True)
class Answers:
    """Shares of right answers: to either prompt of the paper, and mean over the base skills of KEPT."""

    rewrite: float
    route: float
    kept: float


@dataclass(frozen=True)
class Cost:
    """Of a specialisation: seconds on the clock and of cores, updates, tokens without padding."""

    seconds: float
    core_seconds: float
    steps: int
    tokens: int


def answers(folder: Path, count: int = 200) -> Answers:
    """Of the model in a folder, on test names; base skills on validation worlds."""
    lm = TransformersLM.load(str(folder), device="cpu")
    right = accuracy(lm, held_out(count), 48)
    kept = [
        forced_accuracy(lm.model, last_answers(lm.tokenizer, held_out_items("kept", "validation", skill, level, 64)))
        for skill, level in KEPT.items()
    ]
    return Answers(right["rewrite"], right["route"], sum(kept) / len(kept))


def train(tuning: Tuning, teaching: Teaching, folder: Path) -> Cost:
    """Specialise the shipped MicroLM into a folder, demonstrations drawn within the time."""
    wall, cores = time.perf_counter(), time.process_time()
    specialise("microlm", taught(teaching), tuning, folder, device="cpu")
    last = json.loads((folder / "training.jsonl").read_text().splitlines()[-1])
    return Cost(time.perf_counter() - wall, time.process_time() - cores, last["step"], last["tokens"])


def row(name: str, found: Answers, cost: Cost | None = None) -> str:
    spent = (
        [f"{cost.seconds:.0f}", f"{cost.core_seconds:.0f}", f"{cost.steps}", f"{cost.tokens:,}"] if cost else 4 * [""]
    )
    shares = [f"{100 * share:.1f}%" for share in (found.rewrite, found.route, found.kept)]
    return f"| {' | '.join([name, *spent, *shares])} |"


def about(seconds: Mapping[str, float]) -> str:
    """What the table is, and which cases took longer on the clock than three minutes, by their seconds."""
    longer = [f"{name} ({spent:.0f} s)" for name, spent in seconds.items() if spent > CLOCK]
    return (
        f"The shipped MicroLM taught two prompts that it does not know, from {PERFECT.count:,} demonstrations, one "
        "thread. Shares of exact greedy answers: to 100 prompts of either kind, on names of no training; base "
        f"skills: mean of {', '.join(KEPT)}, 64 items each of validation worlds ({100 * FULL.replay:.0f}% of the "
        f"training tokens replay such). Budget: three minutes of two cores, that is {BUDGET} core seconds. "
        f"On the clock, with one of the cores, more than three minutes: {'; '.join(longer) or 'none'}."
    )


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "| | seconds | core seconds | steps | tokens | rewrite | route | base skills |",
        "|---|---|---|---|---|---|---|---|",
        row("the base", answers(SHIPPED["microlm"])),
    ]
    print("\n".join(lines), flush=True)
    slow, seconds = [], {}
    for name, (tuning, teaching) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            cost = train(tuning, teaching, Path(folder))
            lines.append(row(name, answers(Path(folder)), cost))
        print(lines[-1], flush=True)
        seconds[name] = cost.seconds
        slow += [name] if cost.core_seconds > BUDGET else []
    if "--write" in sys.argv:
        from tests.benchmarks.report import write_section

        write_section("Specialisation", "tests.benchmarks.specialisation", about(seconds) + "\n\n" + "\n".join(lines))
    sys.exit(f"more than {BUDGET} core seconds: {', '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
