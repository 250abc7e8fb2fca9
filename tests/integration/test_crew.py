"""Cells of several processes, on this machine and as tasks of a real SLURM: ranks that train together, and a server."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.models.serving import vllm_program
from tests.conftest import LAB, Checkout
from tests.integration.slurm_cluster import ABSENT, Cluster, end_jobs, make, running_cluster, states, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

CREW = LAB.parent / "crew"
SLURM = ["--launcher", "slurm", "launcher.min_minutes=10", "resources.tasks=2"]
PATIENCE = 480  # seconds
needs_slurm = pytest.mark.skipif(bool(ABSENT), reason=f"no SLURM here: {', '.join(ABSENT)} missing")
needs_vllm = pytest.mark.skipif(vllm_program() is None, reason="no vLLM: `make vllm` was not run, or failed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(cpus=4) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Checkout]:
    """A checkout whose commands see the cluster, where there is one; its jobs end with the test."""
    cluster = None if ABSENT else request.getfixturevalue("cluster")
    made = checkout(tmp_path, **(cluster.environment if cluster else {}))
    yield made
    if cluster:
        end_jobs(cluster, made)


def checkout(folder: Path, **environment: str) -> Checkout:
    made = make(folder / "checkout", **environment)
    shutil.copytree(CREW / "project", made.root / "projects" / "crew")
    shutil.copytree(CREW / "configs", made.root / "configs" / "table" / "crew")
    return made


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """Figures of the local launcher, by number of ranks."""
    made = checkout(tmp_path_factory.mktemp("here"))
    found = {}
    for tasks in (1, 2):
        code, told = table(made, "settings.steps=40", f"resources.tasks={tasks}")
        assert code == 0, told
        found[tasks] = next(metrics for metrics in results(made) if metrics["ranks"] == tasks)
    return found


def table(made: Checkout, *arguments: str) -> tuple[int, str]:
    """Exit status and output of the whole table; alone on two cores it takes seconds."""
    process = made.start("table", "crew/main", *arguments)
    out, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, out + errors


def results(made: Checkout) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["metrics"] for path in (made.root / "runs/crew/cells").glob("*/result.json")]


def steps(made: Checkout) -> int:
    """Training steps logged so far."""
    logs = (made.root / "runs/crew/cells").glob("*/metrics.jsonl")
    return sum(len(log.read_text().splitlines()) for log in logs)


def test_two_ranks_give_the_figures_of_one(here):
    assert here[2]["loss"] == pytest.approx(here[1]["loss"], rel=1e-4)
    assert (here[1]["ranks"], here[2]["ranks"]) == (1, 2)


@needs_slurm
def test_two_tasks_of_slurm_give_the_figures_of_two_processes_to_the_bit(site, here):
    code, told = table(site, "--wait", *SLURM, "settings.steps=40")
    assert code == 0, told
    assert results(site) == [{**here[2], "tasks": 0 + 1}]


@needs_slurm
def test_a_preempted_training_goes_on_in_two_tasks_and_equals_the_uninterrupted_one(site, cluster, here):
    site.hold(20, "crew")
    _, told = table(site, *SLURM, "settings.steps=40", "launcher.partition=low")
    assert "submitted" in told
    wait_until(lambda: steps(site) > 5, "training", PATIENCE)
    cluster.slurm("sbatch", "--partition=main", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1")
    wait_until(lambda: "preempted" in states(site, "crew"), "preemption")
    assert 5 < steps(site) <= 21
    site.release("crew")
    wait_until(lambda: bool(results(site)), "result", PATIENCE)
    assert results(site) == [{**here[2], "tasks": 0 + 1}]
    (cell,) = (site.root / "runs/crew/cells").glob("*")
    assert json.loads((cell / "status").read_text())["attempt"] == 2


@needs_slurm
@pytest.mark.parametrize(
    ("how", "line"), [("raise", "ArithmeticError: two and two are five"), ("die", "died (SIGKILL)")]
)
def test_a_task_that_fails_ends_its_cell_with_the_reason(site, how, line):
    code, told = table(site, "--wait", *SLURM, f"settings.fail={how}")
    assert code == 1 and f"rank 1 of 2: {line}" in told, told
    told = site.repro("logs", "crew/main/plain/0", "-n", "100").stdout
    assert how == "die" or "in in_each_rank" in told


@needs_slurm
@needs_vllm
def test_a_job_serves_a_model_uses_it_and_ends_it(site):
    _, told = table(site, "--launcher", "slurm", "settings.work=serve", "resources.memory_gb=8")
    assert "submitted" in told
    wait_until(lambda: bool(results(site)) or "failed" in states(site, "crew"), "result", PATIENCE)
    assert [metrics["score"] for metrics in results(site)] == [1], site.repro("logs", "crew/main/plain/0").stdout
    wait_until(lambda: not servers(site), "end of the server")


def servers(made: Checkout) -> list[int]:
    """Processes that serve, or compute for a server, started in this checkout."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes().lower()
        except OSError:
            continue
        if str(made.root).encode() in variables and b"vllm" in command and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
