"""CMT: one method on one stream at one seed. Meta-train, read the stream once, then answer about all of it.

Reads from top to bottom: `run`, the learner of the row, training in two stages, measures. Stage 1 is one artifact for
all methods with a memory and all seeds, as a downloaded checkpoint would be; stage 2 is a method's own at a seed, and
columns that are trained alike share it. Every training goes on from its checkpoint where an attempt was stopped, and
the bank of an interrupted stream is on disk.
"""

import json
import random
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.evaluators.answers import Item, score
from common.experiments.context import VALIDATION_SEED, Context, Result
from common.experiments.errors import UserError
from common.experiments.randomness import seed_phase
from common.files import write_atomically
from common.memory.dense_bank import FILE, DenseBank
from common.models.frozen import Beams, FrozenLM
from common.models.hub import located
from common.models.settings import place
from common.models.transformers_lm import TransformersLM
from common.training.preemption import Preempted, heeding, requested
from common.training.resumable import Resumable
from common.training.supervised import Optimization
from projects.cmt import camels, shipped
from projects.cmt.baselines import (
    ClosedBook,
    InContext,
    Learner,
    OnlineTuning,
    Retrieval,
    Weigh,
    meta_learned,
    salient,
    uniform,
)
from projects.cmt.data import Document, Question, Streams, digests, load_draw, load_streams
from projects.cmt.method import CMT, Online, Triple
from projects.cmt.prompts import Prompting
from projects.cmt.scratch import trained_on_the_spot
from projects.cmt.settings import Data, Objective, Settings

SCORES = ("em", "em_prefix", "f1")
CURVE = "first-block.json"
SECOND = ("steps", "batch", "lr", "bf16")  # of `Training`, of stage 2 alone


def run(settings: Settings, context: Context) -> Result:
    """Adapt to the test stream and measure.

    Raises:
        UserError: missing data or model.
    """
    streams = streams_of(settings.data, context)
    lm = base_model(settings, context)
    prompting = Prompting(lm.tokenizer, settings.base.prompt, settings.data.question_tokens)
    learner = LEARNERS[settings.method](settings, context, lm, prompting, streams)
    figures = adapt(settings, context, learner, streams)
    lm.check()
    return Result(metrics={**figures, "frozen": float(still_frozen(learner, lm))})


def streams_of(data: Data, context: Context) -> Streams:
    """Those of the seed; in a sweep the test stream is one of validation, as long as the data allow."""
    if not context.validation:
        return load_streams(data, context.seed, context.data)
    streams = load_streams(replace(data, validation=data.documents), context.seed, context.data)
    return replace(streams, test=streams.validation)


# --- the frozen model ---------------------------------------------------------------------------------------------


def base_model(settings: Settings, context: Context) -> FrozenLM:
    """The language model that no method but fine-tuning changes.

    Raises:
        UserError: a chat prompt for a model without a chat template.
    """
    name = settings.base.model
    if not name:
        key = {"scratch": asdict(settings.scratch), "start": located(place("microlm"))[2]}
        name = str(
            context.artifact("base", key, lambda folder: trained_on_the_spot(settings.scratch, context.data, folder))
        )
    quantize = settings.base.quantize if settings.method not in WEIGHTS else ""
    lm = TransformersLM.load(place(name), dtype=settings.base.dtype, quantize=quantize)
    if settings.base.prompt != "plain" and lm.tokenizer.chat_template is None:
        raise UserError(f"base.prompt '{settings.base.prompt}' takes a model with a chat template; take 'plain'")
    return FrozenLM(lm.model, lm.tokenizer)


def still_frozen(learner: Learner, lm: FrozenLM) -> bool:
    """Whether the model that the learner answers with has the weights that it was given."""
    own = learner.lm if isinstance(learner, ClosedBook) else lm
    return own.weights_hash() == lm.hash


# --- learners -----------------------------------------------------------------------------------------------------


def beams_of(settings: Settings) -> Beams | None:
    """With which the test stream's questions are answered; None: greedily."""
    decoding = settings.decoding
    return Beams(decoding.beams, decoding.groups, decoding.diversity) if decoding.kind == "beams" else None


class MemoryLearner:
    """`Online` as a learner; the bank is saved in the cell's folder now and then, and read from there again."""

    def __init__(self, settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, cmt: CMT) -> None:
        self.settings, self._folder = settings, context.checkpoint / "bank"
        loaded = (self._folder / FILE).exists()
        self.bank = DenseBank.load(self._folder) if loaded else DenseBank(settings.memory.dedup)
        self._copies = 0 if settings.memory.dedup else len(self.bank)  # documents that an earlier attempt read
        alpha = settings.objective.alpha
        contrasts = settings.objective.kind == "contrast" and settings.objective.decode
        self.online = Online(
            cmt,
            self.bank,
            encode=settings.encode,
            ask=settings.ask,
            tokens=settings.tokens,
            alpha=alpha if contrasts else 0.0,
            beams=beams_of(settings),
        )
        self._closed = ClosedBook(lm, prompting, settings.tokens, settings.ask, beams_of(settings))
        self.given: list[list[int]] = []

    @heeding()
    def read(self, documents: Sequence[Document]) -> None:
        """As `Online.read`. Preempted: a stop was requested; the bank is saved."""
        again = min(self._copies, len(documents))  # where equal texts are kept, the bank knows none by its text
        self._copies -= again
        texts = [document.text for document in documents[again:]]
        if self.settings.memory.dedup:  # what an earlier attempt read
            texts = [text for text in texts if text not in self.bank]
        for start in range(0, len(texts), self.settings.save_every):
            self.online.read(texts[start : start + self.settings.save_every])
            stop = requested()
            if len(self.bank):
                self.bank.save(self._folder)
            if stop:
                raise Preempted(saved=True)

    def answer(self, questions: Sequence[Question]) -> list[str]:
        texts, self.given = self.online.answer([question.text for question in questions])
        return texts

    def recall(self, questions: Sequence[Question]) -> list[str]:
        return self._closed.recall(questions)


def _memory(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, streams: Streams) -> Learner:
    return MemoryLearner(settings, context, lm, prompting, trained(settings, context, lm, prompting))


def _closed_book(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, streams: Streams) -> Learner:
    return ClosedBook(lm, prompting, settings.tokens, settings.ask, beams_of(settings))


def _in_context(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, streams: Streams) -> Learner:
    gold = {question.text: document.text for document in streams.test for question in document.questions}
    most, beams = settings.data.document_tokens, beams_of(settings)
    return InContext(lm, prompting, settings.tokens, settings.ask, gold, most, beams)


def _retrieval(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, streams: Streams) -> Learner:
    most, beams = settings.data.document_tokens, beams_of(settings)
    return Retrieval(lm, prompting, settings.tokens, settings.ask, most, beams)


def _tuning(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, streams: Streams) -> Learner:
    weigh = WEIGHTS[settings.method](settings, context, lm, prompting)
    lr = best_rate(settings, context, lm, prompting, weigh)
    return tuned(settings, lm, prompting, weigh, lr, beams_of(settings))


LEARNERS: dict[str, Callable[[Settings, Context, FrozenLM, Prompting, Streams], Learner]] = {
    "none": _closed_book,
    "oracle": _in_context,
    "rag": _retrieval,
    "uniform": _tuning,
    "salient": _tuning,
    "camels": _tuning,
    "memory": _memory,
}


# --- fine-tuning on the stream ------------------------------------------------------------------------------------


def tuned(
    settings: Settings, lm: FrozenLM, prompting: Prompting, weigh: Weigh, lr: float, beams: Beams | None = None
) -> OnlineTuning:
    """A fresh copy of the model, to be tuned on a stream."""
    return OnlineTuning(
        lm,
        prompting,
        settings.tokens,
        settings.ask,
        weigh=weigh,
        lr=lr,
        steps=settings.tuning.steps,
        document_tokens=settings.data.document_tokens,
        beams=beams,
    )


def best_rate(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting, weigh: Weigh) -> float:
    """The learning rate of the best F1 on the validation stream; the smaller one of equals."""
    rates = sorted(settings.tuning.rates)
    if len(rates) == 1:
        return rates[0]

    def build(folder: Path) -> None:
        stream = load_streams(settings.data, VALIDATION_SEED, context.data).validation
        questions = [question for document in stream for question in document.questions]
        found = {}
        for lr in rates:
            learner = tuned(settings, lm, prompting, weigh, lr)
            learner.read(stream)
            found[str(lr)] = torch.tensor(mean_scores(questions, learner.answer(questions))["f1"], dtype=torch.float64)
        save_file(found, folder / "f1.safetensors")

    names = ("method", "data", "base", "scratch", "tuning", "tokens")
    key = {name: value for name, value in asdict(settings).items() if name in names}
    if settings.method == "camels":
        key["meta"] = camels_key(settings)
    scores = load_file(context.artifact("rate", key | made_of(settings, context, lm), build) / "f1.safetensors")
    return max(rates, key=lambda lr: (float(scores[str(lr)]), -lr))


def _uniform(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting) -> Weigh:
    return uniform


def _salient(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting) -> Weigh:
    return salient(lm.tokenizer, settings.data.document_tokens)


def _meta_learned(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting) -> Weigh:
    """CaMeLS's weights; one meta-training for all seeds, as a downloaded checkpoint would be."""
    options, data, seed = settings.camels, settings.data, settings.training.first_seed
    if options.model:
        small = TransformersLM.load(place(options.model))
        if small.tokenizer.get_vocab() != lm.tokenizer.get_vocab():
            raise UserError(f"camels.model: '{options.model}' has another tokenizer than the base model")
        lm = FrozenLM(small.model, small.tokenizer)
    seed_phase(seed, "initial")
    weights = camels.fresh(lm)

    def build(folder: Path) -> None:
        draw = load_draw(data, context.data)

        def lessons(step: int) -> list[camels.Lesson]:
            rng, most = random.Random(f"cmt/camels/{seed}/{step}"), settings.training.questions
            return camels.draw_lessons(rng, draw, prompting, options, data.document_tokens, most, lm.device)

        camels.meta_train(weights, lm, options, lessons, folder, context.log)

    camels.load(weights, context.artifact("camels", camels_key(settings) | made_of(settings, context, lm), build))
    return meta_learned(weights)


def camels_key(settings: Settings) -> dict[str, Any]:
    """What the meta-training of token weights depends on."""
    shared, training = shared_key(settings), settings.training
    key = {name: shared[name] for name in ("data", "base", "scratch")} | {"camels": asdict(settings.camels)}
    return key | {"seed": training.first_seed, "questions": training.questions}


WEIGHTS: dict[str, Callable[[Settings, Context, FrozenLM, Prompting], Weigh]] = {
    "uniform": _uniform,
    "salient": _salient,
    "camels": _meta_learned,
}


# --- meta-training ------------------------------------------------------------------------------------------------


def trained(settings: Settings, context: Context, lm: FrozenLM, prompting: Prompting) -> CMT:
    """A compressor, matching and aggregation after both stages."""
    seed_phase(settings.training.first_seed, "initial")
    memory, tokens = settings.memory, settings.data.document_tokens
    first = replace(memory, soft=settings.training.first_soft or memory.soft)
    cmt = CMT(lm, prompting, first, tokens, settings.objective.temperature)
    load(cmt, first_stage(settings, context, cmt, lm))
    cmt.keep(memory.soft)
    if memory.matching == "none":
        cmt.align()
    if not settings.training.steps:
        return cmt

    def build(folder: Path) -> None:
        train(settings, context, cmt, settings.objective, context.seed, folder, first=False)

    key: dict[str, Any] = {**shared_key(settings), "memory": asdict(memory), "objective": asdict(settings.objective)}
    key |= {"own": {name: getattr(settings.training, name) for name in SECOND}, "seed": context.seed}
    key |= made_of(settings, context, lm)
    key["objective"].pop("decode")  # of answers alone, as the next two
    key["memory"].pop("dedup")
    key["memory"].pop("window")
    load(cmt, context.artifact("stage-2", key, build))
    return cmt


def first_stage(settings: Settings, context: Context, cmt: CMT, lm: FrozenLM) -> Path:
    """Stage 1: plain NLL with self-matching, its alignment loss and top-k, whatever the row does later.

    What is shipped, where it was trained with these settings around this language model; the cell's log says where not.
    """
    if shipped.fits(shared_key(settings), lm.hash):
        return shipped.FOLDER
    print(f"stage 1: trained here or by another cell; the shipped one has other settings or no base {lm.hash[:16]}")
    own = cmt.memory

    def build(folder: Path) -> None:
        cmt.memory = replace(own, matching="self", k=settings.training.first_k, window=0)
        objective = Objective(
            kind="nll", match_weight=Objective.match_weight, temperature=settings.objective.temperature
        )
        train(settings, context, cmt, objective, settings.training.first_seed, folder, first=True)
        cmt.memory = own

    return context.artifact("stage-1", shared_key(settings) | made_of(settings, context, lm), build)


def made_of(settings: Settings, context: Context, lm: FrozenLM) -> dict[str, Any]:
    """Part of every key: the language model and the files that something was trained on."""
    return {"weights": lm.hash, "files": digests(settings.data, context.data)}


def shared_key(settings: Settings) -> dict[str, Any]:
    """What stage 1 depends on."""
    data, memory = settings.data, settings.memory
    names = ("facts", "updated", "document_tokens", "question_tokens")
    sizes = ("soft", "rank", "alpha", "blocks", "heads", "head", "residual", "inject")
    other = {"t5": asdict(memory.t5)} if memory.compressor == "encdec" else {}
    apart = (*SECOND, "first_soft")  # which is in the sizes
    base = asdict(settings.base)
    if not base["quantize"]:
        del base["quantize"]  # what is shipped was trained before there was one
    return {
        "data": {"train": data.train or [data.name], **{name: getattr(data, name) for name in names}},
        "base": base,
        "scratch": asdict(settings.scratch) if not settings.base.model else None,
        "sizes": {name: getattr(memory, name) for name in sizes}
        | {"soft": settings.training.first_soft or memory.soft}
        | other,
        "temperature": settings.objective.temperature,
        "training": {name: value for name, value in asdict(settings.training).items() if name not in apart},
    }


@heeding()
def train(
    settings: Settings, context: Context, cmt: CMT, objective: Objective, seed: int, folder: Path, first: bool
) -> None:
    """One stage in place, into `model.safetensors`; goes on from the checkpoint in `folder`."""
    options = settings.training
    steps, batch, lr = options.steps, options.batch, options.lr
    if first:
        steps, batch, lr = options.first_steps, options.first_batch, options.first_lr
    optimization = Optimization(lr, options.warmup, options.decay)
    parameters = list(cmt.parameters())
    device = parameters[0].device.type
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    parts: dict[str, Any] = {"model": cmt, "optimizer": optimizer}
    state = Resumable(folder / "checkpoint", parts, {"steps": steps, "seed": seed, **asdict(objective)})
    draw = load_draw(settings.data, context.data)
    name = "first" if first else "second"
    seen: list[dict[str, float]] = []
    for step in range(state.done, steps):
        triples = draw_triples(random.Random(f"cmt/{name}/{seed}/{step}"), draw, batch, options.questions)
        for group in optimizer.param_groups:
            group["lr"] = optimization.lr_at(step, steps)
        with torch.autocast(device, torch.bfloat16, enabled=options.bf16 and not first):
            loss, figures = cmt.loss(triples, objective, told=first and step < options.first_told * steps)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        seen.append(figures)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            means = {key: statistics.fmean(one[key] for one in seen) for key in figures}
            context.log(step + 1, **{f"{name}_{key}": value for key, value in means.items()})
            seen.clear()
        state.after(step + 1, last=step + 1 == steps)
    save_file({key: value.detach().contiguous() for key, value in cmt.named_parameters()}, folder / "model.safetensors")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # none after no steps


def draw_triples(
    rng: random.Random, draw: Callable[[random.Random, int], list[Document]], batch: int, questions: int
) -> list[Triple]:
    """A batch of different documents, with at most so many questions of each."""
    chosen = {document.text: document for document in draw(rng, batch)}
    return [
        Triple(document.text, question.text, question.target)
        for document in chosen.values()
        for question in rng.sample(document.questions, min(questions, len(document.questions)))
    ]


def load(cmt: CMT, folder: Path) -> None:
    """Parameters that `train` wrote."""
    stored = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in cmt.named_parameters():
            parameter.copy_(stored[name])


# --- the stream, and measures -------------------------------------------------------------------------------------


def adapt(settings: Settings, context: Context, learner: Learner, streams: Streams) -> dict[str, float]:
    """Read the stream, ask about its first block now and then, and about everything at the end."""
    stream, done = streams.test, 0
    marks = [mark for mark in settings.data.checkpoints if mark < len(stream)] + [len(stream)]
    first = [question for document in stream[: marks[0]] for question in document.questions]
    old_before = learner.recall(streams.old)
    curve, seconds = marks_so_far(learner, context), 0.0
    for number, mark in enumerate(marks):
        began = time.perf_counter()
        learner.read(stream[done:mark])
        seconds, done = seconds + time.perf_counter() - began, mark
        if number == len(curve):
            curve.append(mean_scores(first, learner.answer(first))["f1"])
            context.log(mark, first_block_f1=curve[-1])
            write_atomically(context.checkpoint / CURVE, json.dumps(curve))
    questions = [question for document in stream for question in document.questions]
    began = time.perf_counter()
    answers = learner.answer(questions)
    per_question = (time.perf_counter() - began) / len(questions)
    figures = by_kind(questions, answers)
    figures |= {"read_seconds": seconds / len(stream), "question_seconds": per_question}
    figures |= {"first_block": curve[0], "first_block_later": curve[-1], "drop": curve[0] - curve[-1]}
    if curve[0]:
        figures["retention"] = curve[-1] / curve[0]
    if streams.old:
        old_after = learner.recall(streams.old)
        figures["old_before"] = mean_scores(streams.old, old_before)["f1"]
        figures["old_after"] = mean_scores(streams.old, old_after)["f1"]
        figures["old_same"] = statistics.fmean(a == b for a, b in zip(old_before, old_after, strict=True))
    if isinstance(learner, MemoryLearner):
        figures |= of_bank(learner, stream)
    if isinstance(learner, OnlineTuning):
        figures["rate"] = learner.lr
    save_items(context, questions, answers)
    return figures


def marks_so_far(learner: Learner, context: Context) -> list[float]:
    """F1 of the first block at the marks of an earlier attempt, whose bank holds all documents up to the last of them.

    A model that is tuned on the stream starts afresh, and so do its marks.
    """
    path = context.checkpoint / CURVE
    if not isinstance(learner, MemoryLearner) or not len(learner.bank) or not path.exists():
        return []
    curve: list[float] = json.loads(path.read_text())
    return curve


def of_bank(learner: MemoryLearner, stream: Sequence[Document]) -> dict[str, float]:
    """Size of the bank, and how often what was given to a question holds its document, of the last questions asked."""
    figures = {"bank_mb": learner.bank.bytes / 1e6, "memories": float(len(learner.bank))}
    texts = [document.text for document in stream]
    rows = {text: number for number, text in enumerate(dict.fromkeys(texts) if learner.bank.dedup else texts)}
    gold = [rows[document.text] for document in stream for _ in document.questions]
    if any(learner.given):
        figures["hit"] = statistics.fmean(row in given for row, given in zip(gold, learner.given, strict=True))
    return figures


def by_kind(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Scores of all questions, and F1 of those of each kind where there are several."""
    figures = mean_scores(questions, answers)
    kinds = sorted({question.kind for question in questions})
    for kind in kinds if len(kinds) > 1 else ():
        chosen = [i for i, question in enumerate(questions) if question.kind == kind]
        figures[f"f1_{kind}"] = mean_scores([questions[i] for i in chosen], [answers[i] for i in chosen])["f1"]
    return figures


def mean_scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Strict EM, EM as MAC's code has it, and F1: means of the best over each question's answers."""
    items = [
        Item(str(number), answer, (question.answers,))
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    scored = score(items, SCORES)
    return {name: statistics.fmean(one.scores[name] for one in scored) if scored else 0.0 for name in SCORES}


def save_items(context: Context, questions: Sequence[Question], answers: Sequence[str]) -> None:
    """Every question with its accepted answers and what was answered."""
    rows = [
        {"question": question.text, "kind": question.kind, "answers": question.answers, "prediction": answer}
        for question, answer in zip(questions, answers, strict=True)
    ]
    context.save_items("answers", rows)
