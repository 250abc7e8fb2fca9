"""The MLflow mirror against a real `mlflow server` on loopback with a SQLite backend, killed and started again."""

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
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.conftest import PATIENCE, Checkout, make_checkout

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


def listed(uri: str) -> tuple[list[Run], list[Run]]:
    """(parents, children by row and seed) as the server shows them."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("repro/lab")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, sorted(children, key=lambda run: (run.data.tags["row"], run.data.tags["seed"]))


def test_a_table_is_mirrored_and_a_server_killed_amid_it_loses_nothing(tmp_path: Path):
    checkout, port = make_checkout(tmp_path / "checkout"), free_port()
    uri = f"http://127.0.0.1:{port}"
    server = tmp_path / "server"

    with mlflow_server(server, port) as process:
        done = checkout.table("--seeds", "2", MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 0, done.stdout + done.stderr
        parents, children = listed(uri)
        assert [run.data.tags["table"] for run in parents] == ["main"]
        assert [(run.data.tags["row"], run.data.tags["seed"]) for run in children] == [
            ("flat", "0"), ("flat", "1"), ("up", "0"), ("up", "1"),
        ]  # fmt: skip
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
        results = checkout.results()
        for run in children:
            assert run.data.metrics["score"] == results[run.data.tags["key"]]["score"]
            assert run.data.params["steps"] == "5"
            assert {"paper", "table", "column", "scale", "commit"} <= run.data.tags.keys()
        client = MlflowClient(uri)
        curve = client.get_metric_history(children[0].info.run_id, "position")
        assert [point.step for point in curve] == [0, 1, 2, 3, 4]
        files = {item.path for item in client.list_artifacts(children[0].info.run_id)}
        assert {"config.yaml", "result.json", "log.txt"} <= files

        checkout.hold(2)
        running = checkout.start("table", "lab/main", "--seeds", "4", "settings.seconds=0.1", MLFLOW_TRACKING_URI=uri)
        while len(checkout.results()) < 6:
            time.sleep(0.05)
        kill(process)
        checkout.release()
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    assert f"MLflow at {uri} did not answer" in " ".join(out.split())
    assert len(checkout.results()) == 12

    with mlflow_server(server, port):
        assert "8 runs written, 4 already there" in _sync(checkout, uri)
        parents, children = listed(uri)
        assert (len(parents), len(children)) == (2, 12)
        assert "0 runs written" in _sync(checkout, uri)  # idempotent
        assert len(listed(uri)[1]) == 12


def _sync(checkout: Checkout, uri: str) -> str:
    done = checkout.repro("sync", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
