"""The base of the small scale, trained on the spot: MicroLM with words of real text, taught to read NQ passages; weak.

Passages and questions are those of NQ-open's dev set with gold passages (`lost_in_the_middle`); no SQuAD paragraph of
the stream is among them. Prompts are MicroLM's, so that it can be asked like MicroLM. Nothing is shipped, as
`common.models.shipped` would have it: each machine trains it, from its own copy of the data.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributions import MultivariateNormal
from transformers import PreTrainedTokenizerFast

from common.data.lost_in_the_middle import NQOracle, load_nq_oracle
from common.models.hub import located
from common.models.microlm.lexicon import lexicon, name_parts
from common.models.microlm.model import share_forms
from common.models.microlm.skills import PROMPTS
from common.models.microlm.tokenizer import build_tokenizer
from common.models.settings import place
from common.models.transformers_lm import TransformersLM
from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Batch, Example, Optimization, collate, in_order
from projects.cmt.data import salient_spans
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Scratch

PASSAGE_TOKENS = 128
WINDOW = (12, 80)  # words of a passage that are shown
CLOSED, CLOZE = 0.05, 0.5  # shares of examples: a question without a passage; a blank instead of a question
_WORD = re.compile(r"[^\W\d_]+")


def trained_on_the_spot(scratch: Scratch, data: Path | None, folder: Path) -> None:
    """Train a model into `folder`, resumable. Errors: `load_nq_oracle`."""
    if begin(folder, {**asdict(scratch), "start": located(place("microlm"))[2]}):
        return
    rows = load_nq_oracle(data)
    counts = Counter(word for row in rows for text in (row.passage, row.question) for word in _WORD.findall(text))
    model, tokenizer = with_words([word for word, _ in counts.most_common(scratch.words)])
    steps = Steps(rows, Prompting(tokenizer, "read"), scratch.step_tokens)
    optimization = Optimization(lr=scratch.lr)
    fit_logged(folder, model, steps, scratch.steps, optimization, say=lambda line: None)

    def save(into: Path) -> None:
        tokenizer.save_pretrained(into)
        model.save_pretrained(into)

    finish(folder, save)


def with_words(words: Sequence[str]) -> tuple[Any, PreTrainedTokenizerFast]:
    """MicroLM with more words, whose vectors are drawn from the normal distribution of its own, and its tokenizer."""
    shipped = TransformersLM.load(place("microlm"), device="cpu")  # where the draw is the same on every machine
    model: Any = shipped.model
    own = model.get_input_embeddings().weight.detach().clone()
    tokenizer = build_tokenizer([*lexicon(PROMPTS), *words], name_parts())
    model.resize_token_embeddings(-(-len(tokenizer) // 64) * 64, mean_resizing=False)
    table = model.get_input_embeddings().weight
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spread = own.T.cov() + 1e-5 * torch.eye(own.shape[1])
        table.copy_(MultivariateNormal(own.mean(0), spread).sample((len(table),)))
        share_forms(model, tokenizer)
        had = shipped.tokenizer.get_vocab()
        for piece, i in tokenizer.get_vocab().items():
            if piece in had:
                table[i] = own[had[piece]]
    return model.requires_grad_(True), tokenizer


def drawn(rng: random.Random, row: NQOracle) -> tuple[str, str, str | None]:
    """A question, its answer, and a window of the passage with all of the answer; or nothing, as where it is not in it.

    Half of the questions are the passage's own words around one of its names or figures, with `what` in its place.
    """
    stated = [answer for answer in row.answers if answer.lower() in row.passage.lower()]
    answer = min(stated or row.answers, key=len)
    if not stated or rng.random() < CLOSED:
        return row.question, answer, None
    question, spans = row.question, salient_spans(row.passage)
    start = row.passage.lower().find(answer.lower())
    if spans and rng.random() < CLOZE:
        start, end = rng.choice(spans)
        answer = row.passage[start:end]
        before, after = row.passage[:start].split(), row.passage[end:].split()
        question = " ".join([*before[-rng.randint(2, 8) :], "what", *after[: rng.randint(2, 8)]])
    at, length = len(row.passage[:start].split()), rng.randint(*WINDOW)
    first = max(0, at - rng.randrange(max(1, length - len(answer.split()) + 1)))
    return question, answer, " ".join(row.passage.split()[first : first + length])


def example(prompting: Prompting, question: str, answer: str, passage: str | None) -> Example:
    """A question with or without its passage; the answer's tokens weigh 1."""
    prompt = prompting.closed(question)
    if passage is not None:
        prompt = prompting.over(question, prompting.text(passage, PASSAGE_TOKENS))
    target = prompting.answer(answer)
    weights = [0.0] * len(prompt) + [1.0] * len(target)
    return Example(np.array([*prompt, *target], np.int64), np.array(weights, np.float32))


class Steps:
    """Batches of examples drawn anew for every step, which depends on its number alone."""

    def __init__(self, rows: Sequence[NQOracle], prompting: Prompting, step_tokens: int) -> None:
        self._rows, self._prompting, self._step_tokens = rows, prompting, step_tokens

    def step(self, index: int) -> list[Batch]:
        rng, chosen, tokens = random.Random(f"cmt/scratch/{index}"), [], 0
        while tokens < self._step_tokens:
            chosen.append(example(self._prompting, *drawn(rng, rng.choice(self._rows))))
            tokens += len(chosen[-1].ids)
        return collate(chosen, 0, self._step_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)
