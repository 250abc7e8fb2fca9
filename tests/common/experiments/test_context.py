"""What a run function is given: curves, items, shared pieces; and the refusal of NaN."""

import json
import math
import multiprocessing
from dataclasses import dataclass

import pytest

from common.experiments.context import Context, check_finite


def write_piece(folder):
    (folder / "piece.txt").write_text("whole")


def count_and_write(folder):
    with open(folder.parent / "count", "a") as file:
        file.write("x")
    write_piece(folder)


def fail_half_way(folder):
    write_piece(folder)
    raise RuntimeError("half-way")


def test_curves_and_items_are_lines_of_json(tmp_path):
    context = Context(0, tmp_path / "cell")
    context.log(1, loss=0.5)
    context.log(2, loss=0.25, accuracy=1.0)
    context.save_items("answers", [{"text": "a\nb"}, {"text": "é"}])
    lines = [json.loads(line) for line in (tmp_path / "cell/metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "accuracy": 1.0}]
    items = [json.loads(line) for line in (tmp_path / "cell/items/answers.jsonl").read_text().splitlines()]
    assert items == [{"text": "a\nb"}, {"text": "é"}]


def test_an_artifact_is_built_once_and_again_for_other_settings(tmp_path):
    context = Context(0, tmp_path / "cell", artifacts=tmp_path)
    first = context.artifact("piece", {"size": 1}, count_and_write)
    assert context.artifact("piece", {"size": 1}, count_and_write) == first
    assert context.artifact("piece", {"size": 2}, count_and_write) != first
    assert (tmp_path / "count").read_text() == "xx"


def test_settings_of_an_artifact_may_be_a_dataclass(tmp_path):
    @dataclass(frozen=True)
    class Size:
        size: int

    context = Context(0, tmp_path, artifacts=tmp_path)
    assert context.artifact("p", Size(1), write_piece) == context.artifact("p", {"size": 1}, write_piece)


def test_a_builder_that_fails_leaves_nothing_that_is_taken_for_done(tmp_path):
    context = Context(0, tmp_path, artifacts=tmp_path)
    with pytest.raises(RuntimeError, match="half-way"):
        context.artifact("piece", {}, fail_half_way)
    assert not [path for path in tmp_path.glob("piece-*") if path.is_dir() and not path.name.endswith(".partial")]
    calls = []

    def build(folder):
        calls.append(sorted(folder.iterdir()))
        write_piece(folder)

    assert (context.artifact("piece", {}, build) / "piece.txt").read_text() == "whole"
    assert calls == [[]]  # the failed half is not in the way


def _use(folder):
    Context(0, folder / "cell", artifacts=folder).artifact("piece", {}, count_and_write)


def test_concurrent_cells_wait_for_one_builder(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_use, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(250)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_not_finite_are_refused_by_name(value):
    check_finite({"fine": 0.0})
    with pytest.raises(ValueError, match="bad="):
        check_finite({"fine": 0.0, "bad": value})
