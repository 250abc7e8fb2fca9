"""Curves of a report: of all seeds together, small, and true to what the runs logged."""

import json
from collections.abc import Callable
from pathlib import Path

from common.experiments import report_curves as kept
from common.experiments.compose import compose_table
from common.experiments.records import Cell, Record


def logged(folder: Path, at: Callable[[Cell, int], dict[str, float]], steps: int) -> list[tuple[Cell, Record]]:
    """Three seeds of two rows, done, each with a point at steps 1 to `steps`, and one that has not ended."""
    table = compose_table("dsi_pp/continual", "tiny", [])
    cells = table.cells(["cl_new", "cl_all"], range(4))
    made = [(cell, Record(folder / f"{cell.row}-{cell.column}-{cell.seed}")) for cell in cells]
    for cell, record in made:
        record.folder.mkdir(parents=True)
        lines = [{"step": step, **at(cell, step)} for step in range(1, steps + 1)]
        (record.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if cell.seed < 3:
            (record.folder / "result.json").write_text("{}")
    return made


def test_mean_and_range_over_seeds(tmp_path: Path) -> None:
    shift = {"cl_new": 0.0, "cl_all": 100.0}
    cells = logged(tmp_path, lambda cell, step: {"loss": 10 * step + cell.seed**2 + shift[cell.row]}, 4)
    new, every = kept.curves(cells)
    assert new["conditions"] == [["cl_new", "corpus"]] and every["conditions"] == [["cl_all", "corpus"]]
    assert new["metric"] == "loss" and new["seeds"] == 3 and new["steps"] == [1, 2, 3, 4]
    assert new["low"] == [10, 20, 30, 40] and new["high"] == [14, 24, 34, 44]
    assert new["mean"] == [float(f"{10 * step + 5 / 3:.4g}") for step in (1, 2, 3, 4)]
    assert every["mean"][0] == 111.7


def test_rows_that_stand_on_one_training_share_its_curve(tmp_path: Path) -> None:
    [curve] = kept.curves(logged(tmp_path, lambda cell, step: {"loss": step + cell.seed}, 2))
    assert curve["conditions"] == [["cl_new", "corpus"], ["cl_all", "corpus"]]


def test_a_long_curve_is_thinned_and_loses_no_spike(tmp_path: Path) -> None:
    spike = 777
    [curve] = kept.curves(logged(tmp_path, lambda cell, step: {"kl": 500.0 if step == spike else 1.0}, 1000))
    assert len(curve["steps"]) == len(curve["mean"]) == kept.POINTS
    assert curve["steps"][-1] == 1000 and curve["steps"] == sorted(set(curve["steps"]))
    assert max(curve["high"]) == 500.0 and curve["high"].count(500.0) == 1
    assert curve["steps"][curve["high"].index(500.0)] >= spike > curve["steps"][curve["high"].index(500.0) - 1]


def test_what_is_no_curve_is_left_out(tmp_path: Path) -> None:
    def at(cell: Cell, step: int) -> dict[str, float]:
        return {"once": 1.0} if step == 1 else {"broken": float("nan"), "late": 1.0} if step == 3 else {"broken": 2.0}

    assert kept.curves(logged(tmp_path, at, 3)) == []


def test_a_step_that_is_not_finite_in_one_seed_is_left_out_for_all(tmp_path: Path) -> None:
    def at(cell: Cell, step: int) -> dict[str, float]:
        return {"loss": float("nan") if cell.seed == 1 and step == 3 else float(step)}

    [curve] = kept.curves(logged(tmp_path, at, 4))
    assert curve["steps"] == [1, 2, 4] and curve["mean"] == [1, 2, 4] and curve["seeds"] == 3


def test_a_report_has_at_most_so_many_points(tmp_path: Path) -> None:
    cells = logged(tmp_path, lambda cell, step: {f"m{i}": i * step + len(cell.row) for i in range(400)}, 100)
    found = kept.curves(cells)
    assert len(found) == 400 and sum(len(curve["steps"]) for curve in found) <= kept.ALL
    cells = logged(tmp_path / "more", lambda cell, step: {f"m{i}": i * step for i in range(1000)}, 30)
    assert sum(len(curve["steps"]) for curve in kept.curves(cells)) <= kept.ALL
