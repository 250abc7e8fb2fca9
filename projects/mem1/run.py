"""MEM1: one row of a table on one column at one seed. A policy is trained, or taken as it is, and answers test tasks.

The warm start is one artifact for all rows and seeds; a policy one for its arm and seed, whatever the columns; so are
the answers of a policy to n objectives, so that every column compares itself with n = 2 at no cost.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.data.own_files import own_file, sha256
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
from common.retrievers.build import build as build_retriever
from common.retrievers.build import load as load_retriever
from common.training.reinforcement.curve import learning_curve
from common.training.reinforcement.episodes import Outcome, Turn, at_end, shuffled, tokens_within
from common.training.reinforcement.policy import train_policy
from common.training.reinforcement.rollout import Played, play
from projects.mem1.data import Files, Search, Source, Worlds, read, searching
from projects.mem1.method import Chat, Searcher, dependency, kept, peak_tokens, released, state_of, state_spans
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import Learning, Rules, Settings
from projects.mem1.skills import lacking, measured_skills
from projects.mem1.teachers import imitated, teachers

REFERENCE = 2  # objectives that other columns are compared with


def run(settings: Settings, context: Context) -> Result:
    """Train what is missing, answer, measure.

    Raises:
        UserError: a setting with an unknown name; missing data or model; a base that RL cannot start from.
    """
    name = POLICIES[settings.policy](settings, context)
    rows, seconds = answers(settings, context, name, settings.questions.objectives)
    reference, _ = answers(settings, context, name, REFERENCE)
    metrics = described(rows) | {"seconds": seconds / len(rows)}
    at_two = described(reference)
    metrics["drop"] = at_two["em_each"] - metrics["em_each"]
    if at_two["peak"]:
        metrics["growth"] = metrics["peak"] / at_two["peak"]
    if settings.policy == "rl":
        metrics |= learning_curve(Path(name), context, "reward", "reward.searches", means=("gap",))
    context.save_items("tasks", rows)
    return Result(metrics)


def described(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over tasks, of every number of their rows."""
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in numbers}


# --- answers --------------------------------------------------------------------------------------------------------


def answers(settings: Settings, context: Context, name: str, objectives: int) -> tuple[list[dict[str, Any]], float]:
    """What a policy answered to test tasks of so many objectives, greedily: a row each; and the seconds of all."""

    speaker = settings.speaker(name)

    def make(folder: Path) -> None:
        lm, tokenizer = build_lm(speaker), tokenizer_of(speaker)
        chat = Chat(tokenizer, lm.context)
        tasks = source(settings, context, "test").tasks(objectives, settings.questions.count, f"eval/{context.seed}")
        began = time.perf_counter()
        played = play([Searcher(task, settings.rules, chat) for task in tasks], lm, tokenizer, Sampling())
        seconds = time.perf_counter() - began
        rows = [measured(one, chat) for one in played]
        (folder / "answers.json").write_text(json.dumps({"rows": rows, "seconds": seconds}))

    key = {
        "lm": asdict(replace(speaker, name=revision_of(speaker))),
        "rules": asdict(settings.rules),
        "questions": asdict(replace(settings.questions, objectives=objectives)),
        "world": asdict(settings.world),
        "seed": context.seed,
        "files": files(settings, context, "test.jsonl", "passages.jsonl"),
    }
    found = json.loads((context.artifact("answers", key, make) / "answers.json").read_text())
    return found["rows"], found["seconds"]


def measured(played: Played, chat: Chat) -> dict[str, Any]:
    """One task: what was answered, what it was worth and what it cost; lengths in tokens of the policy's tokenizer."""
    agent: Searcher = played.agent
    task, answer, turns = agent.task, agent.answer or "", played.turns
    first = len(turns[0].context) if turns else 0
    lengths = [(len(turn.context) - first, len(turn.token_ids)) for turn in turns]
    em, f1 = em_sum(answer, task.golds), f1_sum(answer, task.golds)
    state = state_of(agent.steps[-1].text, agent.rules.tags) if agent.steps else ""
    return {
        "em": em,
        "em_each": em / len(task.questions),
        "f1": f1,
        "f1_each": f1 / len(task.questions),
        "peak": peak_tokens(lengths),
        "dependency": dependency(lengths),
        "turns": len(turns),
        "searches": sum(bool(step.query) for step in agent.steps),
        "invalid": float(agent.end != "answered"),
        "kept": kept(state, task.golds),
        "id": task.id,
        "questions": task.text,
        "golds": task.golds,
        "answer": answer,
        "steps": [step.text for step in agent.steps],
    }


def source(settings: Settings, context: Context, split: str) -> Source:
    """Tasks of a split; sweeps with seeds of 1000 and more are tested on validation worlds."""
    choice = settings.questions
    if choice.source == "text_world":
        part = "validation" if split == "test" and context.seed >= 1000 else split
        return Worlds(settings.world, choice, part)  # type: ignore[arg-type]
    rows = read(own(settings, context, f"{split}.jsonl"))
    return Files(rows, corpus_search(settings, context))


def files(settings: Settings, context: Context, *names: str) -> dict[str, str]:
    """Digests of the files that an artifact is made of, for its key; none of the text world, which is code."""
    if settings.questions.source == "text_world":
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
    start = untaught(settings, context)
    if not settings.taught.count:
        return start
    speaker = settings.speaker(start)

    def make(folder: Path) -> None:
        lessons = teach(teachers(Worlds(settings.world, settings.questions, "train"), settings), settings.taught)
        specialise(start, lessons, settings.tuning, folder, speaker.revision, speaker.device)

    shown = replace(settings.questions, objectives=0, count=0)
    key = artifact_key(start, settings.tuning, settings.taught, speaker.revision) | {
        "world": asdict(settings.world),
        "questions": asdict(shown),
        "rules": asdict(replace(settings.rules, context="")),
        "rest": [settings.faults, settings.taught_pruned, settings.taught_full],
    }
    return str(context.artifact("base", key, make))


def untaught(settings: Settings, context: Context) -> str:
    """Name of the model that teachers begin with."""
    if settings.base == "lm":
        return settings.lm.name
    size, tags = settings.scratch, settings.rules.tags
    key = [asdict(size), asdict(tags)]
    return str(context.artifact("scratch", key, lambda folder: fresh(size, world_tokenizer(tags), folder)))


def check_skills(settings: Settings, context: Context, start: str) -> None:
    """Print what a taught base can do. UserError: less than is asked for."""
    speaker = settings.speaker(start)

    def make(folder: Path) -> None:
        lm = build_lm(speaker)
        chat = Chat(tokenizer_of(speaker), lm.context)
        worlds = Worlds(settings.world, settings.questions, "validation")
        found = {n: measured_skills(lm, chat, worlds, settings, n) for n in settings.skills.objectives}
        (folder / "skills.json").write_text(json.dumps(found))

    key = {
        "base": revision_of(speaker),
        "skills": asdict(settings.skills),
        "rules": asdict(replace(settings.rules, context="")),
        "questions": asdict(replace(settings.questions, objectives=0, count=0)),
        "world": asdict(settings.world),
    }
    read = json.loads((context.artifact("skills", key, make) / "skills.json").read_text())
    found = {int(n): shares for n, shares in read.items()}
    for n, shares in found.items():
        print(f"the base at n = {n}: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    if missing := lacking(found, settings.skills):
        raise UserError(f"the base is not ready for RL: {'; '.join(missing)}; teach it for longer, or see skills")


def sft(settings: Settings, context: Context) -> str:
    """The base, trained on filtered trajectories: of a faulty teacher, or of another model, in a file."""
    start, choice = base(settings, context), settings.questions
    speaker = settings.speaker(start)
    tuning = replace(settings.sft.tuning, seed=context.seed)

    def make(folder: Path) -> None:
        if choice.source == "text_world":
            shown = imitated(Worlds(settings.world, choice, "train"), settings.sft, settings.rules, context.seed)
        else:
            turns = read(own(settings, context, "trajectories.jsonl"))
            shown = [Demonstration(tuple(turn["messages"]), turn["answer"]) for turn in turns]
        specialise(start, shown, tuning, folder, speaker.revision, speaker.device)

    key = artifact_key(start, tuning, settings.sft, speaker.revision) | {
        "rules": asdict(replace(settings.rules, context="")),
        "questions": asdict(replace(choice, objectives=0, count=0)),
        "world": asdict(settings.world),
        "files": files(settings, context, "trajectories.jsonl"),
    }
    return str(context.artifact("sft", key, make))


def rl(settings: Settings, context: Context) -> str:
    """The base, trained by reinforcement under the row's context rule."""
    start = base(settings, context)
    speaker = settings.speaker(start)
    core = replace(settings.rl.core, seed=context.seed)
    rules = trained_rules(settings.rules)

    def make(folder: Path) -> None:
        if settings.taught.count:
            check_skills(settings, context, start)
        tokenizer = tokenizer_of(speaker)
        low, high = settings.rl.gate

        def task(lm: LanguageModel) -> Objectives:
            chat = Chat(tokenizer, lm.context)
            return Objectives(source(settings, context, "train"), settings.rl, rules, chat, context.seed)

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
        "rules": asdict(rules),
        "questions": asdict(replace(settings.questions, objectives=0, count=0)),
        "world": asdict(settings.world),
        "files": files(settings, context, "train.jsonl", "passages.jsonl"),
    }
    return str(context.artifact("policy", key, make))


POLICIES = {"base": base, "sft": sft, "rl": rl}


def trained_rules(rules: Rules) -> Rules:
    """Rules of the rollouts: controls without state and with others' passages are of the evaluation alone."""
    return replace(rules, context="pruned") if rules.context in ("stateless", "others") else rules


@dataclass
class Objectives:
    """A `Task` of `common.training.reinforcement.rollout`: multi-objective tasks, new ones in each step."""

    source: Source
    learning: Learning
    rules: Rules
    chat: Chat
    seed: int = 0

    def begin(self, step: int) -> list[Searcher]:
        drawn = self.source.tasks(self.learning.objectives, self.learning.tasks, f"rl/{self.seed}/{step}")
        penalty = self.learning.reward == "format_penalty"
        return [Searcher(task, self.rules, self.chat, penalty) for task in drawn for _ in range(self.learning.rollouts)]

    def settle(self, agents: Sequence[Searcher]) -> list[Outcome]:
        """The reward of each episode, on its last turn."""
        outcomes = [
            Outcome(
                at_end(agent.reward, len(agent.steps)),
                {
                    "em": em_sum(agent.answer or "", agent.task.golds),
                    "earned": max(0.0, agent.reward),  # without penalty, and its own where rewards are shuffled
                    "searches": float(sum(bool(step.query) for step in agent.steps)),
                    "invalid": float(agent.end != "answered"),
                },
            )
            for agent in agents
        ]
        if self.learning.reward == "shuffled":
            return shuffled(outcomes, [agent.group for agent in agents], self.seed)
        return outcomes
