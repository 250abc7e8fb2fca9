"""A small language model trained on passages with questions on the spot: the base of the small scale, weak and said so.

Passages and questions are those of NQ-open's dev set with gold passages (`lost_in_the_middle`); no SQuAD paragraph of
the stream is among them. Its chat prompts are MicroLM's, so that it can be asked like MicroLM.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.data.lost_in_the_middle import load_nq_oracle
from common.models.microlm.model import Shape, build_model
from common.models.microlm.tokenizer import build_tokenizer
from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Batch, Example, Optimization, collate, in_order
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Scratch

PASSAGE_TOKENS = 128
_WORD = re.compile(r"[^\W\d_]+")


def trained_from_scratch(scratch: Scratch, data: Path | None, folder: Path) -> None:
    """Train a model into `folder`, resumable. Errors: `load_nq_oracle`."""
    rows = load_nq_oracle(data)
    counts = Counter(word for row in rows for text in (row.passage, row.question) for word in _WORD.findall(text))
    tokenizer = build_tokenizer([word for word, _ in counts.most_common(scratch.words)])
    shape = Shape(width=scratch.width, layers=scratch.layers, inner=scratch.inner)
    prompting = Prompting(tokenizer, "read")
    examples = [
        example(prompting, row.question, min(row.answers, key=len), row.passage if with_passage else None)
        for row in rows
        for with_passage in (True, True, False)
    ]
    if begin(folder, {"words": scratch.words, "shape": vars(shape), "steps": scratch.steps, "lr": scratch.lr}):
        return
    model = build_model(shape, tokenizer, seed=0)
    steps = Steps(examples, scratch.step_tokens)
    fit_logged(folder, model, steps, scratch.steps, Optimization(lr=scratch.lr), say=lambda line: None)

    def save(into: Path) -> None:
        tokenizer.save_pretrained(into)
        model.save_pretrained(into)

    finish(folder, save)


def example(prompting: Prompting, question: str, answer: str, passage: str | None) -> Example:
    """A question with or without its passage; the answer weighs 1 a token, and a passage 0.2: it is text to model."""
    prompt = prompting.closed(question)
    weights = [0.0] * len(prompt)
    if passage is not None:
        before, after = prompting.around(question)
        text = prompting.text(passage, PASSAGE_TOKENS)
        prompt, weights = [*before, *text, *after], [0.0] * len(before) + [0.2] * len(text) + [0.0] * len(after)
    target = prompting.answer(answer)
    ids = np.array([*prompt, *target], np.int64)
    return Example(ids, np.array([*weights, *[1.0] * len(target)], np.float32))


class Steps:
    """Batches of examples drawn anew for every step, which depends on its number alone."""

    def __init__(self, examples: list[Example], step_tokens: int) -> None:
        self._examples, self._step_tokens = examples, step_tokens

    def step(self, index: int) -> list[Batch]:
        rng, chosen, tokens = random.Random(f"cmt/scratch/{index}"), [], 0
        while tokens < self._step_tokens:
            chosen.append(rng.choice(self._examples))
            tokens += len(chosen[-1].ids)
        return collate(chosen, 0, self._step_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)
