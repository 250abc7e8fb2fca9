"""A folder in which a model is trained: resumable while under way, an ordinary checkpoint of transformers at the end.

| file | |
|---|---|
| `recipe.json` | what the weights depend on: a folder serves one recipe |
| `training.jsonl` | the log, a line now and then |
| `checkpoint/` | weights and optimizer while under way |
| `model.safetensors`, or its index where the weights fill several files | written last: where it is, training is done |

    if not begin(folder, asdict(recipe)):
        fit_logged(folder, model, data, steps, optimization)
        finish(folder, save=lambda into: model.save_pretrained(into))
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.files import write_atomically
from common.training.distributed import of_first, rank
from common.training.supervised import Optimization, StepData, fit

DONE = ("model.safetensors", "model.safetensors.index.json")


def begin(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Write down what is trained in `folder`; returns whether that is done already.

    In ranks every one must ask; rank 0 writes, here and below.

    Raises:
        ValueError: the folder is of another recipe.
    """
    path, text = folder / "recipe.json", json.dumps(recipe, indent=1) + "\n"
    if rank() == 0 and not path.exists():
        write_atomically(path, text)
    there = any((folder / name).exists() for name in DONE)
    done = of_first(there)  # the others wait here for the recipe
    if json.loads(path.read_text()) != json.loads(text):
        raise ValueError(f"{path} is of another recipe; train into another folder")
    if done and rank() == 0:
        _tidy(folder)  # of an end that was interrupted
    return bool(done)


def fit_logged(
    folder: Path,
    model: Any,
    data: StepData,
    steps: int,
    optimization: Optimization,
    *,
    device: str = "cpu",
    autocast: bool = False,
    seed: int = 0,
    every: int | None = None,
    look: Callable[[], Mapping[str, float]] = dict,
    say: Callable[[str], None] = print,
) -> None:
    """`fit` with its checkpoint and a log in `folder`; goes on from where it was interrupted.

    Args:
        every: steps from line to line of the log; None for a tenth of all.
        look: what a line tells beside `step`, `tokens`, `seconds` (of training so far) and `loss` (mean over the steps
            since the last line, or since the resumption).
        say: is given every line.
    """
    every = every or max(1, steps // 10)
    losses: list[float] = []

    def on_step(step: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        if (step + 1) % every and step + 1 != steps:
            return
        line = {"step": step + 1, "tokens": figures["tokens"], "seconds": round(figures["seconds"], 1)}
        line |= {"loss": round(sum(losses) / len(losses), 4), **look()}
        losses.clear()
        log_line(folder / "training.jsonl", line)
        say("  ".join(f"{key} {value}" for key, value in line.items()))

    fit(model, data, steps, optimization, folder / "checkpoint", device, autocast, seed, on_step=on_step)


def finish(folder: Path, save: Callable[[Path], None]) -> None:
    """Fill the folder with what `save` writes into the one that it is given, the weights last: they mean done."""
    if rank() > 0:
        return
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    save(partial)
    for path in sorted(partial.iterdir(), key=lambda path: path.name in DONE):
        target = folder / path.name
        if target.is_dir():  # of an end that was interrupted
            shutil.rmtree(target)
        os.replace(path, target)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    for leftover in ("partial", "checkpoint"):
        shutil.rmtree(folder / leftover, ignore_errors=True)


def log_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line with its `step`; those of steps that an interruption undid give way to it."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [old for old in lines if json.loads(old)["step"] < line["step"]]
    write_atomically(path, "".join(f"{text}\n" for text in (*kept, json.dumps(line))))
