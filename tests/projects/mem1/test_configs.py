"""What the configs and claims say together: tunings that the models can take, claims that collapse does not meet."""

import pytest

from common.experiments.claims import evaluate
from common.experiments.compose import compose_table
from common.experiments.report import expected_of
from common.experiments.settings import to_settings
from common.models.shipped import shipped
from projects.mem1.run import WEIGHTS, warm_start_key

TABLES = ("headline", "rl_vs_sft", "layouts", "webshop")


@pytest.mark.parametrize("table", TABLES)
def test_models_other_than_microlm_replay_none_of_its_skills(table):
    composed = compose_table(f"mem1/{table}", "paper")
    for cell in composed.cells(seeds=[0]):
        settings = to_settings("mem1", cell.settings)
        assert settings.lm.name.startswith("Qwen/")
        tuned = [settings.sft.tuning, *([settings.tuning] if settings.taught.count else [])]
        assert all(tuning.replay == 0 for tuning in tuned), cell.row


@pytest.mark.parametrize("table", [name for name in TABLES if name != "webshop"])
def test_every_row_of_a_tiny_table_takes_the_warm_start_that_ships(table):
    for cell in compose_table(f"mem1/{table}").cells(seeds=[0]):
        folder = WEIGHTS / "text_world"
        assert shipped(folder, warm_start_key(to_settings("mem1", cell.settings))) == folder, cell.row


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
    [(0.3, 0.1, "holds"), (0.3, 0.25, "fails"), (0.03, 0.04, "fails"), (0.0, 0.0, "fails")],
)
def test_the_control_with_passages_of_other_tasks_is_held_against_mem1(mem1, others, status):
    [claim] = [claim for claim in expected_of(compose_table("mem1/headline", "paper")).claims if claim.id == "K4"]
    scores = {
        (row, "n2", "em_each"): {seed: value * (1 + seed / 1000) for seed in range(3)}
        for row, value in (("mem1", mem1), ("others", others))
    }
    assert evaluate(claim.test, scores).status == status
