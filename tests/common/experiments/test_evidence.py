"""What reports keep of runs: small, without places of this machine, and no texts of licensed data sets."""

import json
from dataclasses import replace
from pathlib import Path

from common.experiments import evidence as kept
from common.experiments.compose import Needs, Table, compose_table
from common.experiments.fingerprint import ROOT
from common.experiments.records import Cell, Record


def records(table: Table, folder: Path) -> list[tuple[Cell, Record]]:
    """Two seeds of a row, done; a third that never ran."""
    made = [(cell, Record(folder / str(cell.seed))) for cell in table.cells(["cl_new"], range(3))]
    for cell, record in made[:2]:
        (record.folder / "items").mkdir(parents=True)
        result = {"metrics": {}, "table": "", "row": "", "wall_seconds": 1.26, "tokens": {"in": 10, "out": cell.seed}}
        (record.folder / "result.json").write_text(json.dumps(result))
        (record.folder / "log.txt").write_text("".join(f"step {i} in {ROOT}/runs\n" for i in range(100)))
        for name in "abcd":
            lines = [{"text": "x" * 10_000, "hits": list(range(100)), "score": 0.5, "at": str(Path.home())}] * 9
            (record.folder / "items" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def test_seconds_and_tokens_of_each_seed_and_the_ends_of_the_first(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    [entry] = kept.evidence(table, records(table, tmp_path))
    assert (entry["row"], entry["column"], entry["seed"]) == ("cl_new", "corpus", 0)
    assert entry["seconds"] == {"0": 1.3, "1": 1.3} and entry["tokens"] == {"0": 10, "1": 11}
    assert entry["log"] == [f"step {i} in ./runs" for i in range(100 - kept.LINES, 100)]
    assert list(entry["items"]) == ["a", "b", "c"] and all(len(items) == 2 for items in entry["items"].values())
    item = entry["items"]["a"][0]
    assert len(item["text"]) == kept.LENGTH and item["hits"] == [0, 1, 2, 3, 4] and item["score"] == 0.5
    assert str(ROOT) not in json.dumps(entry) and str(Path.home()) not in json.dumps(entry)


def test_items_of_a_table_on_real_data_are_not_copied(tmp_path: Path) -> None:
    table = replace(compose_table("dsi_pp/continual", "tiny", []), needs=Needs(data=["squad"]))
    [entry] = kept.evidence(table, records(table, tmp_path))
    assert entry["items"] == {} and len(entry["log"]) == kept.LINES


def test_without_finished_cells_nothing_is_kept(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    assert kept.evidence(table, [(cell, Record(tmp_path / "none")) for cell in table.cells()]) == []
