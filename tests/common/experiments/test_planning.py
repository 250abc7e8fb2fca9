"""`repro plan` on memory: whether the declared GPUs hold a table's checkpoints."""

import json
from dataclasses import replace

import pytest

from common.experiments import launch, planning
from common.experiments.compose import Needs, Resources, compose_table
from common.experiments.planning import (
    CARDS,
    Expected,
    cpu_bound,
    expected,
    recorded_seconds,
    smallest_card,
    spent_seconds,
)
from common.experiments.progress import duration
from common.experiments.report import PARTS
from common.experiments.reproduce import Plan
from common.models.checkpoints import find
from common.models.footprint import inference_bytes, training_bytes


def test_the_smallest_card_is_the_first_that_holds_an_even_share():
    assert smallest_card(8_000_000_000, 1) == 8
    assert smallest_card(8_000_000_001, 1) == 12
    assert smallest_card(16_000_000_000, 2) == 8
    assert smallest_card(CARDS[-1] * 10**9 + 1, 1) is None


@pytest.fixture
def plan(monkeypatch, capsys, tmp_path):
    """Output of `plan` for DSI++ at paper scale, with needs and resources replaced."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def show(**changes):
        table = compose_table("dsi_pp/continual", "paper")
        monkeypatch.setattr(planning, "compose_table", lambda *_: replace(table, **changes))
        planning.show("dsi_pp/continual", "paper", (), None, None)
        return capsys.readouterr().out

    return show


def row(out, model, purpose):
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(model))
    return next(line for line in lines[start:] if purpose in line)


def test_dsi_pp_at_paper_scale_names_t5_and_plans(plan):
    out = plan()
    shape = find("google-t5/t5-base").shape
    assert "0.22 B" in row(out, "google-t5/t5-base", "generate")
    assert f"{inference_bytes(shape) / 1e9:.1f} GB" in row(out, "google-t5/t5-base", "generate")
    assert "3.6 GB" in row(out, "google-t5/t5-base", "AdamW") and "8 GB each" in row(out, "google-t5/t5-base", "AdamW")
    assert "1 GPU a cell" in out and "activations come on top" in out
    assert "0.89 GB" in out.split("to download")[1]


def test_what_reinforcement_keeps_is_planned_for_each_way_that_a_table_trains(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")

    def plan(table, *overrides):
        planning.show(table, "paper", overrides, None, None)
        return capsys.readouterr().out

    weights = 7_615_616_512
    engine = 2 * weights + 8e9  # of vLLM: weights, and the keys and values that the config leaves it
    whole = plan("mem1/rl_vs_sft")
    assert f"{(36 * weights + engine) / 1e9:.1f} GB  over 141 GB on one" in row(whole, "Qwen/Qwen2.5-7B", "train, PPO*")
    assert f"{(20 * weights + engine) / 1e9:.1f} GB" in row(whole, "Qwen/Qwen2.5-7B", "train, GRPO*")
    assert "train, PPO" not in whole.partition("intfloat/e5-base-v2")[2]
    adapted = plan("mem1/rl_vs_sft", "settings.rl.core.lora_rank=16")
    adapters = 40_370_176
    assert f"{(2 * (2 * weights + 16 * adapters) + engine) / 1e9:.1f} GB  80 GB on one" in row(
        adapted, "Qwen/Qwen2.5-7B", "train, PPO, LoRA*"
    )
    assert "train, PPO*" not in adapted
    two_cards = plan("mem_alpha/headline")
    assert "141 GB on one" in row(two_cards, "Qwen/Qwen3-4B", "train, GRPO*")
    assert "GRPO" not in two_cards.partition("Qwen/Qwen3-32B")[2]  # served: its weights are nobody's to train


def test_gpus_that_cannot_hold_a_model_are_said(plan):
    needs = Needs(models=["Qwen/Qwen2.5-7B", "facebook/contriever-msmarco"])
    one = plan(needs=needs, resources=Resources(gpus=1))
    assert "24 GB each" in row(one, "Qwen/Qwen2.5-7B", "generate")
    assert training_bytes(find("Qwen/Qwen2.5-7B").shape, "adamw_mixed") == 121_849_864_192
    assert "121.8 GB" in row(one, "Qwen/Qwen2.5-7B", "AdamW") and "141 GB each" in row(one, "Qwen/Qwen2.5-7B", "AdamW")
    assert "encode" in row(one, "facebook/contriever-msmarco", "encode")
    four = plan(needs=needs, resources=Resources(gpus=4))
    assert "4 GPUs a cell" in four and "40 GB each" in row(four, "Qwen/Qwen2.5-7B", "AdamW")
    none = plan(needs=Needs(models=["Qwen/Qwen2.5-32B"]), resources=Resources(gpus=1))
    assert "over 141 GB each" in row(none, "Qwen/Qwen2.5-32B", "AdamW")


def test_without_gpus_the_memory_of_a_cell_counts(plan):
    out = plan(needs=Needs(models=["openai-community/gpt2"]), resources=Resources(memory_gb=1.9))
    assert "1.9 GB of memory" in out
    assert "fits" in row(out, "openai-community/gpt2", "generate")
    assert "does not fit" in row(out, "openai-community/gpt2", "AdamW")


def test_a_table_without_checkpoints_says_nothing_of_memory(plan):
    assert "activations" not in plan(needs=Needs())


def test_without_records_the_minutes_of_a_cell_are_those_of_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_REPORTS", str(tmp_path / "reports"))
    table = compose_table("dsi_pp/memorise", "tiny")

    def minutes():
        planning.show("dsi_pp/memorise", "tiny", (), 2, ["adafactor"])
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("adafactor")).split()[-2:]

    assert minutes() == [f"{table.resources.minutes:.1f}", "config"]
    report = {part: [] for part in PARTS}
    path = tmp_path / "reports" / "dsi_pp" / "memorise.tiny.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report | {"cost": {"wall_seconds": 1440.0, "cpu_seconds": 360.0, "cells": 2}}))
    assert minutes() == ["3.0", "report"]


def test_cpu_seconds_count_where_a_cell_waits_for_nobody():
    spent = {"wall_seconds": 100.0, "cpu_seconds": 40.0}
    assert (spent_seconds(spent, alone=True), spent_seconds(spent, alone=False)) == (40.0, 100.0)
    assert spent_seconds({"wall_seconds": 10.0, "cpu_seconds": 40.0}, alone=True) == 10.0  # several threads
    table = compose_table("amber/ablation", "small")
    local = replace(table, resources=Resources())
    elsewhere = replace(
        compose_table("amber/ablation", "small", ["lm=qwen2_5_7b_instruct_server"]), resources=Resources()
    )
    assert [cpu_bound(each) for each in (local, elsewhere)] == [True, False]
    assert not cpu_bound(replace(local, resources=Resources(gpus=1)))
    assert not cpu_bound(replace(local, resources=Resources(tasks=2)))


def test_what_the_first_column_computes_for_all_counts_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    table = compose_table("mem1/headline", "tiny", ["launcher.workers=1"])
    first, *others = table.columns
    cells = table.cells(["mem1", "full_rl"], range(2))
    for cell in cells:
        if (cell.row, cell.seed) == ("mem1", 0) and cell.column != others[-1]:
            seconds = 300.0 if cell.column == first else 6.0
            names = {"table": cell.table, "scale": cell.scale, "row": cell.row, "column": cell.column}
            result = names | {"metrics": {}, "wall_seconds": seconds, "cpu_seconds": seconds}
            record = table.store.record(cell.key)
            record.freeze(cell, {})
            record.folder.joinpath("result.json").write_text(json.dumps(result))
    recorded = recorded_seconds(table)
    assert recorded == {("mem1", first): 300, ("mem1", others[0]): 6, ("mem1",): 153, (): 153}
    missing = {table.store.record(cell.key): cell for cell in cells if (cell.row, cell.seed) == ("mem1", 1)}
    assert expected(table, Plan([], missing, []), recorded).total == 300 + 6 + 153
    planning.show("mem1/headline", "tiny", (), 2, ["mem1", "full_rl"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    assert [line[5:] for line in lines[:3]] == [
        ["5.0", "recorded", "cells"], ["0.1", "recorded", "cells"], ["2.5", "its", "row"]
    ]  # fmt: skip
    assert {tuple(line[5:]) for line in lines[3:]} == {("2.5", "other", "rows")}


def test_cells_share_the_workers_that_they_can_use(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    table = compose_table("dsi_pp/memorise", "tiny", ["launcher.workers=4"])
    cells = table.cells(["adafactor"], range(6))

    def estimate(*seconds):
        recorded = {(str(i),): each for i, each in enumerate(seconds)}
        chosen = [replace(cell, row=str(i)) for i, cell in enumerate(cells[: len(seconds)])]
        missing = {table.store.record(cell.key): cell for cell in chosen}
        return expected(table, Plan([], missing, []), recorded)

    assert estimate(8.0) == Expected(total=8.0, workers=1, elapsed=8.0)
    assert estimate(8.0, 2.0) == Expected(total=10.0, workers=2, elapsed=8.0)
    assert estimate(*[2.0] * 6) == Expected(total=12.0, workers=4, elapsed=3.0)
    assert estimate() == Expected(total=0.0, workers=1, elapsed=0.0)


def test_gpus_and_tasks_of_one_row_count_for_its_cells(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr(launch, "core_count", lambda: 8)
    name, scale = "dsi_pp/continual", "tiny"
    minutes = compose_table(name, scale).resources.minutes
    planning.show(name, scale, ["+rows.genmem_all.resources={gpus: 8, minutes: 60}"], 2, ["cl_new", "genmem_all"])
    out = capsys.readouterr().out
    assert f"{duration((2 * 60 + 2 * minutes) * 60)} of cells), 16 GPU hours" in out
    table = compose_table(name, scale, ["+rows.genmem_all.resources.tasks=4"])
    assert launch.local_workers(table) == 2
    assert not cpu_bound(table)


def test_the_sum_stands_on_one_line_of_a_narrow_terminal(plan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    [line] = [line for line in plan().splitlines() if "to compute: about" in line]
    assert line.endswith(" GPU hours") and len(line) > 80


def test_durations_are_as_round_as_they_are_uncertain():
    assert [duration(hours * 3600) for hours in (0.01, 0.5, 3.25, 12.4, 4000)] == [
        "36 s", "30 min", "3.2 h", "12 h", "4,000 h"
    ]  # fmt: skip
