"""What the configs and claims say together: tunings that the models can take, claims that collapse does not meet."""

import json
from dataclasses import replace

import pytest

from common.experiments.claims import evaluate
from common.experiments.compose import compose_table
from common.experiments.report import expected_of
from common.experiments.settings import to_settings
from common.models.microlm.scratch import Size
from common.models.transformers_lm import TransformersLM
from projects.mem1.method import Chat
from projects.mem1.run import WEIGHTS, kind_of, made, ours, warm_start_key
from projects.mem1.scratch import world_tokenizer
from projects.mem1.settings import Skills, Tags
from projects.mem1.skills import lacking, measured_skills

TABLES = ("headline", "rl_vs_sft", "layouts", "webshop")


@pytest.mark.parametrize("table", TABLES)
def test_models_other_than_microlm_replay_none_of_its_skills(table):
    composed = compose_table(f"mem1/{table}", "paper")
    for cell in composed.cells(seeds=[0]):
        settings = to_settings("mem1", cell.settings)
        assert settings.lm.name.startswith("Qwen/")
        tuned = [settings.sft.tuning, *([settings.tuning] if settings.taught.count else [])]
        assert all(tuning.replay == 0 for tuning in tuned), cell.row


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_a_tiny_table_takes_the_warm_start_that_ships(table):
    folder = WEIGHTS / ("shop" if table == "webshop" else "text_world")
    for cell in compose_table(f"mem1/{table}").cells(seeds=[0]):
        assert ours(to_settings("mem1", cell.settings)) == folder, cell.row


@pytest.fixture(scope="module")
def headline():
    return to_settings("mem1", compose_table("mem1/headline").cells(["mem1"], seeds=[0])[0].settings)


@pytest.mark.parametrize(("table", "objectives"), [("headline", 2), ("webshop", 1)])
def test_what_ships_reads_what_this_code_writes_and_has_the_skills_that_rl_asks_for(table, objectives):
    """With another lexicon its tokens would be other words, and no setting would differ."""
    settings = to_settings("mem1", compose_table(f"mem1/{table}").cells(["mem1"], seeds=[0])[0].settings)
    source, tags = settings.questions.source, settings.rules.tags
    lm = TransformersLM.load(str(WEIGHTS / source), device="cpu")
    assert lm.tokenizer.get_vocab() == world_tokenizer(tags, source == "shop").get_vocab()
    few = replace(settings, skills=Skills([objectives], 6, [0.8], 0.95, [0.8]))
    chat, performed = Chat(lm.tokenizer, lm.context), kind_of(few).teachers.performed
    measured = measured_skills(lm, chat, made(few, "validation"), few, objectives, performed)
    assert lacking({objectives: measured}, few.skills) == []
    shown = {int(n): shares for n, shares in json.loads((WEIGHTS / source / "measured.json").read_text()).items()}
    assert lacking(shown, settings.skills) == []


@pytest.mark.parametrize(
    "change",
    [
        {"faults": 0.1},
        {"taught_answers": 0.3},
        {"taught_pruned": [1]},
        {"taught_full": [1]},
        {"scratch": Size(width=64)},
        {"rules": {"turns": "paper"}},
        {"rules": {"tags": Tags(state="state")}},
        {"questions": {"k": 3}},
        {"world": {"people": 29}},
        {"taught": {"seed": 1}},
        {"tuning": {"steps": 1}},
        {"longer": {"count": 0}},
        {"answering": {"answers": 0.5}},
    ],
)
def test_another_warm_start_has_another_key(change, headline):
    assert warm_start_key(changed(headline, change)) != warm_start_key(headline)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "base"},
        {"rules": {"context": "full", "turn_tokens": 64, "recalled": 1}},
        {"questions": {"objectives": 8, "count": 4, "retriever": "dense"}},
        {"skills": {"query": 0.5}},
        {"sft": {"faults": 0.2}},
        {"rl": {"tasks": 3}},
        {"stock": {"products": 9}},
    ],
)
def test_what_no_teacher_reads_changes_no_key(change, headline):
    assert warm_start_key(changed(headline, change)) == warm_start_key(headline)


def changed(settings, change):
    parts = {n: replace(getattr(settings, n), **v) if isinstance(v, dict) else v for n, v in change.items()}
    return replace(settings, **parts)


@pytest.fixture(scope="module")
def constant():
    """Status of C1 for what MEM1 and the rows beside it measure at n = 16, in three seeds."""
    [claim] = [claim for claim in expected_of(compose_table("mem1/headline")).claims if claim.id == "C1"]
    beside = {("full_rl", "growth"): 6.0, ("truncate", "em"): 2.0}

    def status(growth, em, searches):
        figures = beside | {("mem1", "growth"): growth, ("mem1", "em"): em, ("mem1", "searches"): searches}
        scores = {
            (row, "n16", metric): {seed: value * (1 + seed / 1000) for seed in range(3)}
            for (row, metric), value in figures.items()
        }
        return evaluate(claim.test, scores).status

    return status


def test_a_constant_context_is_claimed_of_an_agent_that_answers(constant):
    assert constant(growth=2.0, em=6.0, searches=20.0) == "holds"
    assert constant(growth=3.5, em=6.0, searches=20.0) == "fails"


@pytest.mark.parametrize(("em", "searches"), [(0.1, 1.0), (0.1, 20.0), (6.0, 1.0)])
def test_collapse_is_not_taken_for_a_constant_context(constant, em, searches):
    assert constant(growth=1.0, em=em, searches=searches) == "fails"


@pytest.mark.parametrize(
    ("mem1", "others", "status"),
    [(0.3, 0.01, "holds"), (0.3, 0.1, "fails"), (0.03, 0.025, "fails"), (0.0, 0.0, "fails")],
)
def test_the_control_with_passages_of_other_tasks_is_held_against_mem1(mem1, others, status):
    [claim] = [claim for claim in expected_of(compose_table("mem1/headline", "paper")).claims if claim.id == "K4"]
    scores = {
        (row, "n2", "em_each"): {seed: value * (1 + seed / 1000) for seed in range(3)}
        for row, value in (("mem1", mem1), ("others", others))
    }
    assert evaluate(claim.test, scores).status == status
