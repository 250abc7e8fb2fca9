"""Whole cells, cut down, on untrained models of two layers: every arm, the rewards, pieces shared, mistakes told."""

import json
import math
import mmap
from dataclasses import replace

import pytest

from common.data.text_world import topics
from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.errors import UserError
from common.models.language_model import Completion, Sampling, encode_continuation
from common.models.microlm.scratch import Size, fresh
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from common.training.reinforcement.rollout import roll_out
from common.training.reinforcement.settings import Reinforcement
from projects.mem_alpha import run as cell
from projects.mem_alpha import scratch
from projects.mem_alpha.data import Instance, Question, Worlds
from projects.mem_alpha.method import Call
from projects.mem_alpha.prompts import compact
from projects.mem_alpha.run import Construction, Desk, Watched, averaged, resident, run
from projects.mem_alpha.settings import (
    ARMS,
    Gate,
    Habits,
    Learning,
    ReaderTraining,
    Rules,
    Settings,
    Streams,
    WarmStart,
)

SHORT = Tuning(steps=1, step_tokens=128, replay=0.0, warmup=1)
SETTINGS = Settings(
    streams=Streams(count=1, asked=2),
    rules=Rules(turn_tokens=4, answer_tokens=2),
    size=Size(32, 2, 32),
    warm=WarmStart(3, tuning=SHORT),
    reading=ReaderTraining(6, [1, 2], tuning=SHORT),
    gate=Gate(1, oracle=0.0, empty=1.0),  # untrained models pass
    rl=Learning(3, 2, chunks=2, core=Reinforcement(steps=2, grouping="instance", unit="turn", mini_batches=2)),
)
EACH = {"ar", "ttl", "lru", "mean", "memory", "memory_ar", "memory_ttl", "memory_lru", "input"}
WRITTEN = {"calls", "succeeded", "valid", "longest", "seconds"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def one_code(monkeypatch):
    """Keys of artifacts that do not change when someone edits the code amid a test; nor need they be computed."""
    monkeypatch.setattr("common.experiments.context.code_fingerprint", lambda module: "one")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


class Trained(Exception):
    """That training began."""


def train(*args, **kwargs):
    raise Trained


def go(settings, folder, artifacts, seed=0):
    return run(settings, Context(seed=seed, folder=folder, artifacts=artifacts)).metrics


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_reports_its_metrics(arm, tmp_path, artifacts):
    metrics = go(replace(SETTINGS, arm=arm, streams=Streams(count=2, asked=2)), tmp_path, artifacts)
    own = {"untrained": WRITTEN, "rl": WRITTEN | {"r1_start", "r1_end"}, "foreign": WRITTEN}
    assert set(metrics) == EACH | own.get(arm, set())
    assert all(math.isfinite(value) for value in metrics.values())
    rows = [json.loads(line) for line in (tmp_path / "items" / "instances.jsonl").read_text().splitlines()]
    assert [row["family"] for row in rows] == ["ar", "ar", "ttl", "ttl", "lru", "lru"]
    assert (tmp_path / "metrics.jsonl").exists() == (arm == "rl")
    assert (tmp_path / "items" / "episodes.jsonl").exists() == (arm == "rl")


def test_a_foreign_memory_is_of_another_stream_of_the_same_data_set(monkeypatch, tmp_path):
    streams = [
        Instance(name, "ttl", dataset, "label", ("",), ()) for name, dataset in zip("abcde", "xyxyx", strict=True)
    ]
    monkeypatch.setattr(cell, "wrote", lambda settings, context, desk, instances: [one.id for one in instances])
    context = Context(seed=0, folder=tmp_path)
    assert cell.foreign(SETTINGS, context, None, streams) == ["c", "d", "e", "b", "a"]
    with pytest.raises(UserError, match="needs two streams of each data set; y has one"):
        cell.foreign(SETTINGS, context, None, streams[:3])


def test_pieces_are_shared_and_kept_apart(tmp_path, artifacts, monkeypatch):
    def names():
        return {path.name for path in artifacts.iterdir() if path.is_dir()}

    go(SETTINGS, tmp_path / "a", artifacts)
    before = names()
    far = replace(SETTINGS, streams=replace(SETTINGS.streams, chunks=9))
    metrics = go(far, tmp_path / "b", artifacts)
    assert names() == before  # reader, warm start and policy are those of the short streams
    assert {"pace", "growth"} <= set(metrics)
    go(replace(SETTINGS, rl=replace(SETTINGS.rl, gamma=0.0)), tmp_path / "c", artifacts)
    [new] = names() - before
    assert new.startswith("policy-")

    monkeypatch.setattr(cell, "train_policy", train)
    with pytest.raises(Trained):  # another seed is another policy
        go(SETTINGS, tmp_path / "d", artifacts, seed=1)


def test_the_same_seed_twice_without_shared_pieces(tmp_path):
    runs = [dict(go(SETTINGS, tmp_path / name, None)) for name in ("a", "b")]
    for metrics in runs:
        metrics.pop("seconds")
    assert runs[0] == runs[1]


def test_averages_are_over_instances_then_over_data_sets():
    rows = [
        {"dataset": name, "family": family, "score": score, "memory": memory, "input": 10, "calls": 1.0}
        for name, family, score, memory in (
            ("squad", "ar", 1.0, 4),
            ("squad", "ar", 0.0, 8),
            ("hotpotqa", "ar", 1.0, 6),
            ("booksum", "lru", 0.25, 2),
        )
    ]
    found = averaged(rows)
    assert (found["squad"], found["ar"], found["lru"]) == (0.5, 0.75, 0.25)
    assert found["mean"] == pytest.approx((0.5 + 1.0 + 0.25) / 3)  # of data sets, not of families
    assert found["memory"] == pytest.approx((6 + 6 + 2) / 3)


@pytest.mark.parametrize(("slower", "larger"), [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5)])
def test_pace_and_growth_hold_the_last_third_against_the_first(slower, larger):
    instance = Instance("i", "ar", "ar", "sub_em", ("c",) * 9, (Question("q", (("a",),)),))
    watched = Watched(instance, Rules(), cell.DIALECTS["compact"], len, len, turns=[[] for _ in range(9)])
    steps = [1.0] * 5 + [slower] * 3
    pages = [100, 400, 100, 120, 120, 120, 100 * larger, 100 * larger, 100 * larger]  # one chunk's peak does not count
    watched.seen = list(zip([sum(steps[:i]) for i in range(9)], pages, strict=True))
    figures = watched.figures()
    assert (figures["pace"], figures["growth"]) == (slower, larger)
    watched.seen = watched.seen[:8]
    assert not {"pace", "growth"} & set(watched.figures())  # a stream too short to tell


def test_resident_memory_goes_up_and_comes_down():
    before = resident()
    with mmap.mmap(-1, 64 * 2**20) as held:  # from the system: an allocator may hand out what it holds anyway
        held.write(b"x" * 64 * 2**20)  # touch every page
        during = resident()
    assert during - before > 8000 > resident() - before


# --- rewards of whole rollouts ------------------------------------------------------------------------------------


class Scripted:
    """A language model that says its lines to every prompt, one a call."""

    context = 8192

    def __init__(self, tokenizer, lines):
        self.tokenizer, self.lines, self.asked = tokenizer, iter(lines), []

    def generate(self, prompts, sampling, purpose=""):
        self.asked += prompts
        text = next(self.lines)
        ids = tuple(encode_continuation(self.tokenizer, text)) or (self.tokenizer.eos_token_id,)
        return [Completion(text, ids, None, "stop", 1, len(ids)) for _ in prompts]


@pytest.fixture(scope="module")
def tokenizer():
    return scratch.tokenizer()


def settled(tokenizer, turns, answer, seed=0, **learning):
    """The episodes of two rollouts of one instance of ar, whose writer says `turns` and whose reader `answer`."""
    settings = replace(SETTINGS, rl=replace(SETTINGS.rl, chunks=2, **learning))
    [instance] = [one for one in Worlds(settings.streams, "train").draw(3, "x", 2) if one.family == "ar"]
    lines = turns(instance) if callable(turns) else turns
    said = Scripted(tokenizer, [answer(instance) if callable(answer) else answer])
    count = lambda text: len(encode_continuation(tokenizer, text))  # noqa: E731
    desk = Desk(said, settings.rules, cell.DIALECTS["compact"], count, lambda prompt: 1)

    class One:
        def draw(self, count, seed, chunks):
            return [instance]

    task = Construction(settings, One(), desk, seed)
    return instance, roll_out(task, 0, Scripted(tokenizer, lines), tokenizer, Sampling()), said


def test_rewards_of_a_rollout_by_hand(tokenizer):
    def turns(instance):
        fact = next(item for item in instance.items[0] if item.kind == "fact")
        stored = Call("insert", "semantic", fact.text)
        return [f"{compact(stored)} {compact(stored)} {compact(Call('delete', 'core'))}", "done"]

    instance, episodes, _ = settled(tokenizer, turns, "unknown", beta=0.5, gamma=0.1)
    [first, again] = episodes
    assert first.outcome == again.outcome and first.group == instance.id
    count = lambda text: len(encode_continuation(tokenizer, text))  # noqa: E731
    fact = next(item for item in instance.items[0] if item.kind == "fact")
    r3 = 1 - count(fact.text) / sum(map(count, instance.chunks))
    # Of three calls the duplicate failed (r2); the two inserts are valid, failed or not, the delete is not (r4).
    assert first.outcome.rewards == pytest.approx((2 / 3 + 0.5 * r3 + 0.1 * 2 / 3, 0.5 * r3))
    assert first.outcome.parts["r1"] == 0


def test_r1_asks_some_questions_and_the_same_ones_of_all_rollouts(tokenizer):
    instance, episodes, reader = settled(
        tokenizer, ["done", "done"], lambda one: one.questions[0].golds[0][0], questions=3, beta=0.0
    )
    assert len(reader.asked) == 6
    asked = [prompt[0]["content"].partition("question ")[2] for prompt in reader.asked]
    assert asked[:3] == asked[3:] and len(set(asked)) == 3
    wanted = [q for q in instance.questions if q.text in asked[:3]]
    right = sum(q.golds[0][0] in instance.questions[0].golds[0][0] for q in wanted) / 3
    assert [episode.outcome.rewards for episode in episodes] == [pytest.approx((right, right))] * 2


def test_shuffled_rewards_are_those_of_other_chunk_actions(tokenizer):
    turns = ["insert semantic rope ;", "insert semantic ropes ; insert core a ;"]

    def rewards(**learning):
        _, episodes, _ = settled(tokenizer, turns, "unknown", **learning)
        return [reward for episode in episodes for reward in episode.outcome.rewards], episodes[0].outcome.parts["r3"]

    plain, r3 = rewards()
    assert plain == pytest.approx([1 + 0.05 * r3, 0.5 + 0.05 * r3] * 2)
    dealt = [rewards(reward="shuffled", seed=seed)[0] for seed in range(6)]
    assert all(sorted(one) == sorted(plain) for one in dealt)
    assert any(one != plain for one in dealt)


def test_a_reader_may_judge_and_an_unreadable_verdict_is_no(tokenizer):
    settings = replace(SETTINGS, rl=replace(SETTINGS.rl, validity="reader"))
    said = Scripted(tokenizer, ['{"VALID": true}'])
    task = Construction(settings, None, Desk(said, settings.rules, cell.DIALECTS["json"], len, lambda prompt: 1))
    calls = [Call("insert", "semantic", "a"), Call("delete", "core"), Call(""), Call("update", "core", "b")]
    pairs = [(None, call) for call in calls]
    assert list(task._valid(pairs)) == [True, False, False, True]
    assert len(said.asked) == 2
    unread = replace(task, desk=replace(task.desk, reader=Scripted(tokenizer, ["yes"])))
    assert list(unread._valid(pairs)) == [False] * 4


def test_evidence_that_is_too_long_is_cut_entry_by_entry(tokenizer):
    rules = replace(SETTINGS.rules, reader_tokens=10)
    desk = Desk(
        Scripted(tokenizer, ["a"]),
        rules,
        cell.DIALECTS["compact"],
        len,
        lambda prompt: len(prompt[0]["content"].split()),
    )
    evidence = cell.Evidence("", ("a", "b", "c"), ("d",))
    assert desk._prompt(evidence, "q")[0]["content"] == "core ; semantic a ; episodic d ; question q"


# --- the gate before RL -------------------------------------------------------------------------------------------


def test_a_reader_that_cannot_read_is_refused_before_rl(tmp_path, artifacts, monkeypatch, capsys):
    monkeypatch.setattr(cell, "train_policy", train)
    with pytest.raises(Trained):
        go(SETTINGS, tmp_path / "a", artifacts, seed=2)
    assert "the reader, memory oracle: ar 0.000, ttl 0.000, lru 0.000, mean 0.000" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"it scores 0.000 < 0.85 from the oracle's memory; teach it for longer"):
        go(replace(SETTINGS, gate=Gate(1, oracle=0.85, empty=1.0)), tmp_path / "b", artifacts, seed=2)


def test_a_reader_that_guesses_is_refused_before_rl(tokenizer, tmp_path, artifacts, monkeypatch):
    """It says all topics to every question, which is right of every stream of lru and now and then of ar."""
    monkeypatch.setattr(cell, "train_policy", train)
    monkeypatch.setattr(cell, "build_lm", lambda speaker: Scripted(tokenizer, [" ".join(topics.WORDS)] * 2))
    with pytest.raises(UserError, match=r"it scores 0\.3\d\d > 0.15 from an empty memory"):
        go(replace(SETTINGS, gate=Gate(2, oracle=0.3, empty=0.15)), tmp_path, artifacts, seed=2)


# --- files and mistakes -------------------------------------------------------------------------------------------


def settings_of_files(lm):
    return replace(
        SETTINGS,
        streams=Streams("jsonl", "own"),
        rules=replace(SETTINGS.rules, dialect="json", prompt_tokens=4096, reader_tokens=4096),
        writer=lm,
        reader=lm,
        warm=WarmStart(0),
        reading=ReaderTraining(0),
        rl=replace(SETTINGS.rl, validity="reader"),
    )


def test_sweeps_are_tested_on_validation_names_or_a_file_that_no_table_reports(tmp_path):
    swept = Context(seed=VALIDATION_SEED, folder=tmp_path, data=tmp_path)
    assert cell.source(SETTINGS, swept, "test") == Worlds(SETTINGS.streams, "validation")
    assert cell.source(SETTINGS, swept, "train") == Worlds(SETTINGS.streams, "train")
    assert cell.source(SETTINGS, replace(swept, seed=0), "test") == Worlds(SETTINGS.streams, "test")
    with pytest.raises(UserError, match=r"selection.jsonl is missing"):
        cell.source(settings_of_files(LanguageModelSettings("writer")), swept, "test")


def test_files_of_ones_own_take_the_same_path(tmp_path, artifacts, monkeypatch):
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    row = {
        "id": "1",
        "family": "ttl",
        "dataset": "trec_c",
        "metric": "label",
        "chunks": ["red rope label 1", "blue boats label 2"],
        "questions": [{"question": "label of rope", "answers": [["1"]]}],
    }
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"id": "2"}) + "\n")
    fresh(SETTINGS.size, scratch.tokenizer(), tmp_path / "lm")
    lm = LanguageModelSettings(str(tmp_path / "lm"), device="cpu")
    own = settings_of_files(lm)
    context = Context(seed=0, folder=tmp_path / "cell", data=folder.parent)
    for arm in ("long_context", "rag", "untrained", "rl"):
        metrics = run(replace(own, arm=arm), context).metrics
        assert set(metrics) >= {"trec_c", "ttl", "mean", "memory"} and "valid" not in metrics
    (folder / "selection.jsonl").write_text(json.dumps(row | {"id": "another"}) + "\n")
    run(replace(own, arm="rag"), replace(context, seed=VALIDATION_SEED))
    items = (context.folder / "items" / "instances.jsonl").read_text()
    assert "another" in items
    folders = lambda: {path.name for path in (tmp_path / "cell" / "artifacts").glob("policy-*") if path.is_dir()}  # noqa: E731
    [learned] = folders()
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps(row | {"id": "3"}) + "\n")
    run(own, context)
    assert folders() > {learned}  # from another file, another policy
    with pytest.raises(UserError, match=r"the oracle knows the text world alone"):
        run(replace(own, arm="oracle"), context)
    with pytest.raises(UserError, match=r"validation.jsonl is missing"):
        run(own, Context(seed=1, folder=tmp_path / "other", data=tmp_path))
    with pytest.raises(UserError, match=r"REPRO_DATA names no mirror"):
        run(own, Context(seed=1, folder=tmp_path / "other"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arm": "oracel"}, "unknown arm 'oracel'; did you mean 'oracle'"),
        ({"rules": Rules(semantics="strickt")}, "did you mean 'strict'"),
        ({"rules": Rules(dialect="jsn")}, "did you mean 'json'"),
        ({"rules": Rules(stores=["core", "semantics"])}, "unknown store 'semantics'; did you mean 'semantic'"),
        ({"rules": Rules(k=0)}, "rules.k must be at least 1, not 0$"),
        ({"rl": Learning(reward="own_")}, "did you mean 'own'"),
        ({"rl": Learning(rollouts=1)}, "rl.rollouts must be at least 2, not 1$"),
        ({"rl": Learning(beta=-0.1)}, "rl.beta and rl.gamma must be at least 0, not -0.1 and 0.1$"),
        ({"streams": Streams(chunks=0)}, "streams.chunks must be at least 1, not 0$"),
        ({"streams": Streams("jsonl")}, "know the text world alone"),
        ({"streams": Streams(labels=40)}, r"streams.labels \* streams.keywords must be at most 36, not 80: "),
        ({"streams": Streams(topics=99)}, "streams.topics must be at most [0-9]+, not 99: "),
        ({"streams": Streams(timeless=0, dated=0)}, r"streams.timeless \+ streams.dated must be at least 1, not 0$"),
        ({"streams": Streams(samples=0)}, "streams.samples must be at least 1, not 0$"),
        ({"rules": Rules(stores=[])}, "number of rules.stores must be at least 1, not 0$"),
        ({"rules": Rules(prompt_tokens=-1)}, "rules.prompt_tokens must be at least 1, not -1$"),
        ({"rules": Rules(reader_tokens=-1)}, "rules.reader_tokens must be at least 1, not -1$"),
        ({"reading": ReaderTraining(6, [])}, "shortest of reading.chunks must be at least 1, not 0$"),
        ({"reading": ReaderTraining(6, [3, 0])}, "shortest of reading.chunks must be at least 1, not 0$"),
        ({"warm": WarmStart(3, Habits(store=1.5))}, r"warm.habits.store must lie in \[0, 1\], not 1.5$"),
        ({"warm": WarmStart(3, Habits(malformed=-0.1))}, r"warm.habits.malformed must lie in \[0, 1\], not -0.1$"),
        ({"rl": Learning(core=Reinforcement(steps=0))}, "rl.core.steps must be at least 1, not 0$"),
        ({"warm": WarmStart(0)}, "writer 'scratch' does not go with 0 demonstrations"),
        ({"reader": LanguageModelSettings("microlm")}, "reader 'microlm' does not go with 6 demonstrations"),
    ],
)
def test_mistakes_are_one_line(change, says):
    with pytest.raises(UserError, match=says):
        replace(SETTINGS, **change)
