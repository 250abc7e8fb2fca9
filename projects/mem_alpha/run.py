"""Mem-α: one row of a table on one column at one seed: what answers is made where it is missing, and asked.

The reader and the warm start of the writer are models for all rows and seeds, which ship (`ship.py`); a policy is an
artifact for its arm and seed, whatever the column; so the reward ablation, the horizon and the headline share what they
have in common.
"""

import json
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.data.own_files import own_file
from common.experiments.context import Context, Result
from common.experiments.errors import UserError
from common.models.build import build as build_lm
from common.models.hub import located
from common.models.language_model import Completion, LanguageModel, Prompt, Sampling, encode, encode_continuation
from common.models.local import revision_of, tokenizer_of
from common.models.microlm.scratch import fresh
from common.models.microlm.specialise import specialise
from common.models.shipped import shipped
from common.training.reinforcement.curve import learning_curve
from common.training.reinforcement.episodes import Outcome, shuffled
from common.training.reinforcement.policy import train_policy
from common.training.reinforcement.rollout import Request, play
from projects.mem_alpha import scratch
from projects.mem_alpha.data import METRICS, Instance, Question, Source, Worlds, read
from projects.mem_alpha.method import (
    Call,
    Count,
    Dialect,
    Evidence,
    Memory,
    Writer,
    compression,
    judgeable,
    recall,
    reward,
    share,
    top,
)
from projects.mem_alpha.prompts import DIALECTS, judge, judged
from projects.mem_alpha.settings import FAMILIES, SCRATCH, Rules, Settings
from projects.mem_alpha.teachers import ORACLE, reader_lessons, valid, writer_lessons, written

SELECTION = "selection"  # the file of source jsonl that sweeps are tested on: tables report the validation file, too
WEIGHTS = Path(__file__).parent / "weights"  # reader and writer before reinforcement that ship
REVISIONS = {"reader": "sha256:76299880cd2bcab0", "writer": "sha256:5daff858cb71973f"}


def run(settings: Settings, context: Context) -> Result:
    """Train what is missing, read the streams, answer, measure.

    Raises:
        UserError: missing data or model; a reader that RL cannot learn from.
    """
    torch.set_num_threads(context.cpus)
    instances = source(settings, context, "test").all(
        settings.streams.count, f"eval/{context.seed}", settings.streams.chunks
    )
    desk = Desk.of(settings, context)
    rows = measured(desk, instances, HOLDERS[settings.arm](settings, context, desk, instances))
    metrics = averaged(rows)
    if settings.arm == "rl":
        metrics |= learning_curve(Path(rl(settings, context)), context, "reward.r1")
    context.save_items("instances", rows)
    return Result(metrics)


def measured(desk: "Desk", instances: Sequence[Instance], held: Sequence["Held"]) -> list[dict[str, Any]]:
    """All questions about all instances, answered from what is held of them: a row each."""
    questions = [instance.questions for instance in instances]
    answered = desk.answer(instances, questions, [one.evidence for one in held])
    return [
        described(instance, asked, answers, one, desk.count)
        for instance, asked, answers, one in zip(instances, questions, answered, held, strict=True)
    ]


def described(
    instance: Instance, asked: Sequence[Question], answers: Sequence[str], held: "Held", count: Count
) -> dict[str, Any]:
    """One instance: what was answered, what it was worth, what was held and what the writer did."""
    metric = METRICS[instance.metric]
    scores = [metric(answer, question.golds) for question, answer in zip(asked, answers, strict=True)]
    return {
        "id": instance.id,
        "family": instance.family,
        "dataset": instance.dataset,
        "score": float(np.mean(scores)),
        "memory": held.tokens,
        "input": sum(map(count, instance.chunks)),
        **held.figures,
        "answers": [
            {"question": q.text, "golds": q.golds, "answer": a, "score": s}
            for q, a, s in zip(asked, answers, scores, strict=True)
        ],
    }


def averaged(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of data sets, families and all: over instances, then over data sets (Sec. 4.1), and of what was held.

    `mean` is the arithmetic mean over data sets. The paper's printed averages are not (README, Tables).
    """
    families = {row["dataset"]: row["family"] for row in rows}

    def mean(name: str, dataset: str) -> float:
        return float(np.mean([row[name] for row in rows if row["dataset"] == dataset]))

    scores, memory = ({each: mean(name, each) for each in families} for name in ("score", "memory"))
    metrics = dict(scores)
    for family in set(families.values()):
        own = [each for each in families if families[each] == family]
        metrics[family] = float(np.mean([scores[each] for each in own]))
        metrics[f"memory_{family}"] = float(np.mean([memory[each] for each in own]))
    metrics["mean"], metrics["memory"] = float(np.mean(list(scores.values()))), float(np.mean(list(memory.values())))
    metrics["input"] = float(np.mean([mean("input", each) for each in families]))
    told = {name for row in rows for name in row if name in FIGURES}
    return metrics | {name: float(np.mean([row[name] for row in rows if name in row])) for name in told}


# --- answering ------------------------------------------------------------------------------------------------------

Recalls = Callable[[Sequence[str]], list[Evidence]]
"""Queries -> the evidence for each."""


@dataclass(frozen=True)
class Desk:
    """The reader, frozen, and how it is asked: the same for evaluation and for r1.

    Attributes:
        count: tokens of a text, by the writer's tokenizer.
        length: tokens of a prompt, likewise.
    """

    reader: LanguageModel
    rules: Rules
    dialect: Dialect
    count: Count
    length: Callable[[Prompt], int]

    @classmethod
    def of(cls, settings: Settings, context: Context) -> "Desk":
        tokenizer = writing(settings)
        return cls(
            build_lm(settings.reader.of(reader(settings, context))),
            settings.rules,
            DIALECTS[settings.rules.dialect],
            lambda text: len(encode_continuation(tokenizer, text)),
            partial(_length, tokenizer),
        )

    def answer(
        self, instances: Sequence[Instance], questions: Sequence[Sequence[Question]], recalls: Sequence[Recalls]
    ) -> list[list[str]]:
        """The reader's answers to the questions about each instance, greedily: all in one call."""
        prompts = []
        for instance, asked, evidence in zip(instances, questions, recalls, strict=True):
            texts = [self.dialect.asked.get(instance.family, "") + question.text for question in asked]
            prompts += [self._prompt(found, text) for found, text in zip(evidence(texts), texts, strict=True)]
        found = self.reader.generate(prompts, Sampling(max_tokens=self.rules.answer_tokens), "answer")
        answers = iter(completion.text for completion in found)
        return [[next(answers) for _ in asked] for asked in questions]

    def _prompt(self, evidence: Evidence, text: str) -> Prompt:
        """Entries are left out, one of each list at a time, while the prompt is too long."""
        prompt = self.dialect.reader(evidence, text)
        while self.length(prompt) > self.rules.reader_tokens and (less := evidence.shorter()) is not None:
            evidence, prompt = less, self.dialect.reader(less, text)
        return prompt


def _length(tokenizer: Any, prompt: Prompt) -> int:
    return len(encode(tokenizer, prompt))


# --- what is held of a stream, by arm -------------------------------------------------------------------------------

FIGURES = ("calls", "succeeded", "valid", "longest", "seconds", "pace", "growth")  # of arms with a writer


@dataclass(frozen=True)
class Held:
    """What an arm has of a stream when questions are asked."""

    evidence: Recalls
    tokens: int
    figures: Mapping[str, float] = field(default_factory=dict)


def same(evidence: Evidence) -> Recalls:
    """The same for every query."""
    return lambda queries: [evidence for _ in queries]


def long_context(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """The end of the stream, `window` tokens of it."""
    tokenizer = writing(settings)
    held = []
    for instance in instances:
        ids = encode_continuation(tokenizer, " . ".join(instance.chunks))[-settings.rules.window :]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        held.append(Held(same(Evidence(passages=(text,))), len(ids)))
    return held


def rag(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """The best chunks; all of them are stored."""

    def searched(instance: Instance, queries: Sequence[str]) -> list[Evidence]:
        found = top(instance.chunks, queries, settings.rules.passages)
        return [Evidence(passages=tuple(instance.chunks[place] for place in best)) for best in found]

    return [Held(partial(searched, one), sum(map(desk.count, one.chunks))) for one in instances]


def closed_book(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """Nothing: what the reader answers without a memory."""
    return [Held(same(Evidence()), 0) for _ in instances]


def oracle(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """The memory of a scripted writer that knows what matters: an upper bound, no model.

    Raises:
        UserError: streams of other sources than the text world.
    """
    if not all(one.items for one in instances):
        raise UserError("the oracle knows the text world alone: take another arm for your own files")
    rng = random.Random(context.seed)
    return [remembered(written(rng, one, settings.rules, ORACLE, desk.count), settings.rules.k) for one in instances]


def remembered(memory: Memory, k: int, figures: Mapping[str, float] | None = None) -> Held:
    """A memory, to be asked."""
    return Held(lambda queries: recall(memory, queries, k), memory.tokens, figures or {})


def wrote(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """The memory of the writer, before or after reinforcement, greedily."""
    name = (base if settings.arm == "untrained" else rl)(settings, context)
    lm = build_lm(settings.writer.of(name))
    writers = [Watched(one, settings.rules, desk.dialect, desk.count, desk.length) for one in instances]
    began = time.perf_counter()
    play(writers, lm, writing(settings), Sampling())
    seconds = (time.perf_counter() - began) / sum(len(one.chunks) for one in instances)
    return [remembered(one.memory, settings.rules.k, one.figures() | {"seconds": seconds}) for one in writers]


def foreign(settings: Settings, context: Context, desk: Desk, instances: Sequence[Instance]) -> list[Held]:
    """The writer's memory of the next stream of the same data set: what is answered by chance.

    Raises:
        UserError: a data set with one stream alone.
    """
    places: dict[str, list[int]] = {}
    for place, instance in enumerate(instances):
        places.setdefault(instance.dataset, []).append(place)
    if alone := [dataset for dataset, own in places.items() if len(own) == 1]:
        raise UserError(f"arm foreign needs two streams of each data set; {alone[0]} has one")
    held = wrote(settings, context, desk, instances)
    following = {place: after for own in places.values() for place, after in zip(own, [*own[1:], own[0]], strict=True)}
    return [held[following[place]] for place in range(len(instances))]


HOLDERS = {
    "long_context": long_context,
    "rag": rag,
    "closed_book": closed_book,
    "oracle": oracle,
    "untrained": wrote,
    "rl": wrote,
    "foreign": foreign,
}


@dataclass
class Watched(Writer):
    """A writer whose time and memory are seen after every chunk; streams of one batch go together."""

    seen: list[tuple[float, int]] = field(default_factory=list)
    longest: int = 0

    def ask(self) -> Request | None:
        request = super().ask()
        if request is not None:
            self.longest = max(self.longest, self.length(request.prompt))
        return request

    def take(self, completion: Completion) -> None:
        super().take(completion)
        self.seen.append((time.perf_counter(), resident()))

    def figures(self) -> dict[str, float]:
        """Means over chunks; of streams of 9 and more also the medians of the last third over those of the first.

        pace: of the seconds of a chunk.
        growth: of the resident memory of the process.
        """
        done = [one for turn in self.turns for one in turn]
        found = {
            "calls": len(done) / len(self.turns),
            "succeeded": float(np.mean([share([one.succeeded for one in turn]) for turn in self.turns])),
            "longest": float(self.longest),
        }
        if self.instance.items:
            found["valid"] = float(
                np.mean([share([valid(one.call, self.instance) for one in turn]) for turn in self.turns])
            )
        third = len(self.seen) // 3
        if third >= 3:
            times, pages = np.diff([at for at, _ in self.seen]), [held for _, held in self.seen]
            found["pace"] = float(np.median(times[-third:]) / np.median(times[:third]))
            found["growth"] = float(np.median(pages[-third:]) / np.median(pages[:third]))
        return found


def resident() -> int:
    """Memory that this process holds now, in pages (Linux; elsewhere the most that it ever held, in KB)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- models ---------------------------------------------------------------------------------------------------------


def source(settings: Settings, context: Context, part: str) -> Source:
    """Instances of a split; sweeps are tested on names of the validation split, or on a file of their own."""
    choice = settings.streams
    if choice.source == "text_world":
        if part == "train":
            return Worlds(choice, "train")
        return Worlds(choice, "validation" if context.validation else "test")
    tested = SELECTION if context.validation else choice.test
    name = f"{tested if part == 'test' else part}.jsonl"
    return read(own_file(context.data, choice.folder, name, "mem_alpha"))


def untaught(settings: Settings, context: Context) -> Path:
    """The model with random weights that the reader of the tiny scale starts from."""
    size = settings.size
    return context.artifact("fresh", size, lambda folder: fresh(size, scratch.tokenizer(), folder))


def told(settings: Settings) -> dict[str, Any]:
    """The streams, but for their evaluation: part of the key of all that is trained."""
    return {"streams": asdict(replace(settings.streams, chunks=0, count=0, test=""))}


def reader(settings: Settings, context: Context) -> str:
    """Name of the reader: taught once, on memories of every quality, or as it is."""
    if not settings.reading.count:
        return settings.reader.name
    return str(ours("reader", taught_reader_key(settings)) or taught_reader(settings, context))


def ours(name: str, key: Mapping[str, Any]) -> Path | None:
    """What ships, where it was trained with these settings."""
    return shipped(WEIGHTS / name, REVISIONS[name], key) if name in REVISIONS else None


def taught_reader(settings: Settings, context: Context) -> Path:
    """The reader, taught here."""
    start = untaught(settings, context)

    def make(folder: Path) -> None:
        made = scratch.tokenizer()
        lessons = reader_lessons(settings, lambda text: len(encode_continuation(made, text)))
        specialise(start, lessons, settings.reading.tuning, folder, device=settings.reader.device)

    return context.artifact("reader", taught_reader_key(settings), make)


def taught_reader_key(settings: Settings) -> dict[str, Any]:
    """What a taught reader depends on besides code."""
    key = told(settings) | {"size": asdict(settings.size), "k": settings.rules.k}
    return key | {"reading": asdict(settings.reading)}


def base(settings: Settings, context: Context) -> str:
    """Name of the writer before reinforcement: the reader, taught by imperfect demonstrations; or as it is."""
    if not settings.warm.count:
        return settings.writer.name
    start = reader(settings, context)
    key = warm_start_key(settings, start)
    return str(ours("writer", key) or warm_start(settings, context, start))


def warm_start(settings: Settings, context: Context, start: str) -> Path:
    """The writer before reinforcement, taught here."""

    def make(folder: Path) -> None:
        made = scratch.tokenizer()
        lessons = writer_lessons(settings, lambda text: len(encode_continuation(made, text)))
        specialise(start, lessons, settings.warm.tuning, folder, device=settings.writer.device)

    return context.artifact("base", warm_start_key(settings, start), make)


def warm_start_key(settings: Settings, start: str) -> dict[str, Any]:
    """What the writer before reinforcement depends on besides code."""
    rules = settings.rules
    key = told(settings) | {"warm": asdict(settings.warm), "chunks": settings.rl.chunks, "start": located(start)[2]}
    return key | {"rules": [rules.stores, rules.semantics, rules.core_tokens, rules.shown]}


def check_reader(settings: Settings, context: Context) -> dict[str, dict[str, float]]:
    """Print and return what the reader answers from the oracle's memory and from an empty one, by family and on
    average.

    Raises:
        UserError: too little from the one, or too much from the other.
    """

    def make(folder: Path) -> None:
        desk = Desk.of(settings, context)
        instances = Worlds(settings.streams, "validation").all(settings.gate.count, "gate", settings.rl.chunks)
        scores = {}
        for name, holder in (("oracle", oracle), ("empty", closed_book)):
            metrics = averaged(measured(desk, instances, holder(settings, context, desk, instances)))
            scores[name] = {part: metrics[part] for part in (*FAMILIES, "mean")}
        (folder / "scores.json").write_text(json.dumps(scores))

    key = told(settings) | {
        "reader": reader_key(settings, context),
        "rules": asdict(replace(settings.rules, window=0, passages=0)),
        "asked": [settings.gate.count, settings.rl.chunks],
    }
    found: dict[str, dict[str, float]] = json.loads((context.artifact("gate", key, make) / "scores.json").read_text())
    for name, scores in found.items():
        print(f"the reader, memory {name}: " + ", ".join(f"{part} {score:.3f}" for part, score in scores.items()))
    knowing, blind = (found[name]["mean"] for name in ("oracle", "empty"))
    if knowing < settings.gate.oracle:
        raise UserError(
            f"the reader is not ready for RL: it scores {knowing:.3f} < {settings.gate.oracle} from the oracle's "
            "memory; teach it for longer, or see gate"
        )
    if blind > settings.gate.empty:
        raise UserError(
            f"the reader is not ready for RL: it scores {blind:.3f} > {settings.gate.empty} from an empty memory; "
            "there is nothing to remember then; see gate"
        )
    return found


def reader_key(settings: Settings, context: Context) -> Any:
    """The reader in keys: the hash of what was trained here, or the settings of a model as it is."""
    name = reader(settings, context)
    return located(name)[2] if settings.reading.count else asdict(settings.reader)


def rl(settings: Settings, context: Context) -> str:
    """Name of the writer after reinforcement."""
    start = base(settings, context)
    speaker = settings.writer.of(start)
    core = replace(settings.rl.core, seed=context.seed)

    def make(folder: Path) -> None:
        if settings.streams.source == "text_world":
            check_reader(settings, context)
        streams = source(settings, context, "train")
        task = Construction(settings, streams, Desk.of(settings, context), context.seed)
        train_policy(speaker, lambda lm: task, core, folder)

    key = told(settings) | {
        "start": revision_of(speaker),
        "dtype": speaker.dtype,
        "reader": reader_key(settings, context),
        "rl": asdict(replace(settings.rl, core=core)),
        "rules": asdict(replace(settings.rules, window=0, passages=0)),
        "data": source(settings, context, "train").digest,
    }
    return str(context.artifact("policy", key, make))


def writing(settings: Settings) -> Any:
    """The tokenizer of the writer, before it is taught anything too."""
    return scratch.tokenizer() if settings.writer.name == SCRATCH else tokenizer_of(settings.writer)


# --- reinforcement --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Construction:
    """A `Task` of `common.training.reinforcement.rollout`: streams to be remembered, new ones in each step."""

    settings: Settings
    source: Source
    desk: Desk
    seed: int = 0

    def begin(self, step: int) -> list[Writer]:
        learning, desk = self.settings.rl, self.desk
        drawn = self.source.draw(learning.instances, f"rl/{self.seed}/{step}", learning.chunks)
        return [
            Writer(instance, self.settings.rules, desk.dialect, desk.count, desk.length)
            for instance in drawn
            for _ in range(learning.rollouts)
        ]

    def settle(self, agents: Sequence[Writer]) -> list[Outcome]:
        """The four rewards of each chunk-action."""
        learning = self.settings.rl
        validity = self._valid([(a.instance, done.call) for a in agents for turn in a.turns for done in turn])
        outcomes = []
        for agent, r1 in zip(agents, self._answered(agents), strict=True):
            r2 = [share([done.succeeded for done in turn]) for turn in agent.turns]
            r4 = [share([next(validity) for _ in turn]) for turn in agent.turns]
            r3 = compression(agent.memory.tokens, sum(map(self.desk.count, agent.instance.chunks)))
            rewards = [
                reward(r1, *parts, learning.beta, learning.gamma) for parts in zip(r2, [r3] * len(r2), r4, strict=True)
            ]
            parts = {"r1": r1, "r2": float(np.mean(r2)), "r3": r3, "r4": float(np.mean(r4))}
            parts |= {"memory": float(agent.memory.tokens), "calls": float(np.mean([len(t) for t in agent.turns]))}
            outcomes.append(Outcome(tuple(rewards), parts))
        if learning.reward == "shuffled":
            return shuffled(outcomes, [agent.group for agent in agents], self.seed, "turn")
        return outcomes

    def _answered(self, agents: Sequence[Writer]) -> list[float]:
        """r1: mean over some questions of an instance, the same ones for all its rollouts."""
        asked, most = [], self.settings.rl.questions
        for agent in agents:
            questions, rng = agent.instance.questions, random.Random(f"{self.seed}/{agent.group}")
            asked.append(rng.sample(questions, min(most, len(questions))) if most else list(questions))
        k = self.settings.rules.k
        instances = [agent.instance for agent in agents]
        answers = self.desk.answer(instances, asked, [remembered(agent.memory, k).evidence for agent in agents])
        return [
            float(np.mean([METRICS[one.metric](a, q.golds) for q, a in zip(own, found, strict=True)] or [0.0]))
            for one, own, found in zip(instances, asked, answers, strict=True)
        ]

    def _valid(self, calls: Sequence[tuple[Instance, Call]]) -> Iterator[bool]:
        """The verdicts on all calls, failed ones included; a delete is not valid, nor is what has no content."""
        if self.settings.rl.validity == "scripted":
            return iter([valid(call, instance) for instance, call in calls])
        prompts = [judge(call) for _, call in calls if judgeable(call)]
        sampling = Sampling(max_tokens=512, temperature=0.1)  # ours; the paper's
        said = iter(self.desk.reader.generate(prompts, sampling, "judge") if prompts else [])
        return iter([judgeable(call) and judged(next(said).text) for _, call in calls])
