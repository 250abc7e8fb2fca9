"""A real SLURM of one node for tests: started in a folder of its own, stopped at the end."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.experiments.records import Record
from tests.conftest import LAB, ROOT, Checkout, make_checkout

SCRIPT = ROOT / "slurm" / "local_cluster.sh"
SCHOOL = LAB.parent / "school"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ABSENT = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `environment` points a command at it."""

    folder: Path
    cpus: int

    def state(self) -> str:
        """Jobs and nodes with SLURM's reasons, and the end of the logs."""
        asked = (("squeue", "--format=%A %K %P %T %M %r"), ("sinfo", "--format=%n %T %E"))
        logs = (("tail", "-n", "25", str(self.folder / f"{name}.log")) for name in ("slurmctld", "slurmd"))
        environment = os.environ | self.environment
        return "\n".join(
            subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60).stdout
            for command in (*asked, *logs)
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def control(self, command: str) -> None:
        """A command of local_cluster.sh."""
        done = subprocess.run([SCRIPT, command, self.folder], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr

    def slurm(self, *command: str) -> str:
        """Output of a SLURM command."""
        environment = os.environ | self.environment
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60).stdout


RUNNING: list[Cluster] = []


@contextmanager
def running_cluster(cpus: int = 8) -> Iterator[Cluster]:
    """A node that claims `cpus` cores: its cells mostly sleep."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # the path of a socket is short
    cluster = Cluster(folder, cpus)
    environment = os.environ | {"CPUS": str(cpus)}
    try:
        subprocess.run([SCRIPT, "start", folder], check=True, capture_output=True, env=environment, timeout=240)
        RUNNING.append(cluster)
        yield cluster
    finally:
        RUNNING[:] = [other for other in RUNNING if other is not cluster]
        subprocess.run([SCRIPT, "stop", folder], check=True, timeout=240)
        shutil.rmtree(folder)


def make(path: Path, **environment: str) -> Checkout:
    """A checkout with the laboratory and the school, without MLflow."""
    made = make_checkout(path)
    (made.root / "configs" / "tracking" / "local.yaml").write_text('uri: "off"\n')
    shutil.copytree(SCHOOL / "project", made.root / "projects" / "school")
    shutil.copytree(SCHOOL / "configs", made.root / "configs" / "table" / "school")
    return Checkout(made.root, made.environment | environment)


def end_jobs(cluster: Cluster, checkout: Checkout) -> None:
    """End the jobs that were submitted from a checkout."""
    jobs = cluster.slurm("squeue", "--noheader", "--format=%A %Z").splitlines()
    mine = {job for job, _, folder in (line.partition(" ") for line in jobs) if folder == str(checkout.root)}
    if mine:
        cluster.slurm("scancel", *mine)


def states(checkout: Checkout, paper: str) -> list[str]:
    """What the cells' own files say of them; to wait for, cheaper than `repro status`."""
    return [str(Record(cell).status()["state"]) for cell in (checkout.root / "runs" / paper / "cells").glob("*")]


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 180, every: float = 0.1) -> None:
    """Wait for `condition`, asked `every` so many seconds; where it does not come, say what the clusters were doing."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([f"no {what} after {timeout} s", *map(Cluster.state, RUNNING)]))
        time.sleep(every)
