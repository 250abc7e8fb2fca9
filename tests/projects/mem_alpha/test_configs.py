"""What configs and published figures say together: both averages, settings that fit, claims that can fail."""

import json
import statistics
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from common.experiments.claims import evaluate
from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.report import expected_of
from common.experiments.settings import to_settings
from projects.mem_alpha import run, scratch

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
def test_tiny_tables_take_the_reader_that_ships_and_their_policies_the_writer(table, tmp_path, monkeypatch):
    def none(*args, **kwargs):
        raise AssertionError("it was taught")

    monkeypatch.setattr(run, "specialise", none)
    context = Context(seed=0, folder=tmp_path)
    for each in compose_table(f"mem_alpha/{table}").cells(seeds=[0]):
        settings = to_settings("mem_alpha", each.settings)
        assert run.reader(settings, context) == str(run.WEIGHTS / "reader"), each.row
        if settings.arm == "rl" or each.row == "untrained":
            assert run.base(settings, context) == str(run.WEIGHTS / "writer"), each.row
    other = replace(settings, reading=replace(settings.reading, count=1))
    for make in (run.reader, run.base):
        with pytest.raises(AssertionError, match="it was taught"):
            make(other, context)


@pytest.mark.parametrize("name", ["reader", "writer"])
def test_what_ships_reads_what_this_code_writes(name):
    """With another lexicon its tokens would be other words, and no setting would differ."""
    shipped = AutoTokenizer.from_pretrained(run.WEIGHTS / name, local_files_only=True)
    assert shipped.get_vocab() == scratch.tokenizer().get_vocab()


def test_the_reader_that_ships_passes_the_gate_and_the_writer_is_no_good_one(tmp_path):
    settings = to_settings("mem_alpha", compose_table("mem_alpha/headline").cells(["untrained"])[0].settings)
    few = replace(settings, gate=replace(settings.gate, count=4, oracle=0.8))
    assert run.check_reader(few, Context(seed=0, folder=tmp_path))["oracle"]["mean"] >= 0.8
    kept = {name: json.loads((run.WEIGHTS / name / "measured.json").read_text()) for name in ("reader", "writer")}
    assert kept["reader"]["oracle"]["mean"] >= settings.gate.oracle
    assert kept["reader"]["empty"]["mean"] <= settings.gate.empty
    assert 0.3 < kept["writer"]["mean"] < 0.6


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
