"""The record on disk: states, locks, manifests."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from common.experiments.compose import compose_table
from common.experiments.errors import UserError
from common.experiments.records import Cell, Record, Store, read_json
from common.experiments.reproduce import plan_cells
from common.files import write_atomically


def cell(seed=0, code="c0de", config="c0nf"):
    return Cell("p", "t", "tiny", "row", "column", seed, {"x": 1}, {"cpus": 1}, f"{config}{seed}", code)


def frozen(store, item):
    record = store.record(item.key)
    record.freeze(item, {"commit": None})
    return record


def hold(folder, ready):
    with Record(folder).lock() as mine:
        assert mine
        Record(folder).set_state("running", pid=os.getpid())
        ready.set()
        time.sleep(60)


def test_states_of_a_cell_from_first_to_last(tmp_path):
    record = frozen(Store(tmp_path, "p"), cell())
    assert record.state() == "pending"
    record.set_state("running")
    assert record.state() == "interrupted"  # nobody holds the lock
    with record.lock() as mine:
        assert mine
        assert record.state() == "running"
    record.set_state("failed", error="no")
    assert record.state() == "failed"
    write_atomically(record.folder / "result.json", json.dumps({"metrics": {}}))
    assert record.state() == "done"


def test_the_lock_of_a_killed_owner_is_free_at_once(tmp_path):
    record = frozen(Store(tmp_path, "p"), cell())
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    owner = spawn.Process(target=hold, args=(record.folder, ready))
    owner.start()
    assert ready.wait(60)
    with record.lock() as mine:
        assert not mine
    assert record.state() == "running"
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    assert record.state() == "interrupted"
    with record.lock() as mine:
        assert mine


def test_a_frozen_config_is_never_written_again(tmp_path):
    record = frozen(Store(tmp_path, "p"), cell())
    before = (record.folder / "config.yaml").read_text()
    record.freeze(cell(), {"commit": "later"})
    assert (record.folder / "config.yaml").read_text() == before
    assert Record(record.folder).config["settings"] == {"x": 1}


def test_the_folders_of_cells_are_listed_once_for_a_plan(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    table = compose_table("dsi_pp/memorise", "tiny", ["tracking=off"])
    cells = table.cells(None, range(3))
    for cell in cells:
        older = table.store.record(f"{cell.config_hash}-0lder")
        older.folder.mkdir(parents=True)
        (older.folder / "result.json").touch()
    listed = []
    monkeypatch.setattr(Store, "all_keys", lambda store: listed.append(1) or os.listdir(tmp_path / "dsi_pp" / "cells"))
    assert len(plan_cells(table, cells).stale) == len(cells) and len(listed) == 1


def test_stale_cells_share_the_configuration_but_not_the_code(tmp_path):
    store = Store(tmp_path, "p")
    for code in ("old1", "old2"):
        record = frozen(store, cell(code=code))
        write_atomically(record.folder / "result.json", "{}")
        os.utime(record.folder / "result.json", (1, 1 if code == "old1" else 2))
    frozen(store, cell(seed=1, code="old1"))  # another configuration
    assert [record.folder.name for record in store.stale(cell(), store.by_config())] == ["c0nf0-old2", "c0nf0-old1"]


def test_a_manifest_keeps_other_rows_and_replaces_the_same(tmp_path):
    store = Store(tmp_path, "p")

    def entry(row, key):
        return {"row": row, "column": "c", "seed": 0, "key": key}

    head = dict.fromkeys(("paper", "table", "scale", "kind", "overrides"), "") | {
        "rows": ["a", "b", "z"],
        "columns": "c",
    }
    store.write_manifest("t.tiny", head, [entry("a", "1"), entry("b", "2"), entry("z", "9")])
    path = store.write_manifest("t.tiny", {**head, "rows": ["a", "b"]}, [entry("b", "3")])
    assert json.loads(path.read_text())["cells"] == [entry("a", "1"), entry("b", "3")]


@pytest.mark.parametrize("text", ["", "{", '{"metrics": ', "\x00\x00"])
def test_a_corrupted_file_is_named_with_the_way_out(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"result\.json is corrupted.*mv "):
        read_json(path)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"state": 3}', '{"state": "gone"}'])
def test_a_status_of_another_shape_is_a_failure_that_says_so(tmp_path, text):
    (tmp_path / "status").write_text(text)
    assert Record(tmp_path).state() == "failed"
    assert "corrupted" in Record(tmp_path).status()["error"]


def test_a_result_without_metrics_is_no_result(tmp_path):
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(UserError, match="no result"):
        Record(tmp_path).result()
