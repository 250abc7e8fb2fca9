"""What reports keep of runs: small, without places of this machine, and no texts of licensed data sets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.experiments import evidence as kept
from common.experiments.compose import Needs, Table, compose_table
from common.experiments.fingerprint import ROOT
from common.experiments.records import Cell, Record

LONG = {"text": "x" * 10_000, "hits": list(range(100)), "score": 0.5, "at": str(Path.home())}


def records(table: Table, folder: Path, item: Any = LONG, rows: Any = ("cl_new",)) -> list[tuple[Cell, Record]]:
    """Two seeds of each row, done; a third that never ran."""
    made = [(cell, Record(folder / f"{cell.row}-{cell.seed}")) for cell in table.cells(rows, range(3))]
    for cell, record in made:
        if cell.seed == 2:
            continue
        (record.folder / "items").mkdir(parents=True)
        record.freeze(cell, {})
        result = {"metrics": {}, "table": "", "row": "", "wall_seconds": 1.26, "cpu_seconds": 2.52, "commit": "abc",
                  "dirty": False, "tokens": {"in": 10, "out": cell.seed}}  # fmt: skip
        (record.folder / "result.json").write_text(json.dumps(result))
        (record.folder / "log.txt").write_text("".join(f"step {i} in {ROOT}/runs\n" for i in range(100)))
        for name in "abcd":
            lines = [{"number": number, **item} for number in range(9)]
            (record.folder / "items" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def test_seconds_and_tokens_of_each_seed_and_the_ends_of_the_first(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    [entry] = kept.evidence(table, records(table, tmp_path))
    assert (entry["row"], entry["column"], entry["seed"]) == ("cl_new", "corpus", 0)
    assert entry["seconds"] == {"0": 1.3, "1": 1.3} and entry["tokens"] == {"0": 10, "1": 11}
    assert entry["log"] == [f"step {i} in ./runs" for i in range(100 - kept.ENTRIES, 100)]
    assert list(entry["items"]) == ["a", "b", "c"]
    assert all([item["number"] for item in items] == [0, 8] for items in entry["items"].values())
    item = entry["items"]["a"][0]
    assert len(item["text"]) == kept.LENGTHS[0] and item["score"] == 0.5
    assert item["hits"] == [0, 1, 2, 3, 4, 5, "… 94 more"]
    assert str(ROOT) not in json.dumps(entry) and str(Path.home()) not in json.dumps(entry)


def test_each_cell_has_its_key_and_its_commit(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    made = records(table, tmp_path)
    [entry] = kept.evidence(table, made)
    assert entry["commits"] == [{"commit": "abc", "dirty": False, "seeds": [0, 1]}]
    assert entry["keys"] == {"0": "cl_new-0", "1": "cl_new-1"} and entry["cpu_seconds"] == {"0": 2.5, "1": 2.5}
    assert entry["resources"] == {**made[0][0].resources} and entry["resources"]["cpus"] == 1
    later = made[1][1].folder / "result.json"
    later.write_text(json.dumps(json.loads(later.read_text()) | {"commit": "def", "dirty": True}))
    [entry] = kept.evidence(table, made)
    assert entry["commits"] == [
        {"commit": "abc", "dirty": False, "seeds": [0]}, {"commit": "def", "dirty": True, "seeds": [1]}
    ]  # fmt: skip


def test_a_file_of_one_item_gives_one(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    made = records(table, tmp_path)
    (made[0][1].folder / "items" / "a.jsonl").write_text('{"question": "one\\u2028line"}\n')
    (made[0][1].folder / "items" / "b.jsonl").write_text("")
    [entry] = kept.evidence(table, made)
    assert entry["items"]["a"] == [{"question": "one\u2028line"}] and entry["items"]["b"] == []


def test_a_number_that_json_lacks_is_kept_as_text(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    [entry] = kept.evidence(table, records(table, tmp_path, {"loss": float("nan"), "ranks": [1, float("inf")]}))
    assert entry["items"]["a"][0] == {"number": 0, "loss": "nan", "ranks": [1, "inf"]}


def test_texts_are_cut_until_a_report_is_small_enough(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    many = {f"field {number}": "x" * 2000 for number in range(10)}
    entries = kept.evidence(table, records(table, tmp_path, many, table.rows))
    lengths = {len(item["field 0"]) for entry in entries for items in entry["items"].values() for item in items}
    assert len(lengths) == 1 and lengths < {*kept.LENGTHS[1:]}  # for all rows the same
    assert kept.ALL / 4 < kept._size([[entry["log"], entry["items"]] for entry in entries]) <= kept.ALL


def test_at_last_the_first_conditions_alone_keep_theirs(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    huge = {str(i): {str(j): "x" * 2000 for j in range(20)} for i in range(20)}
    entries = kept.evidence(table, records(table, tmp_path, huge, table.rows))
    have = [bool(entry["items"]) for entry in entries]
    assert True in have and False in have and have == sorted(have, reverse=True)
    assert kept._size([[entry["log"], entry["items"]] for entry in entries]) <= kept.ALL


def test_items_of_a_table_on_real_data_are_not_copied(tmp_path: Path) -> None:
    table = replace(compose_table("dsi_pp/continual", "tiny", []), needs=Needs(data=["squad"]))
    [entry] = kept.evidence(table, records(table, tmp_path))
    assert entry["items"] == {} and entry["withheld"] == ["squad"] and len(entry["log"]) == kept.ENTRIES


def test_without_finished_cells_nothing_is_kept(tmp_path: Path) -> None:
    table = compose_table("dsi_pp/continual", "tiny", [])
    assert kept.evidence(table, [(cell, Record(tmp_path / "none")) for cell in table.cells()]) == []


def test_items_of_files_that_a_table_does_not_name_are_not_copied_either(tmp_path: Path) -> None:
    table = compose_table("mem_alpha/headline", "paper", [])
    assert not table.needs.data
    [entry] = kept.evidence(table, records(table, tmp_path, rows=["mem_alpha"]))
    assert entry["items"] == {} and entry["withheld"] == ["files of your own"]
