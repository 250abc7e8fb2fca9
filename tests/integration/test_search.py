"""Search over settings by the command: pruning, report, two shells, a killed one, jobs with and without waiting."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from common.experiments.records import Record
from tests.conftest import PATIENCE, Checkout
from tests.integration.slurm_cluster import ABSENT, running_cluster

pytestmark = pytest.mark.integration
needs_slurm = pytest.mark.skipif(bool(ABSENT), reason=f"no SLURM here: {', '.join(ABSENT)} missing")

WALK = ("sweep", "lab/main", "rows.up.settings.drift=interval(0,5)", "--rows", "up", "--seeds", "1", "--workers", "2")


def rows(text: str) -> list[list[str]]:
    """Cells of the trials in a report."""
    _, *lines = (line for line in text.split("## ")[1].splitlines() if re.match(r"\| [ ★]", line))
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def report(checkout) -> str:
    [path] = (checkout.root / "runs/lab/reports").glob("*+search-*.md")
    return path.read_text()


def seed(cell: Path) -> int:
    number: int = yaml.safe_load((cell / "config.yaml").read_text())["seed"]
    return number


def test_a_search_prunes_reports_its_cost_and_runs_the_chosen_at_fresh_seeds(checkout):
    command = (*WALK, "settings.steps=14", "settings.seconds=0.2", "--search", "random", "--trials", "9", "--prune")
    done = checkout.repro(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = rows(report(checkout))
    states = [line[4].split()[0] for line in trials]
    assert len(trials) == 9 and 0 < states.count("pruned") < 5 and states.count("done") == 9 - states.count("pruned")
    best = trials[0]
    assert best[0] == "★" and float(best[2]) == max(float(line[2]) for line in trials if line[4] == "done")
    kept = min(float(line[2]) for line in trials[:5])
    assert all(float(line[2]) < kept for line in trials if line[4] != "done")
    cut = [cell for cell in checkout.cells if json.loads((cell / "status").read_text())["state"] == "pruned"]
    assert len(cut) == states.count("pruned")
    assert not any((cell / "result.json").exists() for cell in cut)
    assert min(len(Record(cell).curves()["val_score"]) for cell in cut) < 14
    tried = {cell: "status" if cell in cut else "result.json" for cell in checkout.cells if seed(cell) == 1000}
    spent = sum(json.loads((cell / file).read_text())["wall_seconds"] for cell, file in tried.items())
    assert sum(float(line[5]) for line in trials) == pytest.approx(spent, abs=9 * 0.05)
    assert f"{states.count('pruned')} pruned (" in report(checkout)
    fresh = report(checkout).split("## The chosen settings at seeds 0-2")[1]
    assert f"| rows.up.settings.drift={best[2]} |" in fresh and "| 3 |" in fresh
    assert sorted(map(seed, checkout.cells)) == [0, 1, 2] + [1000] * 9
    before = {path: path.stat().st_mtime_ns for path in checkout.root.glob("runs/lab/cells/*/result.json")}
    again = checkout.repro(*command)
    assert again.returncode == 0 and "9 ended" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in checkout.root.glob("runs/lab/cells/*/result.json")}
    assert f"{len(cut)} pruned" in checkout.repro("status").stdout


def test_two_shells_share_a_search_and_one_may_be_killed(checkout):
    command = (*WALK, "settings.seconds=0.1", "--search", "random", "--trials", "8")
    doomed, other = checkout.start(*command), checkout.start(*command)
    deadline = time.monotonic() + 60
    while len(checkout.results()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    out, err = other.communicate(timeout=PATIENCE)
    assert other.returncode == 0, out + err
    trials = rows(report(checkout))
    assert sorted(int(line[1]) for line in trials) == list(range(8))
    assert {line[4] for line in trials} == {"done"}
    assert len(checkout.results()) == 8 + 3
    starts = [len((cell / "started.log").read_text().split()) for cell in checkout.cells]
    assert sum(starts) <= 11 + 2  # of the killed shell's two workers


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as started:
        yield started


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "coming back"])
@pytest.mark.parametrize("launcher", ["submitit", pytest.param("slurm", marks=needs_slurm)])
def test_a_search_by_jobs_gives_the_points_and_figures_of_the_local_one(checkout, tmp_path, launcher, wait, request):
    command = (*WALK, "--search", "random", "--trials", "5")
    local = checkout.repro(*command, f"paths.runs={tmp_path}/local")
    assert local.returncode == 0, local.stdout + local.stderr
    if launcher == "slurm":
        cluster = request.getfixturevalue("cluster")
        checkout = Checkout(checkout.root, checkout.environment | cluster.environment)
    jobs = (*command, "--launcher", launcher, "resources.memory_gb=1", *(["--wait"] if wait else []))
    done = checkout.repro(*jobs)
    for _ in range(60):
        if wait or "report: " in done.stdout:
            break
        assert done.returncode == 0 and ("submitted" in done.stdout or "have a job already" in done.stdout), done.stdout
        time.sleep(1)
        done = checkout.repro(*jobs)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (tmp_path / "local/lab/reports").glob("*+search-*.md")
    assert [line[:5] for line in rows(report(checkout))] == [line[:5] for line in rows(path.read_text())]
    assert len(checkout.results()) == 5 + 3
    assert all((cell / "started.log").read_text().count("\n") == 1 for cell in checkout.cells)


def test_jobs_are_pruned(checkout):
    command = (*WALK, "settings.steps=25", "settings.seconds=0.1", "--search", "random", "--trials", "9", "--prune")
    done = checkout.repro(*command, "--launcher", "submitit", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    states = [line[4].split()[0] for line in rows(report(checkout))]
    assert states.count("pruned") > 0 and states.count("pruned") + states.count("done") == 9
    for cell in checkout.cells:
        status = json.loads((cell / "status").read_text())
        assert status["state"] in ("done", "pruned") and status["attempt"] == 1


def test_a_dry_run_of_a_search_prints_scripts_and_leaves_nothing(checkout):
    done = checkout.repro(*WALK, "--search", "tpe", "--trials", "5", "--launcher", "submitit", "--dry-run")
    assert done.returncode == 0 and "common.experiments.job" in done.stdout, done.stdout + done.stderr
    assert not list((checkout.root / "runs").glob("**/*"))
