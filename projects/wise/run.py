"""WISE: one editor at one length of edits and one seed. Edits in sequence, scores after the last, rolls back.

Reads from top to bottom. The contexts before edited prompts and the key statistics of ROME and MEMIT come from text
that the unedited model writes itself, and are shared by all cells of one model.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.editing.editor import Outcome
from common.editing.layers import value_layer
from common.editing.own_text import own_texts, ridged, second_moment
from common.editing.requests import EditRequest, Probe, batch_of
from common.evaluators.editing import (
    Answers,
    answers,
    asked,
    editing_scores,
    forced,
    likelihood_scores,
    preference_scores,
    scores,
    targets,
    token_accuracy,
)
from common.experiments.context import Context, Result
from common.models.settings import place
from common.models.transformers_lm import TransformersLM
from projects.wise.data import near_probes, requests
from projects.wise.editors import EDITORS, LOCATED, Material
from projects.wise.method import MAIN, Wise
from projects.wise.settings import Settings

QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}  # of Δ_act over the prompts of a kind
EARLY = 0.1  # share of a block's edits, the first ones, that `rel_early` is about


def run(settings: Settings, context: Context) -> Result:
    """Edit and score every block; figures are means over blocks.

    Raises:
        UserError: missing data or model.
    """
    blocks = requests(settings.data, context.seed, context.data)
    nearby = near_probes(settings.data, context.seed)
    lm = TransformersLM.load(place(settings.model), dtype=settings.dtype)
    contexts = contexts_of(settings, lm, context)
    moments = moments_of(settings, lm, context) if settings.editor in LOCATED else []
    material = Material(lm.model, lm.tokenizer, contexts, moments, context.seed)
    near_before = answers(lm.model, lm.tokenizer, nearby, settings.eval_batch)
    found, routed = [], []
    for number, block in enumerate(blocks):
        row, prompts = edit_block(settings, material, block, nearby, near_before)
        found.append(row)
        routed += [{"block": number, **prompt} for prompt in prompts]
        context.log(number + 1, **row)
    if routed:
        context.save_items("routing", routed)
    names = [name for name in found[0] if all(name in row for row in found)]
    return Result(metrics={name: statistics.fmean(row[name] for row in found) for name in names})


def edit_block(
    settings: Settings, material: Material, block: Sequence[EditRequest], nearby: Sequence[Probe], near_before: Answers
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """One sequence of edits on the fresh model, scored after the last, undone; its figures, and WISE's routing."""
    model, tokenizer, batch = material.model, material.tokenizer, settings.eval_batch
    before = answers(model, tokenizer, asked(block)["loc"], batch)
    if settings.editor == "none":
        return all_scores(model, tokenizer, block, before, batch), []
    editor = EDITORS[settings.editor](settings, material)
    try:
        outcomes = editor.edit(block)
        row = all_scores(model, tokenizer, block, before, batch)
        first = asked(block[: max(1, round(EARLY * len(block)))])["rel"]
        row["rel_early"] = token_accuracy(forced(model, tokenizer, first, batch), targets(tokenizer, first))
        if nearby:
            row["near"], row["near_exact"] = scores(answers(model, tokenizer, nearby, batch), near_before)
        routed = routing(editor, tokenizer, block, nearby, batch) if isinstance(editor, Wise) else []
        editor.hold.check()
        return row | routing_scores(routed) | costs(outcomes, editor.extra_bytes), routed
    finally:
        editor.rollback()


def all_scores(
    model: Any, tokenizer: Any, block: Sequence[EditRequest], before: Answers, batch: int
) -> dict[str, float]:
    """Shares of right answers, likelihoods, and shares of answers preferred to the true ones."""
    found = editing_scores(model, tokenizer, block, before, batch)
    found |= likelihood_scores(model, tokenizer, block, batch)
    return found | preference_scores(model, tokenizer, block, batch)


def routing(
    editor: Wise, tokenizer: Any, block: Sequence[EditRequest], nearby: Sequence[Probe], batch: int
) -> list[dict[str, Any]]:
    """Δ_act of every prompt that is scored, with its kind and whether a side memory answers it."""
    found = []
    for kind, probes in (asked(block) | {"near": list(nearby)}).items():
        for start in range(0, len(probes), batch):
            part = probes[start : start + batch]
            pairs = [(probe.prompt, probe.completion) for probe in part]
            deltas, chosen = editor.routing(batch_of(tokenizer, pairs, editor.hold.model.device))
            found += [
                {"kind": kind, "prompt": probe.prompt, "delta": delta, "side": memory != MAIN}
                for probe, delta, memory in zip(part, deltas.tolist(), chosen.tolist(), strict=True)
            ]
    return found


def routing_scores(routed: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of each kind of prompt: quantiles of Δ_act, and the share that a side memory answers."""
    scores: dict[str, float] = {}
    for kind in dict.fromkeys(row["kind"] for row in routed):
        rows = [row for row in routed if row["kind"] == kind]
        values = np.quantile([row["delta"] for row in rows], list(QUANTILES.values()))
        scores |= {f"delta_{kind}_{name}": float(value) for name, value in zip(QUANTILES, values, strict=True)}
        scores[f"side_{kind}"] = statistics.fmean(row["side"] for row in rows)
    return scores


def costs(outcomes: Sequence[Outcome], extra: int) -> dict[str, float]:
    """Time and steps of an edit, edits given up, memory beside the base model."""
    return {
        "edit_seconds": statistics.fmean(outcome.seconds for outcome in outcomes),
        "edit_steps": statistics.fmean(outcome.steps for outcome in outcomes),
        "failed": sum(bool(outcome.failed) for outcome in outcomes) / len(outcomes),
        "extra_mb": extra / 1e6,
    }


# --- text of the unedited model -----------------------------------------------------------------------------------


def contexts_of(settings: Settings, lm: TransformersLM, context: Context) -> list[str]:
    """Texts that are put before edited prompts; all seeds share them."""
    o = settings.contexts
    if not o.count:
        return []

    def build(folder: Path) -> None:
        texts = own_texts(lm.model, lm.tokenizer, o.openings, o.count, o.tokens)
        (folder / "texts.json").write_text(json.dumps(texts))

    folder = context.artifact("contexts", {"model": lm.revision, "dtype": settings.dtype, **asdict(o)}, build)
    texts: list[str] = json.loads((folder / "texts.json").read_text())
    return texts


def moments_of(settings: Settings, lm: TransformersLM, context: Context) -> list[Tensor]:
    """C of each layer that ROME or MEMIT writes to, [D, D] each."""
    o = settings.located
    layers = [value_layer(lm.model, layer) for layer in o.layers]

    def build(folder: Path) -> None:
        texts = own_texts(lm.model, lm.tokenizer, settings.contexts.openings, o.samples, o.sample_tokens, seed=1000)
        moments = second_moment(lm.model, lm.tokenizer, layers, texts)
        save_file(dict(zip(map(str, o.layers), moments, strict=True)), folder / "c.safetensors")

    key: dict[str, Any] = {"model": lm.revision, "dtype": settings.dtype, "openings": settings.contexts.openings}
    key |= {"layers": o.layers, "samples": o.samples, "tokens": o.sample_tokens}
    stored = load_file(context.artifact("key-statistics", key, build) / "c.safetensors")
    return [ridged(stored[str(layer)].to(lm.model.device), o.ridge) for layer in o.layers]
