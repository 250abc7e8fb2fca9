"""Sweeps on a real SLURM of one node, and on submitit's local executor: nothing is lost, nothing runs twice."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.experiments import catalogue
from common.experiments.cluster import scripts
from common.experiments.compose import compose_table
from common.experiments.context import VALIDATION_SEED
from tests.conftest import PATIENCE, Checkout
from tests.integration.slurm_cluster import (
    ABSENT,
    SYSTEM,
    Cluster,
    end_jobs,
    make,
    running_cluster,
    states,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

FAST = ["launcher.min_minutes=5", "resources.memory_gb=1"]
SLOW = ["settings.seconds=0.4", "--seeds", "3"]  # 6 cells of two seconds
TRAINING = ["settings.steps=60"]
LONG = 1400  # steps of a tenth of a second: more than two minutes
needs_slurm = pytest.mark.skipif(bool(ABSENT), reason=f"no SLURM here: {', '.join(ABSENT)} missing")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def over_limit(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Two cells that take longer than they may, started early: SLURM looks at limits every half minute.

    The training has two minutes, of which a loaded machine needs one to import torch.
    """
    made = make(tmp_path_factory.mktemp("limit") / "checkout", **cluster.environment)
    limits = ["launcher.signal_seconds=5", "resources.memory_gb=1"]
    for table, minutes, *settings in (
        ("school/main", 2, "--rows", "plain", f"settings.steps={LONG}", "settings.seconds=0.1"),
        ("lab/main", 1, "--rows", "up", "--seeds", "1", "settings.steps=1", "settings.seconds=200"),
    ):
        limit = [f"launcher.min_minutes={minutes}", f"launcher.max_minutes={minutes}"]
        done = made.repro("table", table, "--launcher", "slurm", *limit, *limits, *settings)
        assert done.returncode == 0, done.stdout + done.stderr
    yield made
    end_jobs(cluster, made)


@pytest.fixture(params=[pytest.param("slurm", marks=needs_slurm), "submitit"])
def launcher(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "slurm":
        request.getfixturevalue("cluster")
    return name


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Checkout]:
    """A checkout whose commands see the cluster, where there is one; its jobs end with the test."""
    cluster = None if ABSENT else request.getfixturevalue("cluster")
    if cluster:
        request.getfixturevalue("over_limit")
    made = make(tmp_path / "checkout", **(cluster.environment if cluster else {}))
    yield made
    if cluster:
        end_jobs(cluster, made)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Figures of the local launcher for every cell that the tests compute."""
    checkout = make(tmp_path_factory.mktemp("undisturbed") / "checkout")
    assert checkout.table("settings.seconds=0", "--seeds", "10").returncode == 0
    return checkout.results()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Figures of a training that nothing stopped."""
    checkout = make(tmp_path_factory.mktemp("uninterrupted") / "checkout")
    done = checkout.repro("table", "school/main", "settings.steps=60", "--rows", "plain")
    assert done.returncode == 0, done.stdout + done.stderr
    (cell,) = (checkout.root / "runs/school/cells").glob("*")
    return school(cell)


def school(cell: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((cell / "result.json").read_text())["metrics"]
    return metrics


def scores(results: dict[str, dict[str, float]]) -> list[float]:
    return sorted(metrics["score"] for metrics in results.values())


def starts(checkout: Checkout) -> list[int]:
    """How often each cell's run function was entered."""
    return [len(log.read_text().split()) for log in (checkout.root / "runs/lab/cells").glob("*/started.log")]


def job_folders(checkout: Checkout, paper: str = "lab") -> list[Path]:
    return sorted((checkout.root / "runs" / paper / "jobs").glob("*"))


def submit(checkout: Checkout, launcher: str, *arguments: str, table: str = "lab/main") -> None:
    done = checkout.repro("table", table, "--launcher", launcher, *FAST, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted" in done.stdout


def finish(checkout: Checkout, count: int, timeout: float = 180) -> None:
    wait_until(lambda: len(checkout.results()) >= count, f"{count} results", timeout)


def test_twenty_cells_with_two_that_fail_give_the_figures_of_the_local_launcher(site, launcher, undisturbed):
    done = site.table("--launcher", launcher, "--wait", *FAST, "--seeds", "10", "settings.broken_seeds=[3]")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("] failed: ") == 2 and "RuntimeError: the experiment exploded" in done.stdout
    assert len(site.results()) == 18
    assert set(scores(site.results())) < set(scores(undisturbed))
    (jobs,) = job_folders(site)
    assert len(json.loads((jobs / "array.json").read_text())["cells"]) == 20
    status = site.repro("status").stdout
    assert "20 cells: 18 done, 2 failed" in status
    assert status.count("failed: ") == 2 and "job " in status
    assert "Traceback" in site.repro("logs", "lab/main/up/3").stdout
    again = site.repro("retry", "lab/main")
    assert "submitted 2 cells" in again.stdout
    wait_until(lambda: sorted(starts(site)) == [1] * 18 + [2] * 2, "second attempts of the failed cells alone")


def test_a_cancelled_sweep_is_resumed_and_repeats_nothing(site, launcher):
    sweep = ("sweep", "lab/main", "settings.steps=5,6", "--launcher", launcher, "--seeds", "3")
    site.hold(VALIDATION_SEED + 1)  # one cell ends, two wait, the others have no job yet
    first = site.start(*sweep, *FAST, "launcher.workers=2")
    finish(site, 1)
    cancelled = site.repro("cancel", "lab/main")
    assert "cells cancelled" in cancelled.stdout, cancelled.stdout + cancelled.stderr
    wait_until(lambda: " running" not in site.repro("status").stdout, "end of the running jobs", every=1)
    site.release()
    assert "submitted 12 cells" in first.communicate(timeout=PATIENCE)[0]
    kept = {path: path.stat().st_mtime_ns for path in (site.root / "runs/lab/cells").glob("*/result.json")}
    assert len(kept) == 1
    assert "cancelled" in site.repro("status").stdout
    done = site.repro(*sweep, *FAST, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(site.results()) == 12
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert "★" in done.stdout


def test_a_submitting_process_killed_at_once_loses_nothing(site, launcher):
    process = site.start("table", "lab/main", "--launcher", launcher, *FAST, *SLOW)
    wait_until(lambda: any(folder.joinpath("ids").exists() for folder in job_folders(site)), "submission")
    process.kill()
    process.wait()
    assert "submitted" not in site.table("--launcher", launcher, *FAST, *SLOW).stdout
    finish(site, 6)
    assert site.table("--launcher", launcher, *FAST, *SLOW).returncode == 0
    assert starts(site) == [1] * 6
    assert len(job_folders(site)) == 1


@needs_slurm
def test_a_process_killed_before_it_could_note_the_job_finds_it_again(site, tmp_path):
    shim = tmp_path / "bin" / "sbatch"  # SLURM takes the jobs, and the process dies before it hears so
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n{shutil.which("sbatch", path=SYSTEM)} "$@" >/dev/null\nkill -9 $PPID\n')
    shim.chmod(0o755)
    path = f"{shim.parent}:{os.environ['PATH']}"
    killed = site.start("table", "lab/main", "--launcher", "slurm", *FAST, *SLOW, PATH=path)
    assert killed.wait(timeout=PATIENCE) == -signal.SIGKILL
    (jobs,) = job_folders(site)
    assert json.loads((jobs / "array.json").read_text())["cells"]
    assert "submitted" not in site.table("--launcher", "slurm", *FAST, *SLOW).stdout
    finish(site, 6)
    assert starts(site) == [1] * 6
    assert (jobs / "ids").read_text().strip().isdigit()  # the jobs told it


def test_source_edited_while_jobs_are_queued_changes_nothing(site, launcher, undisturbed):
    site.hold()  # two cells wait, four have no job yet
    process = site.start("table", "lab/main", "--launcher", launcher, *FAST, "--seeds", "3", "launcher.workers=2")
    wait_until(lambda: any(folder.joinpath("ids").exists() for folder in job_folders(site)), "submission")
    run = site.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace("rng.normal() +", "2 * rng.normal() +"))
    (site.root / "common" / "experiments" / "worker.py").write_text("raise RuntimeError('edited')\n")
    assert site.results() == {}
    site.release()
    assert process.wait(timeout=PATIENCE) == 0
    finish(site, 6)
    assert set(scores(site.results())) < set(scores(undisturbed))


@needs_slurm
def test_preempted_trainings_are_requeued_and_equal_the_uninterrupted_one(site, cluster, uninterrupted):
    site.hold(30, "school")
    submit(site, "slurm", *TRAINING, "launcher.partition=low", table="school/main")
    cells = sorted((site.root / "runs/school/cells").glob("*"))
    wait_until(lambda: all(steps(cell) > 5 for cell in cells), "training")
    every_core = f"--array=1-{cluster.cpus}"  # with what other tests have there, more than is free
    urgent = ("sbatch", "--parsable", "--partition=main", every_core, "--mem=16", "--output=/dev/null")
    job = cluster.slurm(*urgent, "--wrap=sleep 600").strip()
    wait_until(lambda: states(site, "school") == ["preempted"] * 2, "preemption")
    cluster.slurm("scancel", job)
    site.release("school")
    finish_school(site, 2)
    for cell in cells:
        assert school(cell) == uninterrupted
        assert json.loads((cell / "status").read_text())["attempt"] == 2
        assert not (cell / "checkpoint").exists()
    curves = [
        [json.loads(line)["step"] for line in (cell / "metrics.jsonl").read_text().splitlines()] for cell in cells
    ]
    assert list(range(60)) in curves  # of the cell with a checkpoint of its own: not one step twice
    assert not list((site.root / "runs/school/artifacts").glob("*.partial"))


def test_a_training_told_to_stop_by_submitits_signal_goes_on_where_it_was(site, uninterrupted):
    site.hold(30, "school")
    process = site.start("table", "school/main", "--rows", "plain", "--launcher", "submitit", *FAST, *TRAINING)
    cells = site.root / "runs/school/cells"
    wait_until(lambda: any(steps(cell) > 5 for cell in cells.glob("*")), "training")
    (cell,) = cells.glob("*")
    os.kill(json.loads((cell / "status").read_text())["pid"], signal.SIGUSR2)
    site.release("school")
    assert process.wait(timeout=PATIENCE) == 0
    finish_school(site, 1)
    assert school(cell) == uninterrupted
    assert json.loads((cell / "status").read_text())["attempt"] == 2


def steps(cell: Path) -> int:
    """Training steps logged so far."""
    log = cell / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def finish_school(checkout: Checkout, count: int, timeout: float = 180) -> None:
    results = checkout.root / "runs/school/cells"
    wait_until(lambda: len(list(results.glob("*/result.json"))) == count, f"{count} trainings", timeout)


@needs_slurm
def test_jobs_survive_a_restart_of_the_controller(site, cluster):
    site.hold()
    submit(site, "slurm", "--seeds", "3")
    wait_until(lambda: len(starts(site)) == 6, "running cells")
    # what slurmctld has not saved when it dies is lost to it: it would start them again; it saves every five seconds
    running, state = time.time(), cluster.folder / "state" / "job_state"
    wait_until(lambda: state.exists() and state.stat().st_mtime > running, "saved state")
    assert site.results() == {}
    cluster.control("restart-controller")
    site.release()
    finish(site, 6)
    assert starts(site) == [1] * 6
    assert site.table("--launcher", "slurm", *FAST, "--seeds", "3").returncode == 0


@needs_slurm
def test_at_its_time_limit_a_training_goes_on_and_what_cannot_says_so(over_limit):
    wait_until(lambda: (over_limit.root / "runs/lab").exists(), "submission")
    finish_school(over_limit, 1, timeout=600)
    (cell,) = (over_limit.root / "runs/school/cells").glob("*")
    assert json.loads((cell / "status").read_text())["attempt"] >= 2
    assert [json.loads(line)["step"] for line in (cell / "metrics.jsonl").read_text().splitlines()] == list(range(LONG))
    wait_until(lambda: "timed out" in states(over_limit, "lab"), "end of the cell without checkpoints")
    status = over_limit.repro("status", "lab").stdout
    assert "timed out" in status and "limit of 1 minutes" in status


@needs_slurm
def test_a_lost_node_is_noticed_and_its_cells_run_again(site, cluster):
    site.hold()
    submit(site, "slurm", "--seeds", "1")
    wait_until(lambda: len(starts(site)) == 2, "running cells")
    cluster.control("kill-node")
    for status in (site.root / "runs/lab/cells").glob("*/status"):  # on a real node they die with it
        os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    cluster.control("start-node")
    site.release()
    finish(site, 2)
    assert all(count >= 2 for count in starts(site))


@needs_slurm
def test_jobs_lost_without_a_trace_are_noticed_and_submitted_again(site, cluster):
    submit(site, "slurm", "launcher.options=['--begin=now+1hour']", "--seeds", "1")
    os.kill(int((cluster.folder / "slurmctld.pid").read_text()), signal.SIGKILL)
    assert "slurm does not answer" in site.repro("status").stdout
    shutil.rmtree(cluster.folder / "state")  # the controller forgets every job
    with open(cluster.folder / "slurm.conf", "a") as conf:
        conf.write("FirstJobId=5000\n")  # ids of the jobs before are known to slurmd, which would refuse them
    cluster.control("start")
    status = site.repro("status").stdout
    assert "2 lost" in status and "attempt 1 of 4" in status
    submit(site, "slurm", "--seeds", "1")
    finish(site, 2)
    (_, second) = job_folders(site)
    assert json.loads((second / "array.json").read_text())["attempts"] == [2, 2]


@needs_slurm
def test_an_allocation_too_small_says_why_and_retry_gives_more(site):
    site.hold()  # it lives until SLURM has looked at its memory
    small = ["launcher.min_minutes=5", "resources.memory_gb=0.02", "--seeds", "1", "--rows", "up"]
    done = site.table("--launcher", "slurm", "--wait", *small)
    assert done.returncode == 1
    assert "over its memory of 0.02 GB" in done.stdout, done.stdout + done.stderr
    assert "over its memory of 0.02 GB" in site.repro("status").stdout
    site.release()
    assert "submitted 1 cells" in site.repro("retry", "lab/main", "--memory-gb", "1").stdout
    finish(site, 1)


@needs_slurm
def test_what_slurm_refuses_is_one_line(site):
    done = site.table("--launcher", "slurm", "launcher.partition=nowhere", *FAST)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "invalid partition" in done.stderr.lower()
    assert "queued" not in site.repro("status").stdout
    submit(site, "slurm", "launcher.partition=short", "launcher.min_minutes=30", "--seeds", "1")
    reason = "asks for more minutes than the partition allows"  # once the scheduler has looked at the job
    wait_until(lambda: reason in site.repro("status").stdout, "reason", every=1)


@needs_slurm
def test_two_shells_at_once_submit_each_cell_once(site):
    both = [site.start("table", "lab/main", "--launcher", "slurm", *FAST, *SLOW) for _ in range(2)]
    ends = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    keys = [key for jobs in job_folders(site) for key in json.loads((jobs / "array.json").read_text())["cells"]]
    assert len(keys) == len(set(keys)) == 6
    finish(site, 6)
    assert starts(site) == [1] * 6


def test_every_paper_gives_scripts_at_paper_scale(tmp_path):
    for paper in catalogue.implemented():
        for name, scales in catalogue.tables(paper).items():
            if "paper" in scales:
                table = compose_table(f"{paper}/{name}", "paper", [f"paths.runs={tmp_path}", "launcher=slurm_gpu"])
                text = scripts(table, {table.store.record(cell.key): cell for cell in table.cells()})
                sizes = [int(last) + 1 for last in re.findall(r"--array=0-(\d+)%", text)]
                assert sum(sizes) == len({cell.key for cell in table.cells()}), f"{paper}/{name}"
                assert f"--cpus-per-task={table.resources.cpus}\n" in text


def test_without_slurm_the_error_names_the_other_launchers(site, tmp_path):
    bare = {"PATH": str(tmp_path), "SLURM_CONF": ""}
    done = site.table("--launcher", "slurm", **bare)
    assert done.returncode == 2
    assert "no SLURM here" in done.stderr and "--launcher local" in done.stderr
    assert "submitit" in site.repro("doctor", **bare).stdout
    assert job_folders(site) == []


@needs_slurm
def test_doctor_says_that_slurm_answers(site):
    assert "--launcher slurm submits to it" in site.repro("doctor").stdout
