"""Whole cells, cut down, on an untrained MicroLM of two layers: pieces shared, figures complete, mistakes told."""

import json
import math
import random
from dataclasses import replace

import pytest

from common.experiments.context import VALIDATION_SEED, Context
from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.local import tokenizer_of
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.scratch import Size
from common.models.microlm.tokenizer import save_tokenizer
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from common.models.shipped import ship
from common.training.reinforcement.rollout import roll_out
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import described
from projects.mem1 import run as cell
from projects.mem1.method import Step
from projects.mem1.run import run
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import (
    TEACHERS,
    Imitation,
    Learning,
    Questions,
    Rules,
    Settings,
    Skills,
    Stage,
    Stock,
    Tags,
    TextWorld,
)
from projects.mem1.shop_teachers import performed, right
from projects.mem1.shopping import Shopping
from tests.projects.mem1.scripted import Scripted, answer, search

SHORT = Tuning(steps=1, step_tokens=128, replay=0.0, warmup=1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def one_code(monkeypatch):
    """Keys of artifacts that do not change when someone edits the code amid a test; nor need they be computed."""
    monkeypatch.setattr("common.experiments.context.code_fingerprint", lambda module: "one")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = microlm_tokenizer()
    build_model(Shape(width=32, layers=2, inner=32), tokenizer, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return Settings(
        questions=Questions(objectives=3, count=2),
        world=TextWorld(worlds=1),
        rules=Rules(turn_tokens=4),
        lm=LanguageModelSettings(str(folder), device="cpu"),
        taught=Teaching(12, dict(TEACHERS)),
        taught_pruned=[1, 2],
        tuning=SHORT,
        skills=Skills([], 1, [], 0.0, []),
        sft=Imitation(trajectories=4, tuning=SHORT),
        rl=Learning(tasks=2, core=Reinforcement("ppo", steps=2, kl="reward", kl_estimator="k1_positive", kl_coef=0.01)),
    )


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def go(settings, folder, artifacts, seed=0):
    return run(settings, Context(seed=seed, folder=folder, artifacts=artifacts))


MEASURED = {
    "em", "em_each", "f1", "f1_each", "peak", "dependency", "turns", "searches", "invalid", "kept", "growth", "drop",
    "seconds",
}  # fmt: skip
CURVE = {"reward_start", "reward_end", "searches_start", "searches_end", "gap"}
LAYOUT = Reinforcement("ppo", steps=1, layout="stitched")
ROWS = {
    "truncate": {"policy": "base"},
    "full": {"policy": "base", "rules": Rules(turn_tokens=4, context="full")},
    "external": {"policy": "base", "rules": Rules(turn_tokens=4, context="external")},
    "others": {"policy": "base", "rules": Rules(turn_tokens=4, context="others")},
    "sft": {"policy": "sft"},
    "mem1": {},
    "format_penalty": {"rl": Learning(tasks=2, reward="format_penalty", core=replace(LAYOUT, layout="per_turn"))},
    "grpo": {"rl": Learning(tasks=1, rollouts=2, core=Reinforcement("grpo", steps=1))},
    "stitched": {"rl": Learning(tasks=2, core=LAYOUT)},
    "released": {"rl": Learning(tasks=2, mask="released", core=LAYOUT)},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_row_runs_and_reports_its_metrics(row, settings, tmp_path, artifacts):
    metrics = go(replace(settings, **ROWS[row]), tmp_path, artifacts).metrics
    trained = CURVE if replace(settings, **ROWS[row]).policy == "rl" else set()
    assert set(metrics) == MEASURED | trained
    assert all(math.isfinite(value) for value in metrics.values())
    rows = [json.loads(line) for line in (tmp_path / "items" / "tasks.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(len(row["golds"]) == 3 for row in rows)
    curve = tmp_path / "metrics.jsonl"
    assert curve.exists() == bool(trained)
    assert (tmp_path / "items" / "episodes.jsonl").exists() == bool(trained)


@pytest.fixture(scope="module")
def scratch(settings):
    """The same cell with a policy that begins with random weights; nothing is asked of it."""
    return replace(
        settings,
        base="scratch",
        scratch=Size(width=32, layers=2, inner=32),
        lm=LanguageModelSettings("", device="cpu"),
        world=TextWorld(style="notes", worlds=1),
        rules=Rules(turn_tokens=4, instructed=False),
        skills=Skills([1, 2], 1, [0.0, 0.0], 0.0, [0.0, 0.0]),
    )


def test_a_policy_from_scratch_takes_the_same_path(scratch, tmp_path, capsys):
    artifacts = tmp_path / "artifacts"
    for policy in ("base", "sft", "rl"):
        assert set(go(replace(scratch, policy=policy), tmp_path / policy, artifacts).metrics) >= MEASURED
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out if line.startswith("the base")] == [
        "the base at n = 1",
        "the base at n = 2",
    ]
    kinds = {path.name.rsplit("-", 1)[0] for path in artifacts.iterdir() if path.is_dir()}
    assert {"scratch", "base", "skills", "sft", "policy"} <= kinds


def test_further_stages_go_on_from_the_one_before_with_lessons_of_their_own(scratch, tmp_path, monkeypatch):
    taught = []

    def one_stage(start, shown, tuning, folder, revision, device):
        most = max(one.prompt[0]["content"].count(";") + 1 for one in shown)
        answers = sum(one.answer.endswith("</answer>") for one in shown)
        taught.append((start, len(shown), answers == len(shown), most, tuning))
        (folder / "config.json").write_text(str(len(taught)))

    monkeypatch.setattr(cell, "specialise", one_stage)
    context = Context(seed=0, folder=tmp_path, artifacts=tmp_path / "artifacts")
    weights = dict.fromkeys(TEACHERS, 0.0) | {"forgetful": 1.0}
    one = replace(scratch, faults=0.0, taught=Teaching(12, weights))
    longer = Stage(30, 0.0, [5], replace(SHORT, steps=2))
    answering = Stage(20, 1.0, [4], replace(SHORT, steps=3))
    first, second = cell.base(one, context), cell.base(replace(one, longer=longer), context)
    cell.base(replace(one, longer=longer, answering=answering), context)
    assert taught[0][1:] == (12, False, 2, SHORT)
    assert taught[1:] == [(first, 30, False, 5, longer.tuning), (second, 20, True, 4, answering.tuning)]
    cell.base(replace(one, longer=replace(longer, count=31), answering=answering), context)
    assert [count for _, count, *_ in taught] == [12, 30, 20, 31, 20]  # the first stage is there; the last one is not


def test_a_warm_start_that_ships_is_taken_and_nothing_is_taught(scratch, tmp_path, monkeypatch):
    def none(*args):
        raise AssertionError("it was taught")

    context, folder = Context(seed=0, folder=tmp_path), tmp_path / "weights" / "text_world"
    revision = ship(cell.warm_start(scratch, context), cell.warm_start_key(scratch), {}, folder)
    monkeypatch.setattr(cell, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(cell, "REVISIONS", {"text_world": revision})
    monkeypatch.setattr(cell, "specialise", none)
    assert cell.base(scratch, context) == str(folder)
    with pytest.raises(AssertionError, match="it was taught"):
        cell.base(replace(scratch, faults=0.1), context)


@pytest.fixture(scope="module")
def shop(scratch):
    """The same, of errands."""
    return replace(
        scratch,
        questions=Questions("shop", objectives=1, count=3),
        stock=Stock(products=12, shops=2),
        rules=Rules(turn_tokens=4, instructed=False, tags=Tags(query="action")),
        skills=Skills([1], 1, [0.0], 0.0, [0.0]),
        sft=Imitation([1], 4, 0.0, SHORT),
        rl=replace(scratch.rl, objectives=1),
    )


def test_errands_take_the_same_path(shop, tmp_path):
    artifacts = tmp_path / "artifacts"
    figures = {"reward", "right", "peak", "dependency", "turns", "invalid", "seconds"}
    curve = {"reward_start", "reward_end", "right_start", "right_end", "gap"}
    for policy in ("base", "sft", "rl"):
        metrics = go(replace(shop, policy=policy), tmp_path / policy, artifacts).metrics
        assert set(metrics) == figures | (curve if policy == "rl" else set())
        assert all(math.isfinite(value) for value in metrics.values())
        rows = [json.loads(line) for line in (tmp_path / policy / "items" / "tasks.jsonl").read_text().splitlines()]
        assert len(rows) == 3 and all(row["goal"].startswith("Find me a ") for row in rows)
    assert metrics["reward_start"] == -1.0  # four tokens of noise are no turn, which costs 1 in training
    assert (metrics["reward"], metrics["invalid"]) == (0.0, 1.0)


def test_a_purchase_is_worth_what_the_shop_says(shop, settings, tmp_path, monkeypatch):
    """The first errand of a cell, bought as its goal has it; the others are done with the same words."""
    base = replace(shop, policy="base", taught=Teaching(0, {}), base="lm", lm=settings.lm)
    tokenizer = world_tokenizer(shop.rules.tags, shop=True)
    [first, *others] = cell.made(base, "test").tasks(1, 3, "eval/0")
    actions = [step.query for step in performed(random.Random(0), first, base.rules, 0.0)]
    assert right(first, [Step("", action) for action in actions], base.rules)
    lines = [f"<think> none </think> <action> {action} </action>" for action in actions]
    lines += ["<think> none </think> <action> click[none] </action>"] * 10
    monkeypatch.setattr(cell, "build_lm", lambda speaker: Scripted(tokenizer, lines))
    monkeypatch.setattr(cell, "tokenizer_of", lambda speaker: tokenizer)
    go(base, tmp_path / "cell", None)
    rows = [json.loads(line) for line in (tmp_path / "cell" / "items" / "tasks.jsonl").read_text().splitlines()]
    worth = []
    for errand in (first, *others):
        trip = Shopping(errand.shop, errand.goal)
        for action in actions:
            trip.act(action)
        worth.append(trip.reward)
    assert [row["reward"] for row in rows] == worth and worth[0] == rows[0]["right"] == 1


def test_a_base_without_the_skills_is_refused_before_rl(scratch, tmp_path, monkeypatch):
    monkeypatch.setattr(cell, "train_policy", None)
    asked = replace(scratch, skills=Skills([2], 1, [0.97], 0.0, [0.0]))
    with pytest.raises(UserError, match=r"not ready for RL: state 0.000 < 0.97 at n = 2; teach it for longer"):
        go(asked, tmp_path, None)


def test_what_a_context_holds_decides_the_peak_of_whole_cells(settings, tmp_path, monkeypatch):
    """The same words under each rule: two searches and an answer. Later contexts hold less and less."""
    first = search("Kelan spouse: Balman; Borix founder: Dertona; Dilsor home: Kordury", "mayor of the city")
    lines = [first, search("none", "home of the mayor"), answer("none", "a; b; c")]
    monkeypatch.setattr(cell, "build_lm", lambda speaker: Scripted(tokenizer_of(speaker), lines))
    base = replace(settings, policy="base", taught=Teaching(0, {}))
    peak = {}
    for rule in ("full", "pruned", "stateless"):
        metrics = go(replace(base, rules=replace(base.rules, context=rule)), tmp_path / rule, None).metrics
        assert (metrics["turns"], metrics["searches"], metrics["invalid"]) == (3, 2, 0)
        peak[rule] = metrics["peak"]
    assert peak["full"] > 1.5 * peak["pruned"] > 1.5 * peak["stateless"] > 0


def test_pieces_are_shared_and_kept_apart(settings, tmp_path, artifacts, monkeypatch):
    def names():
        return [path.name for path in artifacts.iterdir() if path.is_dir()]

    go(settings, tmp_path / "a", artifacts)
    assert [name.rsplit("-", 1)[0] for name in names()].count("base") == 1
    before = set(names())
    monkeypatch.setattr(cell, "train_policy", None)  # the policy is there
    monkeypatch.setattr(cell, "specialise", None)
    go(replace(settings, questions=replace(settings.questions, objectives=1)), tmp_path / "b", artifacts)
    go(replace(settings, rules=replace(settings.rules, context="stateless")), tmp_path / "c", artifacts)
    new = sorted(name.rsplit("-", 1)[0] for name in set(names()) - before)
    assert new == ["answers"] * 3  # n = 1; n = 3 and n = 2 without state
    with pytest.raises(TypeError):  # another seed is another policy
        go(settings, tmp_path / "d", artifacts, seed=1)


def test_the_same_seed_twice_without_shared_pieces(settings, tmp_path):
    runs = [dict(go(settings, tmp_path / name, None).metrics) for name in ("a", "b")]
    for metrics in runs:
        metrics.pop("seconds")
    assert runs[0] == runs[1]


@pytest.fixture
def own(settings, tmp_path):
    """Settings for files of one's own, and the folder that holds them."""
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    people = [f"Person {i}" for i in range(7)]
    questions = [{"question": f"Where does {name} live?", "answers": [f"Town {i}"]} for i, name in enumerate(people)]
    passages = [{"id": str(i), "title": n, "text": f"{n} lives in Town {i}."} for i, n in enumerate(people)]
    turn = {"messages": [{"role": "user", "content": "a"}], "answer": "b"}
    for name, rows in (
        ("train", questions),
        ("test", questions),
        ("validation", questions),
        ("passages", passages),
        ("trajectories", [turn, turn]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = Questions("jsonl", objectives=3, count=9, folder="own")
    return replace(settings, questions=asked, taught=Teaching(0, {}), rl=replace(settings.rl, tasks=2)), folder


def test_sweeps_are_tested_on_the_validation_split(own, tmp_path, monkeypatch):
    settings, folder = own
    splits, source = [], cell.source

    def noted(settings, context, split):
        splits.append(split)
        return source(settings, context, split)

    monkeypatch.setattr(cell, "source", noted)
    for seed in (VALIDATION_SEED, 0):
        run(replace(settings, policy="base"), Context(seed=seed, folder=tmp_path / str(seed), data=folder.parent))
    assert list(dict.fromkeys(splits)) == ["validation", "test"]
    (folder / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"validation.jsonl is missing"):
        run(replace(settings, policy="base"), Context(seed=VALIDATION_SEED, folder=tmp_path, data=folder.parent))


def test_files_of_ones_own_take_the_same_path(own, tmp_path):
    settings, folder = own
    context = Context(seed=0, folder=tmp_path / "cell", data=folder.parent)
    for policy in ("base", "sft", "rl"):
        assert set(run(replace(settings, policy=policy), context).metrics) >= MEASURED
    rows = (tmp_path / "cell" / "items" / "tasks.jsonl").read_text().splitlines()
    assert len(rows) == 2  # seven questions in threes
    with pytest.raises(UserError, match=r"train.jsonl is missing"):
        run(settings, Context(seed=1, folder=tmp_path / "other", data=tmp_path))


@pytest.mark.parametrize(
    ("name", "policy", "piece"),
    [
        ("test", "base", "answers"),
        ("validation", "base", "answers"),
        ("passages", "base", "answers"),
        ("trajectories", "sft", "sft"),
        ("train", "rl", "policy"),
        ("passages", "rl", "policy"),
    ],
)
def test_a_file_with_other_rows_makes_other_pieces(name, policy, piece, own, tmp_path):
    settings, folder = own
    seed = VALIDATION_SEED if name == "validation" else 0
    context = Context(seed=seed, folder=tmp_path / "cell", data=folder.parent)

    def pieces():
        run(replace(settings, policy=policy), context)
        return {path.name for path in (context.folder / "artifacts").glob(f"{piece}-*") if path.is_dir()}

    before = pieces()
    assert pieces() == before
    path = folder / f"{name}.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert pieces() > before


def test_a_passage_that_is_given_twice_is_told_in_one_line(own, tmp_path):
    settings, folder = own
    path = folder / "passages.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[3] + "\n")
    with pytest.raises(UserError, match=r"passages.jsonl: id '3' is given twice$"):
        run(replace(settings, policy="base"), Context(seed=0, folder=tmp_path / "cell", data=folder.parent))


def test_a_base_that_earns_nothing_is_refused(settings, tmp_path, artifacts):
    gated = replace(settings, rl=replace(settings.rl, gate=[0.15, 0.75]))
    with pytest.raises(UserError, match=r"earns 0.000 of an objective, not 0.15 to 0.75"):
        go(gated, tmp_path, artifacts)


@pytest.mark.parametrize(
    ("reward", "form", "em", "says"),
    [
        ("outcome", "<think>{}<answer>{}</answer>", 1, "earns 0.000"),  # right, in tags that do not match
        ("format_penalty", "<think>{}<answer>{}</answer>", 0, "earns 0.000"),  # -1 is no share
        ("format_penalty", "<think>{}</think><answer>{}</answer>", 1, "earns 1.000"),
    ],
)
def test_the_gate_is_of_the_reward_not_of_right_answers(reward, form, em, says, settings, tmp_path, monkeypatch):
    gated = replace(settings, rl=Learning(1, tasks=1, reward=reward, gate=[0.15, 0.75]), taught=Teaching(0, {}))
    [task] = cell.source(gated, Context(seed=0, folder=tmp_path), "train").tasks(1, 1, "rl/0/0")

    def one_step(speaker, begun, core, folder, layout, on_step):
        tokenizer = tokenizer_of(speaker)
        said = Scripted(tokenizer, [form.format("", task.golds[0][0])])
        episodes = roll_out(begun(said), 0, said, tokenizer, Sampling())
        assert described(episodes)["reward.em"] == em
        on_step({"step": 0, **described(episodes)}, episodes)

    monkeypatch.setattr(cell, "train_policy", one_step)
    with pytest.raises(UserError, match=says):
        go(gated, tmp_path, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "lr"}, "unknown policy 'lr'; did you mean 'rl'"),
        ({"base": "scrath"}, "unknown base 'scrath'; did you mean 'scratch'"),
        ({"base": "scratch", "taught": Teaching(0, {})}, "base scratch has read nothing: set taught.count"),
        ({"base": "scratch", "tuning": Tuning()}, "base scratch has no skills to replay: set tuning.replay"),
        ({"world": TextWorld(style="note")}, "unknown world.style 'note'; did you mean 'notes'"),
        ({"skills": Skills(state=[0.9])}, r"skills.state has a share for each of skills.objectives, not \[0.9\]"),
        ({"skills": Skills(answer=[0.9])}, r"skills.answer has a share for each of skills.objectives, not \[0.9\]"),
        ({"rules": Rules(context="prune")}, "did you mean 'pruned'"),
        ({"rl": Learning(reward="outcom")}, "did you mean 'outcome'"),
        ({"rl": Learning(mask="released")}, "is of layout stitched, not per_turn"),
        ({"questions": Questions("jsonl")}, "set taught.count to 0"),
        ({"questions": Questions(count=0)}, "questions.count must be at least 1, not 0$"),
        ({"questions": Questions(objectives=0)}, "questions.objectives must be at least 1, not 0$"),
        ({"questions": Questions(hops=[1, 3])}, r"questions.hops must be 1, 2 or both, not \[1, 3\]"),
        ({"questions": Questions(hops=[])}, r"questions.hops must be 1, 2 or both, not \[\]"),
        ({"world": TextWorld(worlds=0)}, "world.worlds must be at least 1, not 0$"),
        ({"world": TextWorld(fewest=5, most=4)}, "world.fewest and world.most must be 1 to 6 .* not 5 and 4$"),
        ({"world": TextWorld(others=1.2)}, r"world.others must lie in \[0, 1\], not 1.2$"),
        ({"faults": 2}, r"^faults must lie in \[0, 1\], not 2$"),
        ({"taught_answers": 1.5}, r"taught_answers must lie in \[0, 1\], not 1.5$"),
        ({"sft": Imitation(faults=-0.1)}, r"sft.faults must lie in \[0, 1\], not -0.1$"),
        (
            {"skills": Skills([0], state=[0.9], answer=[0.9])},
            r"skills.objectives must be numbers of questions.*, not \[0\]$",
        ),
        ({"taught_full": []}, r"taught_full must be numbers of questions, at least 1 each, not \[\]"),
        ({"longer": Stage(pruned=[0])}, r"longer.pruned must be numbers of questions, at least 1 each"),
        (
            {"longer": Stage(1), "taught": Teaching(0, {})},
            "longer goes on from what is taught first: set longer.count to",
        ),
        (
            {"answering": Stage(1, tuning=SHORT), "base": "scratch", "tuning": SHORT, "longer": Stage(1)},
            "set longer.tuning.replay to 0",
        ),
        ({"longer": Stage(count=-1)}, "longer.count must be at least 0, not -1$"),
        ({"sft": Imitation([0, 1])}, "sft.objectives must be numbers of questions"),
        ({"sft": Imitation(tuning=Tuning(steps=0))}, "sft.tuning.steps must be at least 1, not 0$"),
        ({"rl": Learning(gate=[0.5])}, r"rl.gate must be two shares, the least and the most, not \[0.5\]"),
        ({"rl": Learning(gate=[0.5, 0.1])}, "rl.gate must be two shares"),
        ({"rl": Learning(core=Reinforcement("ppo", steps=0))}, "rl.core.steps must be at least 1, not 0$"),
        ({"rl": Learning(core=Reinforcement("grpo"))}, "grpo compares rollouts of one task: set rl.rollouts to 2"),
    ],
)
def test_mistakes_are_one_line(change, says, settings):
    with pytest.raises(UserError, match=says):
        replace(settings, **change)
