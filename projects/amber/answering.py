"""The models of a row, and its answers to a question set, kept as artifacts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.data.own_files import sha256
from common.data.text_world.names import Split
from common.evaluators.answers import contains
from common.evaluators.controls import Case, Setup, by_retriever, shown
from common.experiments.context import Context
from common.experiments.fingerprint import digest
from common.models.build import build as build_lm
from common.models.encoders import Encoder
from common.models.encoders import build as build_encoder
from common.models.meter import Meter, Metered, Usage
from common.models.microlm.demonstrations import Demonstration
from common.models.microlm.specialise import artifact_key, specialise
from common.retrievers.bm25 import BM25
from common.retrievers.build import build as build_retriever
from common.retrievers.build import load as load_retriever
from common.retrievers.retriever import Retriever
from projects.amber.baselines import BASELINES, STRATEGIES, read
from projects.amber.data import Passage, QuestionSet, Search, files_of, load
from projects.amber.labels import content_filter, training_sets
from projects.amber.method import Reading, amber
from projects.amber.prompts import Agents
from projects.amber.settings import Settings
from projects.amber.teachers import ask, generator

SEVERAL_HOPS = ("2wiki", "hotpotqa")  # sets whose questions a router takes for `multi` where no strategy answers them

Records = list[dict[str, Any]]


def question_set(settings: Settings, context: Context, name: str) -> QuestionSet:
    """What a set asks."""
    return load(settings.questions, settings.world, name, split_of(context), context.seed, context.data)


def split_of(context: Context) -> Split:
    """Sweeps are on validation worlds or files."""
    return "validation" if context.validation else "test"


def answers(settings: Settings, context: Context, name: str) -> tuple[Records, dict[str, Usage]]:
    """One record a question (`answer`; of Amber `rounds` and `repeated` too), and what was spent, by role."""

    def make(folder: Path) -> None:
        meter = Meter()
        agents = agents_of(settings, context, meter)
        questions = question_set(settings, context, name)
        records = answered(settings, questions, agents, search(settings, context, questions))
        (folder / "records.json").write_text(json.dumps(records))
        (folder / "usage.json").write_text(json.dumps(meter.as_dict()))

    folder = context.artifact("answers", key(settings, context, name), make)
    usage = json.loads((folder / "usage.json").read_text())
    return json.loads((folder / "records.json").read_text()), {role: Usage(**spent) for role, spent in usage.items()}


def key(settings: Settings, context: Context, name: str) -> dict[str, Any]:
    """What answers depend on: of the settings, what the method reads; files of one's own by their digests."""
    values = asdict(settings)
    values["questions"].pop("sets")
    if settings.method != "amber":
        values.pop("filter")
    if settings.method != "adaptive_rag":
        values.pop("router")
    files: list[Path] = []
    if settings.questions.source == "jsonl":
        files += files_of(settings.questions, name, split_of(context), context.data)
    return values | {"set": name, "seed": context.seed, "files": [sha256(path) for path in files]}


def answered(settings: Settings, questions: QuestionSet, agents: Agents, search: Search) -> Records:
    """The method's answers to questions, in their order."""
    texts = [asked.text for asked in questions.questions]
    if settings.method == "amber":
        return [record(reading) for reading in amber(texts, agents, search, settings.loop)]
    if settings.method in BASELINES:
        found = BASELINES[settings.method](texts, agents, search, settings.loop)
    else:
        found = read(texts, control_passages(settings, questions, search), agents)
    return [{"answer": answer} for answer in found]


def record(reading: Reading) -> dict[str, Any]:
    """What is kept of a reading."""
    return {
        "answer": reading.answer,
        "memory": reading.text,
        "queries": reading.queries,
        "repeated": reading.repeated_queries,
        "rounds": reading.rounds,
    }


def control_passages(settings: Settings, questions: QuestionSet, search: Search) -> list[list[Passage]]:
    """What a control row shows instead of the retriever's passages."""
    texts = questions.corpus.texts
    cases = [
        Case(asked.text, texts, tuple(sorted({min(hop.passages) for hop in asked.hops})))
        for asked in questions.questions
    ]
    rag = by_retriever(lambda: retriever(settings))
    setup = Setup(settings.loop.k, lambda text: len(text.split()), rag, by_retriever(BM25))
    return [[search.passage(name) for name in row.ids] for row in shown(settings.method, cases, setup)]


def search(settings: Settings, context: Context, questions: QuestionSet) -> Search:
    """The row's retriever over the set's corpus; the index of a real corpus is an artifact."""
    texts = questions.corpus.texts

    def make(folder: Path) -> None:
        index = retriever(settings)
        index.build(list(texts), list(texts.values()))
        index.save(folder / "index")

    if settings.questions.source == "text_world":
        index = retriever(settings)
        index.build(list(texts), list(texts.values()))
        return Search(index, texts, settings.loop.passage_characters)
    content = digest([*texts.items()])
    folder = context.artifact("index", [settings.retriever, settings.encoder, content], make)
    index = load_retriever(folder / "index", encoder(settings))
    return Search(index, texts, settings.loop.passage_characters)


def retriever(settings: Settings) -> Retriever:
    """An empty retriever of the row's kind. UserError: unknown, or it needs an encoder and none is named."""
    return build_retriever(settings.retriever, encoder(settings))


def encoder(settings: Settings) -> Encoder | None:
    """The encoder of a retriever that needs one."""
    return build_encoder(settings.encoder) if settings.encoder else None


# --- models ---------------------------------------------------------------------------------------------------------


def agents_of(settings: Settings, context: Context, meter: Meter) -> Agents:
    """The models of a row by role; calls are counted in `meter`."""
    base = generator(settings, context)
    names = {}
    if settings.method == "amber" and (settings.loop.chunk_filter or settings.loop.sentence_filter):
        names = dict.fromkeys(("chunk", "sentences"), content_filter(settings, context, base))
    if settings.method == "adaptive_rag":
        names["route"] = router(settings, context, base)
    lms = {name: Metered(build_lm(settings.lm.of(name)), meter) for name in dict.fromkeys([base, *names.values()])}
    return Agents(lms[base], settings.limits, {role: lms[name] for role, name in names.items()})


def router(settings: Settings, context: Context, base: str) -> str:
    """Name of the model that routes: a copy of the generator, trained on silver labels; or itself.

    The label of a training question is the first of no, one and several retrievals that answers it; where none does,
    what its set suggests (Adaptive-RAG, section 3.2).
    """
    training, revision = settings.router, settings.lm.of(base).revision
    if not training.train:
        return base

    def make(folder: Path) -> None:
        agents = Agents(build_lm(settings.lm.of(base)), settings.limits)
        shown: list[Demonstration] = []
        for questions, found in training_sets(settings, training.questions):
            texts = [asked.text for asked in questions.questions]
            right: dict[str, list[bool]] = {}
            for route, strategy in STRATEGIES.items():
                given = strategy(texts, agents, found, settings.loop)
                right[route] = [
                    all(contains(answer, golds) for golds in asked.golds)
                    for answer, asked in zip(given, questions.questions, strict=True)
                ]
            default = "multi" if questions.name in SEVERAL_HOPS else "single"
            for i, text in enumerate(texts):
                label = next((route for route in STRATEGIES if right[route][i]), default)
                shown.append(ask("route", label, question=text))
        specialise(base, shown, training.tuning, folder, revision)

    key = artifact_key(base, training.tuning, training, revision) | {
        "world": asdict(settings.world),
        "loop": asdict(settings.loop),
        "limits": asdict(settings.limits),
    }
    return str(context.artifact("router", key, make))
