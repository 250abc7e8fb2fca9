"""The MLflow mirror against real SQLite stores: complete, without duplicates, and harmless when the store is not well.

Creating a store takes MLflow seconds, so one store is made, by two processes at once, and then copied.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric_name

from common.experiments import tracking
from common.experiments.errors import UserError
from common.experiments.tracking import check_uri, default_uri, pending, sync

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"learning_rate": 0.1, "model": {"layers": 2, "name": "t5"}, "stages": [1, 2], "rehearsal": None}


def write_cell(runs: Path, key: str, seed: int = 0, state: str = "done", paper: str = "toy", **other: Any) -> None:
    """The files of one cell as the engine leaves them; `other` replaces settings, metrics, curve."""
    folder = runs / paper / "cells" / key
    folder.mkdir(parents=True, exist_ok=True)
    times = {"started_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T03:05:05Z"}
    config = {"paper": paper, "table": "main", "scale": "tiny", "row": "ours", "column": "corpus", "seed": seed}
    config |= {"settings": other.get("settings", SETTINGS), "commit": "abc123", "dirty": False}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    (folder / "status").write_text(json.dumps({"state": state, "error": "ValueError: boom", "attempt": 1, **times}))
    (folder / "log.txt").write_text("hello\n")
    if "curve" in other:
        (folder / "metrics.jsonl").write_text(other["curve"])
    if state == "done":
        result = {"metrics": other.get("metrics", {"a_hits10": 0.25 + seed}), "tokens": {"answer": 7}}
        result |= {"table": "main", "row": "ours"}
        (folder / "result.json").write_text(json.dumps({**result, "wall_seconds": 1.5, "peak_mb": 90, **times}))
    elif state == "failed":
        (folder / "error.txt").write_text("Traceback\n")


def write_manifest(
    runs: Path, cells: Mapping[str, int], name: str = "main.tiny", row: str = "ours", paper: str = "toy"
) -> Path:
    """`cells` is key -> seed."""
    path = runs / paper / "tables" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"row": row, "column": "corpus", "seed": seed, "key": key} for key, seed in cells.items()]
    about = {"paper": paper, "table": "main", "scale": "tiny", "title": "A toy", "overrides": []}
    path.write_text(json.dumps({**about, "cells": entries}))
    return path


def listed(
    uri: str, view: int = ViewType.ACTIVE_ONLY, experiment: str = "repro/toy"
) -> tuple[list[Run], dict[str, Run]]:
    """(parents, key -> child) in a store; fails on two children of one cell."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = list(client.search_runs([found.experiment_id], run_view_type=view))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    by_key = {run.data.tags["key"]: run for run in children}
    assert len(by_key) == len(children)
    return parents, by_key


def artifacts(uri: str, run: Run, folder: str | None = None) -> list[str]:
    return [file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id, folder)]


@dataclass(frozen=True)
class Race:
    """Two processes that both synced a table of four cells into a store that did not exist."""

    runs: Path
    outputs: list[tuple[str, str]]


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    runs = tmp_path_factory.mktemp("race") / "runs with space"
    for seed in range(4):
        write_cell(runs, f"k{seed}", seed, paper="race")
    table = write_manifest(runs, {f"k{seed}": seed for seed in range(4)}, paper="race")
    (runs / ".mlflow-new-killed").mkdir()
    code = (
        "import sys; from pathlib import Path; from common.experiments.tracking import default_uri, sync;"
        "runs = Path(sys.argv[1]); outcome = sync([Path(sys.argv[2])], runs, default_uri(runs));"
        "print(outcome.created, outcome.existing, outcome.failed, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(runs), str(table)]
    environment, pipe = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    both = [
        subprocess.Popen(command, cwd=runs.parent, env=environment, stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    return Race(runs, [process.communicate() for process in both])


@pytest.fixture(scope="module")
def empty_store(race: Race) -> Path:
    """A store without the experiment `repro/toy`."""
    return race.runs / "mlflow.db"


@pytest.fixture
def runs(tmp_path: Path, empty_store: Path) -> Path:
    """A runs folder with an empty store in it."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def table(runs: Path) -> Path:
    """A done, a failed and a running cell."""
    write_cell(runs, "k0")
    write_cell(runs, "k1", seed=1, state="failed")
    write_cell(runs, "k2", seed=2, state="running")
    return write_manifest(runs, {"k0": 0, "k1": 1, "k2": 2})


def test_a_table_is_a_parent_run_with_a_child_per_finished_cell(runs: Path, table: Path):
    items = runs / "toy/cells/k0/items"
    items.mkdir()
    (items / "ranks.jsonl").write_text('{"rank": 1}\n')
    (items / "huge.jsonl").write_text("x" * (tracking.ARTIFACT_BYTES + 1))
    uri = default_uri(runs)
    outcome = sync([table], runs, uri)
    assert (outcome.created, outcome.existing, outcome.failed) == (2, 0, None)

    (parent,), children = listed(uri)
    assert parent.info.run_name == "main.tiny" and parent.info.status == "RUNNING"  # k2 is still to come
    assert parent.data.tags["mlflow.note.content"] == "A toy"
    about = {"paper": "toy", "table": "main", "scale": "tiny", "state": "unfinished"}
    assert (about | {"cells": "3", "done": "1", "failed": "1"}).items() <= parent.data.tags.items()
    assert children.keys() == {"k0", "k1"}
    done, failed = children["k0"], children["k1"]
    assert done.data.params == {
        "learning_rate": "0.1", "model.layers": "2", "model.name": "t5", "stages": "[1, 2]", "rehearsal": "null",
        "row": "ours", "column": "corpus", "seed": "0",
    }  # fmt: skip
    assert done.data.metrics == {"a_hits10": 0.25, "cost/wall_seconds": 1.5, "cost/peak_mb": 90, "tokens/answer": 7}
    wanted = {"paper": "toy", "table": "main", "scale": "tiny", "row": "ours", "column": "corpus", "seed": "0"}
    wanted |= {"key": "k0", "commit": "abc123", "state": "done", "mlflow.parentRunId": parent.info.run_id}
    assert wanted.items() <= done.data.tags.items()
    assert done.info.status == "FINISHED" and done.info.end_time - done.info.start_time == 60_000
    assert artifacts(uri, done) == ["config.yaml", "items", "log.txt", "result.json"]
    assert artifacts(uri, done, "items") == ["items/ranks.jsonl"]
    assert done.data.tags["repro.left_out"] == "huge.jsonl"
    assert failed.info.status == "FAILED" and failed.data.tags["error"] == "ValueError: boom"
    assert artifacts(uri, failed) == ["config.yaml", "error.txt", "log.txt"]
    assert (runs / "mlflow-artifacts/toy").is_dir()


def test_a_second_sync_creates_nothing_whatever_became_of_the_marker(runs: Path, table: Path):
    uri, marker = default_uri(runs), table.with_name("main.tiny.synced.json")
    assert pending(table, runs, uri)
    sync([table], runs, uri)
    before = listed(uri, ViewType.ALL)
    assert not pending(table, runs, uri)
    assert (sync([table], runs, uri).created, sync([table], runs, uri).existing) == (0, 2)
    for damage in (marker.unlink, lambda: marker.write_text("{torn"), lambda: marker.write_text("[]")):
        damage()
        assert pending(table, runs, uri)
        outcome = sync([table], runs, uri)
        assert (outcome.created, outcome.existing, outcome.failed) == (0, 2, None)
        assert not pending(table, runs, uri)
    after = listed(uri, ViewType.ALL)
    assert [run.info.run_id for run in after[0]] == [run.info.run_id for run in before[0]]
    assert after[1].keys() == before[1].keys()


def test_a_sync_killed_at_any_request_is_finished_by_the_next(runs: Path, monkeypatch: pytest.MonkeyPatch):
    uri = default_uri(runs)
    write_cell(runs, "k0", curve='{"step": 1, "loss": 2.0}\n')
    table = write_manifest(runs, {"k0": 0})
    call = tracking._Patience.__call__
    kills, killed = 0, True
    while killed:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("repro/toy")
        for run in client.search_runs([experiment.experiment_id]) if experiment else ():
            client.delete_run(run.info.run_id)
        left = iter(range(kills))

        def kill(patience: Any, *args: Any, left: Iterator[int] = left, **kwargs: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return call(patience, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(tracking._Patience, "__call__", kill)
            try:
                sync([table], runs, uri)
                killed = False
            except KeyboardInterrupt:
                kills += 1
        assert sync([table], runs, uri).failed is None
        (parent,), children = listed(uri)
        assert parent.info.status == "FINISHED" and parent.data.tags["done"] == "1"
        assert children["k0"].info.status == "FINISHED"
        assert children["k0"].data.metrics["a_hits10"] == 0.25
        assert [point.step for point in client.get_metric_history(children["k0"].info.run_id, "loss")] == [1]
        assert "result.json" in artifacts(uri, children["k0"])
    assert kills > 10


def test_a_failed_cell_that_was_computed_again_is_done(runs: Path, table: Path):
    uri = default_uri(runs)
    sync([table], runs, uri)
    write_cell(runs, "k1", seed=1)
    write_cell(runs, "k2", seed=2)
    assert pending(table, runs, uri)
    outcome = sync([table], runs, uri)
    assert (outcome.created, outcome.existing) == (2, 1)
    (parent,), children = listed(uri)
    assert parent.info.status == "FINISHED" and parent.data.tags["done"] == "3"
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert children["k1"].data.metrics["a_hits10"] == 1.25 and "error" not in children["k1"].data.tags


def test_cells_of_earlier_code_stay_and_are_marked(runs: Path, table: Path):
    uri = default_uri(runs)
    sync([table], runs, uri)
    write_cell(runs, "new0")
    write_manifest(runs, {"new0": 0, "k1": 1, "k2": 2})
    assert sync([table], runs, uri).created == 1
    parents, children = listed(uri)
    assert len(parents) == 1
    assert {key: run.data.tags["repro.current"] for key, run in children.items()} == {
        "k0": "false", "k1": "true", "new0": "true",
    }  # fmt: skip
    write_manifest(runs, {"k0": 0, "k1": 1, "k2": 2})
    assert sync([table], runs, uri).created == 0
    assert listed(uri)[1]["k0"].data.tags["repro.current"] == "true"


def test_rows_and_tables_that_share_a_cell_have_a_run_each(runs: Path):
    uri = default_uri(runs)
    write_cell(runs, "k0")
    tables = [write_manifest(runs, {"k0": 0}), write_manifest(runs, {"k0": 0}, name="other.tiny", row="control")]
    assert sync(tables, runs, uri).created == 2
    assert sync(tables, runs, uri).existing == 2
    manifest = json.loads(tables[0].read_text())
    manifest["cells"].append({**manifest["cells"][0], "row": "control"})
    tables[0].write_text(json.dumps(manifest))
    assert sync(tables, runs, uri).created == 1


def test_curves_keep_their_steps_and_a_figure_of_the_same_name_comes_last(runs: Path):
    points = [{"step": step, "loss": 1 / (step + 1), "note": "text"} for step in range(0, 5000, 2)]
    curve = "".join(json.dumps(point) + "\n" for point in points) + '{"step": 5000, "loss": NaN}\n{"step": 50'
    write_cell(runs, "k0", curve=curve, metrics={"loss": 0.5, "f1": 1})
    uri = default_uri(runs)
    assert sync([write_manifest(runs, {"k0": 0})], runs, uri).failed is None
    run = listed(uri)[1]["k0"]
    assert run.data.metrics["loss"] == 0.5 and run.data.metrics["f1"] == 1.0
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert sorted(point.step for point in history) == [*range(0, 5000, 2), 5000, 5000]
    assert {point.step: point.value for point in history if point.step < 5000} == {
        point["step"]: point["loss"] for point in points
    }


def test_any_name_and_any_value_is_accepted(runs: Path):
    settings = {
        "prompt": "é" * 7000, "naïve größe": "日本",
        "a@b": 1, "a#b": 2, "a_b": 3, "/abs": 4, "x//y": 5, "..": 6, ".": 7,
        "n" * 300: 8, "seed": 9, "nul": "a\0b", "empty": "", "none": {}, "many": {str(i): i for i in range(250)},
    }  # fmt: skip
    write_cell(runs, "k0", settings={}, metrics={"hits@10": 0.1, "hits#10": 0.2, "größe": 0.3, "a/b": 0.4, "/": 0.5})
    config = runs / "toy/cells/k0/config.yaml"
    config.write_text(json.dumps({"settings": settings, "commit": "c" * 9000}))  # JSON is YAML, escapes and all
    uri = default_uri(runs)
    assert sync([write_manifest(runs, {"k0": 0})], runs, uri).failed is None
    data = listed(uri)[1]["k0"].data
    assert data.params["prompt"].startswith("ééé") and data.params["prompt"].endswith("whole in config.yaml)")
    assert (data.params["naïve größe"], data.params["a_b"], data.params["seed"]) == ("日本", "3", "0")
    assert data.params["settings.seed"] == "9" and data.params["many.249"] == "249"
    assert {data.params["a_b_2"], data.params["a_b_3"]} == {"1", "2"}
    assert len(data.params) == len(settings) - 1 + 250 + 3
    assert data.metrics["hits_10"] == 0.1 and data.metrics["hits_10_2"] == 0.2
    assert data.metrics["größe"] == 0.3 and data.metrics["a/b"] == 0.4
    assert tracking._value("half a pair: \ud800") == "half a pair: ?"


@pytest.mark.parametrize("name", ["a_hits10", "val/f1", "p 95", "a:b", "größe"])
def test_names_that_mlflow_takes_stay(name: str):
    assert tracking._names([name]) == {name: name}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/", "a//b", "./a", "../a", "a\nb", "%", "a" * 251 + "/", "日@本"]
)
def test_names_that_mlflow_refuses_become_ones_it_takes(name: str):
    with pytest.raises(MlflowException):
        _validate_metric_name(name) if name else _validate_metric_name(None)
    key = tracking._names([name])[name]
    _validate_metric_name(key)
    assert key and len(key) <= 250


def test_reports_go_to_the_parent_and_a_new_one_counts_as_news(runs: Path, table: Path, tmp_path: Path):
    uri, folder = default_uri(runs), tmp_path / "reports" / "toy"
    (folder / "plots").mkdir(parents=True)
    for name in ("main.tiny.md", "plots/main.tiny-f1.png", "main.tiny+0a1b.md", "main.small.md"):
        (folder / name).write_text("x")
    (folder / "main.tiny.json").write_text(json.dumps({"generated_at": "monday", "claims": []}))
    sync([table], runs, uri, reports=tmp_path / "reports")
    (parent,), _ = listed(uri)
    assert sorted(artifacts(uri, parent, "report")) == [
        "report/main.tiny-f1.png", "report/main.tiny.json", "report/main.tiny.md",
    ]  # fmt: skip
    (folder / "main.tiny.json").write_text(json.dumps({"generated_at": "tuesday", "claims": []}))
    assert not pending(table, runs, uri, reports=tmp_path / "reports")
    (folder / "main.tiny.json").write_text(json.dumps({"generated_at": "tuesday", "claims": [{"status": "holds"}]}))
    assert pending(table, runs, uri, reports=tmp_path / "reports")
    assert sync([table], runs, uri, reports=tmp_path / "reports").created == 0
    copy = MlflowClient(uri).download_artifacts(parent.info.run_id, "report/main.tiny.json", str(tmp_path))
    assert "holds" in Path(copy).read_text()


def test_another_store_gets_everything(runs: Path, table: Path, empty_store: Path, tmp_path: Path):
    sync([table], runs, default_uri(runs))
    shutil.copy(empty_store, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert pending(table, runs, other)
    assert sync([table], runs, other).created == 2
    assert not pending(table, runs, other) and not pending(table, runs, default_uri(runs))


def test_a_deleted_database_is_filled_again(runs: Path, table: Path, empty_store: Path):
    uri = default_uri(runs)
    write_cell(runs, "z")
    other = write_manifest(runs, {"z": 9}, name="other.tiny")
    sync([table, other], runs, uri)
    (runs / "mlflow.db").unlink()
    assert pending(table, runs, uri)
    shutil.copy(empty_store, runs / "mlflow.db")
    time.sleep(0.002)  # the new experiment's time of creation, in ms, is another one
    assert sync([other], runs, uri).created == 1
    assert pending(table, runs, uri)  # the file is there again, this table is not in it
    assert sync([table], runs, uri).created == 2
    assert listed(uri)[1].keys() == {"k0", "k1", "z"}


def test_experiments_and_parents_thrown_away_in_the_ui_come_back(runs: Path, table: Path):
    uri = default_uri(runs)
    sync([table], runs, uri)
    client = MlflowClient(uri)
    (parent,), _ = listed(uri)
    client.delete_run(parent.info.run_id)
    assert sync([table], runs, uri).existing == 2
    (parent,), children = listed(uri)
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    client.delete_experiment(parent.info.experiment_id)
    assert pending(table, runs, uri)
    assert sync([table], runs, uri).failed is None
    assert listed(uri)[1].keys() == {"k0", "k1"}


def test_two_processes_make_one_new_store_and_one_run_per_cell_in_silence(race: Race):
    assert sorted(race.outputs) == [("0 4 None False\n", ""), ("4 0 None False\n", "")]
    parents, children = listed(default_uri(race.runs), experiment="repro/race")
    assert len(parents) == 1 and children.keys() == {"k0", "k1", "k2", "k3"}
    assert [path.name for path in race.runs.parent.iterdir()] == ["runs with space"]  # no ./mlruns
    assert sorted(path.name for path in race.runs.iterdir()) == ["mlflow-artifacts", "mlflow.db", "mlflow.lock", "race"]


def test_asking_whether_a_sync_is_due_does_not_import_mlflow(runs: Path, table: Path):
    sync([table], runs, default_uri(runs))
    code = (
        "import sys; from pathlib import Path; from common.experiments.tracking import default_uri, pending;"
        "runs = Path(sys.argv[1]); print(pending(Path(sys.argv[2]), runs, default_uri(runs)));"
        "print(sorted({'mlflow', 'torch', 'sqlalchemy', 'requests'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(runs), str(table)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output == "False\n[]\n"


def test_a_server_that_is_not_there_fails_in_one_line(runs: Path, table: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before, start = dict(os.environ), time.monotonic()
    uri = f"http://user:secret@127.0.0.1:{port}"
    outcome = sync([table], runs, uri)
    assert time.monotonic() - start < 30
    assert outcome.created == 0
    assert outcome.failed == (
        f"MLflow at http://127.0.0.1:{port} did not answer (Connection refused); "
        "results are safe in runs/, `repro sync` catches up"
    )
    assert os.environ == before
    assert pending(table, runs, uri) and not table.with_name("main.tiny.synced.json").exists()


class Broken(BaseHTTPRequestHandler):
    """Answers as its `status` says; 0: not in time."""

    status = 500

    def do_GET(self) -> None:
        if self.status == 0:
            time.sleep(1.5)
            return
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>not what you expected</html>")

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "reason"), [(500, "500"), (200, "html"), (404, "404"), (0, "no answer within")])
def test_a_server_that_is_broken_or_hangs_fails_in_one_line(
    runs: Path,
    table: Path,
    status: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(tracking.ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with HTTPServer(("127.0.0.1", 0), type("Server", (Broken,), {"status": status})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = time.monotonic()
        outcome = sync([table], runs, f"http://127.0.0.1:{server.server_port}")
        assert time.monotonic() - start < 30
        server.shutdown()
    assert outcome.created == 0 and outcome.failed is not None
    assert reason in outcome.failed and "\n" not in outcome.failed and len(outcome.failed) < 400
    assert capfd.readouterr() == ("", "")


def test_a_store_that_answers_too_slowly_is_left_alone(runs: Path, table: Path, monkeypatch: pytest.MonkeyPatch):
    uri = default_uri(runs)
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", -5.5)  # used up after no more than six requests at full speed
    failed = sync([table], runs, uri).failed
    assert failed is not None and "too slow" in failed
    monkeypatch.undo()
    assert sync([table], runs, uri).failed is None
    assert listed(uri)[1].keys() == {"k0", "k1"}


def test_a_database_that_is_none_fails_at_once(runs: Path, table: Path):
    for uri in (f"sqlite:///{runs / 'garbage.db'}", f"sqlite:///{runs / 'folder'}", "postgresql://u:p@127.0.0.1:1/x"):
        (runs / "garbage.db").write_text("this is no database, " * 100)
        (runs / "folder").mkdir(exist_ok=True)
        start = time.monotonic()
        failed = sync([table], runs, uri).failed
        assert failed is not None and "did not answer" in failed and ":p@" not in failed
        assert time.monotonic() - start < 30
        assert pending(table, runs, uri)


def test_a_store_that_another_sync_holds_is_waited_for_and_then_left(
    runs: Path, table: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "LOCK_SECONDS", 0.1)
    with FileLock(runs / "mlflow.lock"):
        failed = sync([table], runs, default_uri(runs)).failed
    assert failed is not None and "another sync has been at work" in failed


def test_a_corrupted_record_is_named_and_the_others_go_on(runs: Path, table: Path):
    uri = default_uri(runs)
    write_cell(runs, "k2", seed=2)
    (runs / "toy/cells/k0/result.json").write_text("{torn")
    outcome = sync([table], runs, uri)
    assert outcome.created == 2
    assert outcome.failed is not None and "k0/result.json is corrupted" in outcome.failed
    assert pending(table, runs, uri)
    write_cell(runs, "k0")
    (runs / "toy/cells/k1/config.yaml").unlink()
    write_cell(runs, "k1", seed=1)
    broken = runs / "toy/tables/broken.tiny.json"
    for text in ("{torn", "[]", '{"paper": "toy"}', '{"paper": "toy", "cells": [{}]}'):
        broken.write_text(text)
        assert pending(broken, runs, uri)
        outcome = sync([broken, table], runs, uri)
        assert outcome.failed is not None and "broken.tiny.json" in outcome.failed
        assert not pending(table, runs, uri)
    assert listed(uri)[1].keys() == {"k0", "k1", "k2"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://localhost:5000", "did you mean 'http'"),
        ("sqllite:///x.db", "did you mean 'sqlite'"),
        ("file:///mlruns", "unknown scheme 'file'"),
        ("mlruns", "has no scheme"),
        ("", "has no scheme"),
        ("sqlite://mlflow.db", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://", "names no host"),
        ("http://:5000", "names no host"),
        ("http://localhost:port", "names no host"),
    ],
)
def test_a_wrong_uri_is_one_clear_line(tmp_path: Path, uri: str, message: str):
    for function in (
        check_uri,
        lambda uri: sync([], tmp_path, uri),
        lambda uri: pending(tmp_path / "x", tmp_path, uri),
    ):
        with pytest.raises(UserError, match=message) as raised:
            function(uri)
        assert "\n" not in str(raised.value)


def test_uris_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert check_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert check_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert check_uri("http://host:5000/") == "http://host:5000"
    assert check_uri("postgresql+psycopg2://u:p@host/db") == "postgresql+psycopg2://u:p@host/db"
