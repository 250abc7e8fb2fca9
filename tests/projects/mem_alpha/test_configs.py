"""What configs and published figures say together: both averages, settings that fit, claims that can fail."""

import statistics

import pytest

from common.experiments.claims import evaluate
from common.experiments.compose import compose_table
from common.experiments.report import expected_of
from common.experiments.settings import to_settings
from common.models.shipped import shipped
from projects.mem_alpha.run import WEIGHTS, taught_reader_key, warm_start_key

TABLES = ("headline", "horizon", "rl_gain", "rewards")
FAMILIES = {"ar", "ttl", "lru"}
OTHERS = {"printed", "mean", "memory"}


def published(table):
    """(row, column) -> metric -> value, leads left out."""
    found = {}
    for figure in expected_of(compose_table(f"mem_alpha/{table}", "tiny")).figures:
        if figure.over is None:
            found.setdefault((figure.row, figure.column), {})[figure.metric] = figure.value
    return found


@pytest.mark.parametrize("table", TABLES)
def test_the_mean_of_a_published_row_is_that_of_its_data_sets(table):
    rows = published(table)
    assert len(rows) >= 3
    for (row, column), figures in rows.items():
        sets = [value for metric, value in figures.items() if metric not in FAMILIES | OTHERS]
        if (table, column) == ("rewards", "far"):  # of Table 9 only the averages are known
            continue
        assert figures["mean"] == pytest.approx(statistics.mean(sets), abs=1e-4), row


def test_printed_averages_that_are_not_means_are_those_of_the_dossier():
    off = {
        (table, row, column): round(figures["printed"] - figures["mean"], 3)
        for table in TABLES
        for (row, column), figures in published(table).items()
        if abs(figures["printed"] - figures["mean"]) > 0.003
    }
    assert off == {
        ("headline", "memagent", "near"): 0.010,
        ("headline", "mem_alpha", "near"): 0.023,
        ("horizon", "long_context", "far"): -0.019,
        ("horizon", "rag", "far"): -0.030,
        ("rl_gain", "mem_alpha", "near"): 0.023,
        ("rewards", "no_compression", "near"): 0.010,
        ("rewards", "mem_alpha", "near"): 0.023,
        ("rewards", "beta_2", "near"): 0.010,
        ("rewards", "beta_2", "far"): -0.031,
    }


@pytest.mark.parametrize("table", (*TABLES, "controls", "stress"))
def test_tiny_tables_take_the_reader_that_ships_and_their_policies_the_writer(table):
    cells = compose_table(f"mem_alpha/{table}").cells(seeds=[0])
    for cell in cells:
        settings = to_settings("mem_alpha", cell.settings)
        reader = shipped(WEIGHTS / "reader", taught_reader_key(settings))
        assert reader == WEIGHTS / "reader", cell.row
        if settings.arm == "rl" or cell.row == "untrained":
            assert shipped(WEIGHTS / "writer", warm_start_key(settings, str(reader))) == WEIGHTS / "writer", cell.row


@pytest.mark.parametrize("table", TABLES)
def test_paper_scale_is_that_of_the_paper_and_its_settings_fit(table):
    composed = compose_table(f"mem_alpha/{table}", "paper")
    cells = composed.cells(seeds=[0])
    for cell in cells:
        settings = to_settings("mem_alpha", cell.settings)
        writer = "Qwen/Qwen3-32B" if cell.row == "stronger" else "Qwen/Qwen3-4B"
        assert (settings.writer.name, settings.reader.name) == (writer, "Qwen/Qwen3-32B")
        assert (settings.rules.dialect, settings.rules.semantics, settings.rules.k) == ("json", "compat", 20)
        assert (settings.rl.instances, settings.rl.rollouts, settings.rl.core.steps) == (32, 8, 205)
        assert settings.rl.validity == "reader"
    tests = {cell.column: to_settings("mem_alpha", cell.settings).streams.test for cell in cells}
    assert tests.get("near") == "validation" and tests.get("far", "benchmark") == "benchmark"


def test_the_test_is_longer_than_the_training():
    cells = [
        cell for table in ("horizon", "stress") for cell in compose_table(f"mem_alpha/{table}", "tiny").cells(seeds=[0])
    ]
    found = {cell.column: to_settings("mem_alpha", cell.settings) for cell in cells}
    assert {name: settings.streams.chunks / settings.rl.chunks for name, settings in found.items()} == {
        "near": 1,
        "far": 3,
        "stress": 100,
    }


def test_rewards_have_the_weights_of_the_paper():
    rows = {
        cell.row: to_settings("mem_alpha", cell.settings).rl
        for cell in compose_table("mem_alpha/rewards", "tiny").cells(seeds=[0])
    }
    assert {row: (rl.beta, rl.gamma) for row, rl in rows.items()} == {
        "no_content": (0.05, 0.0),
        "no_compression": (0.0, 0.1),
        "mem_alpha": (0.05, 0.1),
        "beta_2": (0.2, 0.1),
        "beta_4": (0.4, 0.1),
    }


def test_the_control_of_shuffled_rewards_fails_where_it_learns():
    [claim] = [one for one in expected_of(compose_table("mem_alpha/controls", "tiny")).claims if one.id == "K2"]

    def status(shuffled):
        means = {"mem_alpha": 0.8, "untrained": 0.5, "shuffled": shuffled}
        scores = {
            (row, "near", "mean"): {seed: value + seed / 1000 * (row == "shuffled") for seed in range(3)}
            for row, value in means.items()
        }
        return evaluate(claim.test, scores).status

    assert status(0.48) == "holds"
    assert status(0.7) == "fails"


@pytest.mark.parametrize(
    ("known", "guessed", "status"),
    [
        ((0.5, 0.6, 0.7), (0.0, 0.0, 0.0), "holds"),
        ((0.5, 0.6, 0.7), (0.0, 0.25, 0.0), "holds"),
        ((0.5, 0.6, 0.7), (0.0, 0.25, 0.6), "fails"),  # one family leaks
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "fails"),  # where nothing is answered, nothing is said of leaks
    ],
)
def test_the_control_without_a_memory_is_held_against_the_memory(known, guessed, status):
    [claim] = [one for one in expected_of(compose_table("mem_alpha/headline", "paper")).claims if one.id == "K1"]
    scores = {}
    for row, values in (("mem_alpha", known), ("closed_book", guessed)):
        means = dict(zip(("ar", "ttl", "lru", "mean"), (*values, statistics.mean(values)), strict=True))
        for metric, value in means.items():
            scores[row, "near", metric] = {seed: value * (1 + seed / 1000) for seed in range(3)}
    assert evaluate(claim.test, scores).status == status
