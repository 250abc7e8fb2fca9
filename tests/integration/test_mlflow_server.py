"""The MLflow mirror against a real `mlflow server` on loopback with a SQLite backend, killed and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from common.experiments.tracking import pending, sync

pytestmark = pytest.mark.integration

SECONDS_TO_START = 120


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers; its process group is gone afterwards whatever happens."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=quiet, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        end = time.monotonic() + SECONDS_TO_START
        while not answers(port):
            assert process.poll() is None and time.monotonic() < end, (folder / "server.log").read_text()[-2000:]
            time.sleep(0.2)
        yield process
    finally:
        kill(process)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def write_cell(runs: Path, seed: int, state: str = "done") -> None:
    folder = runs / "toy" / "cells" / f"k{seed}"
    (folder / "items").mkdir(parents=True, exist_ok=True)
    settings = {"method": "ours", "prompt": "日" * 7000, "empty": "", "many": {str(i): i for i in range(130)}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"settings": settings, "commit": "abc123"}, allow_unicode=True))
    times = {"started_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T03:05:05Z"}
    (folder / "status").write_text(json.dumps({"state": state, "error": "ValueError: boom", **times}))
    curve = [{"step": step, "loss": 1 / step} for step in range(1, 1501)] + [{"step": 1501, "loss": float("nan")}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve))
    (folder / "items" / "ranks.jsonl").write_text('{"rank": 1}\n')
    if state == "done":
        (folder / "result.json").write_text(json.dumps({"metrics": {"a_hits10": 0.1 * seed}, **times}))


def write_manifest(runs: Path, seeds: int) -> Path:
    path = runs / "toy" / "tables" / "main.tiny.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"row": "ours", "column": "corpus", "seed": seed, "key": f"k{seed}"} for seed in range(seeds)]
    path.write_text(json.dumps({"paper": "toy", "table": "main", "scale": "tiny", "title": "A toy", "cells": cells}))
    return path


def listed(uri: str) -> tuple[list[Run], list[Run]]:
    """(parents, children by seed) as the server shows them."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("repro/toy")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, sorted(children, key=lambda run: run.data.tags["seed"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_server_killed_amid_a_table_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    runs, port = tmp_path / "runs", free_port()
    uri = f"http://127.0.0.1:{port}"
    for seed in range(2):
        write_cell(runs, seed)
    write_cell(runs, 2, state="failed")
    table = write_manifest(runs, seeds=5)

    with mlflow_server(tmp_path / "server", port) as server:
        start = time.monotonic()
        outcome = sync([table], runs, uri)
        seconds = time.monotonic() - start
        assert (outcome.created, outcome.existing, outcome.failed) == (3, 0, None)
        assert capfd.readouterr() == ("", "")
        with capfd.disabled():
            print(f"[three cells of 1,501 points each to a server: {seconds:.1f} s]", end=" ")

        (parent,), children = listed(uri)
        assert parent.info.run_name == "main.tiny" and parent.info.status == "RUNNING"
        assert [run.info.status for run in children] == ["FINISHED", "FINISHED", "FAILED"]
        tags = {"paper": "toy", "table": "main", "scale": "tiny", "row": "ours", "column": "corpus", "seed": "1"}
        tags |= {"key": "k1", "commit": "abc123", "state": "done", "mlflow.parentRunId": parent.info.run_id}
        assert tags.items() <= children[1].data.tags.items()
        assert children[1].data.metrics["a_hits10"] == 0.1
        assert children[1].data.params["method"] == "ours" and len(children[1].data.params) == 3 + 130 + 3
        client = MlflowClient(uri)
        history = client.get_metric_history(children[1].info.run_id, "loss")
        assert {point.step: point.value for point in history if point.step <= 1500} == {
            s: 1 / s for s in range(1, 1501)
        }
        copy = client.download_artifacts(children[1].info.run_id, "items/ranks.jsonl", str(tmp_path))
        assert Path(copy).read_text() == '{"rank": 1}\n'
        assert not pending(table, runs, uri)
        kill(server)

    write_cell(runs, 2)
    write_cell(runs, 3)
    before = contents(runs)
    outcome = sync([table], runs, uri)
    assert outcome.created == 0
    assert outcome.failed == (
        f"MLflow at {uri} did not answer (Connection refused); results are safe in runs/, `repro sync` catches up"
    )
    assert contents(runs) == before
    assert pending(table, runs, uri)

    with mlflow_server(tmp_path / "server", port):
        write_cell(runs, 4)
        outcome = sync([table], runs, uri)
        assert (outcome.created, outcome.existing, outcome.failed) == (3, 2, None)
        outcome = sync([table], runs, uri)
        assert (outcome.created, outcome.existing, outcome.failed) == (0, 5, None)
        (parent,), children = listed(uri)
        assert parent.info.status == "FINISHED"
        assert [run.data.tags["key"] for run in children] == ["k0", "k1", "k2", "k3", "k4"]
        assert {run.info.status for run in children} == {"FINISHED"}
    assert not answers(port)
