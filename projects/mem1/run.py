"""MEM1: one row of a table on one column at one seed. A policy is trained, or taken as it is, and answers test tasks.

The warm start is one model for all rows and seeds, which ships (`ship.py`); a policy is an artifact for its arm and
seed, whatever the columns; so are the answers of a policy to n objectives, so that every column compares itself with
n = 2 at no cost.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.data.own_files import own_file, sha256
from common.data.text_world.names import Split
from common.evaluators.answers import em_sum, f1_sum
from common.experiments.context import Context, Result
from common.experiments.errors import UserError
from common.models.build import build as build_lm
from common.models.encoders import build as build_encoder
from common.models.language_model import LanguageModel, Sampling
from common.models.local import revision_of, tokenizer_of
from common.models.microlm.demonstrations import Demonstration, teach
from common.models.microlm.scratch import fresh
from common.models.microlm.specialise import artifact_key, specialise
from common.models.shipped import shipped
from common.retrievers.build import build as build_retriever
from common.retrievers.build import load as load_retriever
from common.training.reinforcement.curve import learning_curve
from common.training.reinforcement.episodes import Outcome, Turn, at_end, shuffled, tokens_within
from common.training.reinforcement.policy import train_policy
from common.training.reinforcement.rollout import Played, play
from projects.mem1 import shop_teachers, teachers
from projects.mem1.data import Files, Made, Search, Source, Worlds, read, searching
from projects.mem1.method import (
    Chat,
    MemoryAgent,
    Searcher,
    dependency,
    kept,
    peak_tokens,
    released,
    state_of,
    state_spans,
)
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import Learning, Rules, Settings, Stock, TextWorld
from projects.mem1.shopper import Shopper, Shops
from projects.mem1.skills import Measured, lacking, measured_skills
from projects.mem1.teachers import imitated

REFERENCE = 2  # objectives that other columns are compared with
WEIGHTS = Path(__file__).parent / "weights"  # warm starts that ship, by source of questions
REVISIONS = {"text_world": "sha256:8db7e663c2891847", "shop": "sha256:6043b1770083a754"}


def run(settings: Settings, context: Context) -> Result:
    """Train what is missing, answer, measure.

    Raises:
        UserError: missing data or model; a base that RL cannot start from.
    """
    name = POLICIES[settings.policy](settings, context)
    rows, seconds = answers(settings, context, name, settings.questions.objectives)
    metrics = described(rows) | {"seconds": seconds / len(rows)}
    if settings.questions.source != "shop":
        reference, _ = answers(settings, context, name, REFERENCE)
        at_two = described(reference)
        metrics["drop"] = at_two["em_each"] - metrics["em_each"]
        if at_two["peak"]:
            metrics["growth"] = metrics["peak"] / at_two["peak"]
    if settings.policy == "rl":
        ends = [f"reward.{name}" for name in kind_of(settings).curve]
        metrics |= learning_curve(Path(name), context, "reward", *ends, means=("gap",))
    context.save_items("tasks", rows)
    return Result(metrics)


def described(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over tasks, of every number of their rows."""
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in numbers}


# --- kinds of tasks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskKind:
    """What differs between questions and errands.

    Attributes:
        agent: made of a task, rules, a chat, and whether tags that do not match are penalised.
        figures: of an agent at the end, for the row of its task.
        parts: of an agent at the end, for the learning curve.
        curve: those of the parts whose start and end a cell reports.
        teachers: a module with `teachers`, `performed` and `right`.
    """

    agent: Callable[[Any, Rules, Chat, bool], MemoryAgent]
    figures: Callable[[Any], dict[str, Any]]
    parts: Callable[[Any], dict[str, float]]
    curve: tuple[str, ...]
    teachers: Any


def answered(agent: Searcher) -> dict[str, Any]:
    """What was answered to a task, and what it was worth."""
    task, answer = agent.task, agent.answer or ""
    em, f1 = em_sum(answer, task.golds), f1_sum(answer, task.golds)
    state = state_of(agent.steps[-1].text, agent.rules.tags) if agent.steps else ""
    return {
        "em": em,
        "em_each": em / len(task.questions),
        "f1": f1,
        "f1_each": f1 / len(task.questions),
        "searches": sum(bool(step.query) for step in agent.steps),
        "kept": kept(state, task.golds),
        "questions": task.text,
        "golds": task.golds,
        "answer": answer,
    }


def bought(agent: Shopper) -> dict[str, Any]:
    """What was bought on an errand, and what it was worth; a malformed turn is worth 0 here, as no purchase is."""
    return {
        "reward": max(0.0, agent.reward),
        "right": float(agent.reward == 1),
        "goal": agent.task.text,
        "end": agent.end,
    }


def searches(agent: Searcher) -> dict[str, float]:
    """Right answers, whatever the tags, and searches."""
    em = em_sum(agent.answer or "", agent.task.golds)
    return {"em": em, "searches": float(sum(bool(step.query) for step in agent.steps))}


QUESTIONS = TaskKind(Searcher, answered, searches, ("searches",), teachers)
ERRANDS = TaskKind(Shopper, bought, lambda agent: {"right": float(agent.reward == 1)}, ("right",), shop_teachers)


def kind_of(settings: Settings) -> TaskKind:
    """Of the tasks that are asked for."""
    return ERRANDS if settings.questions.source == "shop" else QUESTIONS


# --- answers --------------------------------------------------------------------------------------------------------


def answers(settings: Settings, context: Context, name: str, objectives: int) -> tuple[list[dict[str, Any]], float]:
    """What a policy answered to test tasks of so many objectives, greedily: a row each; and the seconds of all."""

    speaker = settings.lm.of(name)
    split = test_split(context)

    def make(folder: Path) -> None:
        lm, tokenizer = build_lm(speaker), tokenizer_of(speaker)
        chat = Chat(tokenizer, lm.context)
        tasks = source(settings, context, split).tasks(objectives, settings.questions.count, f"eval/{context.seed}")
        began = time.perf_counter()
        agents = [kind_of(settings).agent(task, settings.rules, chat, False) for task in tasks]
        played = play(agents, lm, tokenizer, Sampling())
        seconds = time.perf_counter() - began
        rows = [kind_of(settings).figures(one.agent) | measured(one) for one in played]
        (folder / "answers.json").write_text(json.dumps({"rows": rows, "seconds": seconds}))

    key = {
        "lm": asdict(replace(speaker, name=revision_of(speaker))),
        "rules": asdict(settings.rules),
        "questions": asdict(replace(settings.questions, objectives=objectives)),
        "material": asdict(material(settings)),
        "seed": context.seed,
        "files": files(settings, context, f"{split}.jsonl", "passages.jsonl"),
    }
    found = json.loads((context.artifact("answers", key, make) / "answers.json").read_text())
    return found["rows"], found["seconds"]


def measured(played: Played) -> dict[str, Any]:
    """What the episode of a task cost; lengths in tokens of the policy's tokenizer."""
    agent, turns = played.agent, played.turns
    first = len(turns[0].context) if turns else 0
    lengths = [(len(turn.context) - first, len(turn.token_ids)) for turn in turns]
    return {
        "peak": peak_tokens(lengths),
        "dependency": dependency(lengths),
        "turns": len(turns),
        "invalid": float(not agent.acted),
        "id": agent.task.id,
        "steps": [step.text for step in agent.steps],
    }


def test_split(context: Context) -> Split:
    """The split that policies are tested on: in a sweep validation worlds, shops and files."""
    return "validation" if context.validation else "test"


def source(settings: Settings, context: Context, split: Split) -> Source:
    """Tasks of a split."""
    if settings.questions.source != "jsonl":
        return made(settings, split)
    rows = read(own(settings, context, f"{split}.jsonl"))
    return Files(rows, corpus_search(settings, context))


def made(settings: Settings, split: Split) -> Made:
    """Tasks that are made up."""
    if settings.questions.source == "shop":
        return Shops(settings.stock, split)
    return Worlds(settings.world, settings.questions, split)


def material(settings: Settings) -> TextWorld | Stock:
    """What tasks are made of: settings for keys."""
    return settings.stock if settings.questions.source == "shop" else settings.world


def files(settings: Settings, context: Context, *names: str) -> dict[str, str]:
    """Digests of the files that an artifact is made of, for its key; none of what is made up, by code."""
    if settings.questions.source != "jsonl":
        return {}
    return {name: sha256(own(settings, context, name)) for name in names}


def own(settings: Settings, context: Context, name: str) -> Path:
    """A file of source jsonl. UserError: it is not there."""
    return own_file(context.data, settings.questions.folder, name, "mem1")


def corpus_search(settings: Settings, context: Context) -> Search:
    """The search of a corpus in a file; its index is an artifact. UserError: an id is given twice."""
    choice, path = settings.questions, own(settings, context, "passages.jsonl")
    passages = read(path)
    for name, count in Counter(row["id"] for row in passages).items():
        if count > 1:
            raise UserError(f"{path}: id '{name}' is given twice")
    encoder = build_encoder(choice.encoder) if choice.encoder else None

    def make(folder: Path) -> None:
        index = build_retriever(choice.retriever, encoder)
        index.build([row["id"] for row in passages], [f"{row['title']}: {row['text']}" for row in passages])
        index.save(folder / "index")

    key = [choice.retriever, choice.encoder, files(settings, context, "passages.jsonl")]
    folder = context.artifact("index", key, make)
    return searching(load_retriever(folder / "index", encoder), passages, choice)


# --- policies -------------------------------------------------------------------------------------------------------


def base(settings: Settings, context: Context) -> str:
    """Name of the model that all policies start from: taught by the mixture of teachers, or as it is."""
    if not settings.taught.count:
        return untaught(settings, context)
    return str(ours(settings) or warm_start(settings, context))


def ours(settings: Settings) -> Path | None:
    """The warm start that ships, where it is that of these settings."""
    source = settings.questions.source
    return shipped(WEIGHTS / source, REVISIONS[source], warm_start_key(settings)) if source in REVISIONS else None


def warm_start(settings: Settings, context: Context) -> Path:
    """The taught model, trained here, in one stage or in several."""
    return list(warm_starts(settings, context).values())[-1]


def warm_starts(settings: Settings, context: Context) -> dict[str, Path]:
    """The model after each stage, by name, in order: each one has the key of a warm start that ends there."""
    key, done = warm_start_key(settings), dict[str, Any]()
    models = {"base": context.artifact("base", key | {"stages": done}, taught(settings, untaught(settings, context)))}
    for name, stage in settings.stages().items():
        *_, before = models.values()
        done = done | {name: asdict(stage)}
        lessons = replace(
            settings,
            taught=replace(settings.taught, count=stage.count),
            taught_answers=stage.answers,
            taught_pruned=stage.pruned,
            tuning=stage.tuning,
        )
        models[name] = context.artifact(name, key | {"stages": done}, taught(lessons, str(before)))
    return models


def taught(settings: Settings, start: str) -> Callable[[Path], None]:
    """What puts a copy of `start`, taught by the teachers, into a folder."""
    speaker = settings.lm.of(start)

    def make(folder: Path) -> None:
        shown = teach(kind_of(settings).teachers.teachers(made(settings, "train"), settings), settings.taught)
        specialise(start, shown, settings.tuning, folder, speaker.revision, speaker.device)

    return make


def warm_start_key(settings: Settings) -> dict[str, Any]:
    """What the taught model depends on besides code: nothing that no teacher of questions reads; of a shop, more."""
    questions = replace(settings.questions, objectives=0, count=0, retriever="", encoder="", folder="")
    return {
        "start": beginning(settings) if settings.base == "scratch" else revision_of(settings.lm),
        "tuning": asdict(settings.tuning),
        "taught": asdict(settings.taught),
        "material": asdict(material(settings)),
        "questions": asdict(questions),
        "rules": asdict(replace(settings.rules, context="", recalled=0, turn_tokens=0)),
        "faults": settings.faults,
        "taught_answers": settings.taught_answers,
        "taught_pruned": settings.taught_pruned,
        "taught_full": settings.taught_full,
        "stages": {name: asdict(stage) for name, stage in settings.stages().items()},
    }


def untaught(settings: Settings, context: Context) -> str:
    """Name of the model that teachers begin with."""
    if settings.base == "lm":
        return settings.lm.name
    size, tags, shop = settings.scratch, settings.rules.tags, settings.questions.source == "shop"
    key = beginning(settings)
    return str(context.artifact("scratch", key, lambda folder: fresh(size, world_tokenizer(tags, shop), folder)))


def beginning(settings: Settings) -> list[Any]:
    """What a model from scratch depends on besides code."""
    return [asdict(settings.scratch), asdict(settings.rules.tags), settings.questions.source == "shop"]


def check_skills(settings: Settings, context: Context, start: str) -> dict[int, Measured]:
    """Print and return what a taught base can do, by n. UserError: less than is asked for."""
    speaker = settings.lm.of(start)

    def make(folder: Path) -> None:
        lm = build_lm(speaker)
        chat = Chat(tokenizer_of(speaker), lm.context)
        tried, performed = made(settings, "validation"), kind_of(settings).teachers.performed
        found = {n: measured_skills(lm, chat, tried, settings, n, performed) for n in settings.skills.objectives}
        (folder / "skills.json").write_text(json.dumps(found))

    key = {
        "base": revision_of(speaker),
        "skills": asdict(settings.skills),
        "rules": asdict(replace(settings.rules, context="")),
        "questions": asdict(replace(settings.questions, objectives=0, count=0)),
        "material": asdict(material(settings)),
    }
    read = json.loads((context.artifact("skills", key, make) / "skills.json").read_text())
    found = {int(n): shares for n, shares in read.items()}
    for n, shares in found.items():
        print(f"the base at n = {n}: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    if missing := lacking(found, settings.skills):
        raise UserError(f"the base is not ready for RL: {'; '.join(missing)}; teach it for longer, or see skills")
    return found


def sft(settings: Settings, context: Context) -> str:
    """The base, trained on filtered trajectories: of a faulty teacher, or of another model, in a file."""
    start, choice = base(settings, context), settings.questions
    speaker = settings.lm.of(start)
    tuning = replace(settings.sft.tuning, seed=context.seed)

    def make(folder: Path) -> None:
        if choice.source != "jsonl":
            performed, right = kind_of(settings).teachers.performed, kind_of(settings).teachers.right
            tasks = made(settings, "train")
            shown = imitated(tasks, settings.sft, settings.rules, context.seed, performed, right)
        else:
            turns = read(own(settings, context, "trajectories.jsonl"))
            shown = [Demonstration(tuple(turn["messages"]), turn["answer"]) for turn in turns]
        specialise(start, shown, tuning, folder, speaker.revision, speaker.device)

    key = artifact_key(start, tuning, settings.sft, speaker.revision) | {
        "rules": asdict(replace(settings.rules, context="")),
        "questions": asdict(replace(choice, objectives=0, count=0)),
        "material": asdict(material(settings)),
        "files": files(settings, context, "trajectories.jsonl"),
    }
    return str(context.artifact("sft", key, make))


def rl(settings: Settings, context: Context) -> str:
    """The base, trained by reinforcement under the row's context rule."""
    start = base(settings, context)
    speaker = settings.lm.of(start)
    core = replace(settings.rl.core, seed=context.seed)
    rules = trained_rules(settings.rules)

    def make(folder: Path) -> None:
        if settings.taught.count:
            check_skills(settings, context, start)
        tokenizer = tokenizer_of(speaker)
        low, high = settings.rl.gate

        def task(lm: LanguageModel) -> Objectives:
            chat = Chat(tokenizer, lm.context)
            tasks = source(settings, context, "train")
            return Objectives(tasks, settings.rl, rules, chat, context.seed, kind_of(settings))

        def gate(line: Mapping[str, float], episodes: Sequence[Any]) -> None:
            share = line["reward.earned"] / settings.rl.objectives
            if line["step"] == 0 and not low <= share <= high:
                raise UserError(f"the base earns {share:.3f} of an objective, not {low} to {high}: see rl.gate")

        def states(turn: Turn) -> tuple[bool, ...]:
            return tokens_within(tokenizer, turn, lambda text: state_spans(text, rules.tags))

        layout = released(states) if settings.rl.mask == "released" else None
        train_policy(speaker, task, core, folder, layout=layout, on_step=gate)

    key = artifact_key(start, settings.tuning, settings.rl, speaker.revision) | {
        "core": asdict(core),
        "dtype": speaker.dtype,
        "rules": asdict(rules),
        "questions": asdict(replace(settings.questions, objectives=0, count=0)),
        "material": asdict(material(settings)),
        "files": files(settings, context, "train.jsonl", "passages.jsonl"),
    }
    return str(context.artifact("policy", key, make))


POLICIES = {"base": base, "sft": sft, "rl": rl}


def trained_rules(rules: Rules) -> Rules:
    """Rules of the rollouts: controls without state and with others' passages are of the evaluation alone."""
    return replace(rules, context="pruned") if rules.context in ("stateless", "others") else rules


@dataclass
class Objectives:
    """A `Task` of `common.training.reinforcement.rollout`: multi-objective tasks or errands, new ones in each step."""

    source: Source
    learning: Learning
    rules: Rules
    chat: Chat
    seed: int = 0
    kind: TaskKind = QUESTIONS

    def begin(self, step: int) -> list[MemoryAgent]:
        drawn = self.source.tasks(self.learning.objectives, self.learning.tasks, f"rl/{self.seed}/{step}")
        penalty, rollouts = self.learning.reward == "format_penalty", range(self.learning.rollouts)
        return [self.kind.agent(task, self.rules, self.chat, penalty) for task in drawn for _ in rollouts]

    def settle(self, agents: Sequence[MemoryAgent]) -> list[Outcome]:
        """The reward of each episode, on its last turn."""
        outcomes = [
            Outcome(
                at_end(agent.reward, len(agent.steps)),
                {
                    **self.kind.parts(agent),
                    "earned": max(0.0, agent.reward),  # without penalty, and its own where rewards are shuffled
                    "invalid": float(not agent.acted),
                },
            )
            for agent in agents
        ]
        if self.learning.reward == "shuffled":
            return shuffled(outcomes, [agent.group for agent in agents], self.seed)
        return outcomes
