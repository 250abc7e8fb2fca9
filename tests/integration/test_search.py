"""Search over settings by the command: two shells, a killed one, submitit's jobs with and without waiting."""

import json
import os
import signal
import time

import pytest

from tests.common.experiments.test_search import WALK, report, rows

pytestmark = pytest.mark.integration


def test_two_shells_share_a_search_and_one_may_be_killed(checkout):
    command = (*WALK, "settings.seconds=0.1", "--search", "random", "--trials", "8")
    doomed, other = checkout.start(*command), checkout.start(*command)
    deadline = time.monotonic() + 60
    while len(checkout.results()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, out + err
    trials = rows(report(checkout))
    assert sorted(int(line[1]) for line in trials) == list(range(8))
    assert {line[4] for line in trials} == {"done"}
    assert len(checkout.results()) == 8 + 3
    starts = [len((cell / "started.log").read_text().split()) for cell in checkout.cells]
    assert sum(starts) <= 11 + 2  # of the killed shell's two workers


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "coming back"])
def test_a_search_by_jobs_gives_the_points_and_figures_of_the_local_one(checkout, tmp_path, wait):
    command = (*WALK, "--search", "random", "--trials", "5")
    local = checkout.repro(*command, f"paths.runs={tmp_path}/local")
    assert local.returncode == 0, local.stdout + local.stderr
    jobs = (*command, "--launcher", "submitit", *(["--wait"] if wait else []))
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
