"""`repro doctor`: what can run here at which scale, and the command that supplies what is missing."""

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from common.data.catalogue import all_datasets, dataset
from common.data.registry import how_to_get, missing
from common.experiments import catalogue
from common.experiments.compose import Table, compose_table
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT
from common.experiments.launch import core_count
from common.experiments.queues import require_slurm
from common.experiments.worker import memory_gb, versions
from common.models.checkpoints import find


@dataclass(frozen=True)
class Check:
    """One thing looked at: present or not, what was found, and the command that supplies it."""

    name: str
    present: bool
    found: str
    remedy: str = ""


def machine() -> list[Check]:
    """Processor, memory, accelerators, free disk."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    gpus = gpu_count()
    return [
        Check("cores", True, str(core_count())),
        Check("memory", memory_gb() >= 4, f"{memory_gb():.0f} GB", "tiny tables want 4 GB"),
        Check("free disk", free >= 2, f"{free:.0f} GB", "free at least 2 GB"),
        Check("GPU", gpus > 0, f"{gpus} NVIDIA" if gpus else "none", "only paper scale needs one"),
    ]


def gpu_count() -> int:
    """NVIDIA devices that the driver shows, without loading torch."""
    return sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))


def components(tracking_uri: str | None = None) -> list[Check]:
    """Optional packages and services, with the command that installs each."""

    def package(module: str, extra: str, what: str) -> Check:
        present = importlib.util.find_spec(module) is not None
        return Check(what, present, "installed" if present else "not installed", f"pip install -e '.[{extra}]'")

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    checks = [
        vllm(),
        package("faiss", "faiss", "faiss"),
        package("pytest", "dev", "test tools"),
        slurm(),
    ]
    if uri.startswith("http"):
        alive = _answers(uri)
        found = f"{uri} {'answers' if alive else 'does not answer'}"
        checks.append(Check("MLflow server", alive, found, "results are safe in runs/; `repro sync` catches up later"))
    else:
        checks.append(Check("MLflow", True, uri or "local SQLite file in the runs folder"))
    return checks


def slurm() -> Check:
    """SLURM, and with it the executor that `--launcher slurm` uses."""
    try:
        require_slurm()
    except UserError as error:
        found = str(error).split(":")[0]
        return Check("SLURM", False, found, "jobs on this machine, by submitit's local executor: --launcher submitit")
    return Check("SLURM", True, f"{shutil.which('sbatch')}; --launcher slurm submits to it")


def vllm() -> Check:
    """vLLM in this environment, or the one for CPUs beside it."""
    beside = ROOT / ".venv-vllm" / "bin" / "vllm"
    if importlib.util.find_spec("vllm") is not None:
        return Check("vLLM", True, "installed")
    if beside.exists():
        return Check("vLLM", True, f"for CPUs, in an environment of its own: {beside} serve ...")
    return Check("vLLM", False, "not installed", "on a GPU: pip install -e '.[vllm]'; on a CPU: make vllm")


def _answers(uri: str) -> bool:
    parts = urlsplit(uri)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2):
            return True
    except OSError:
        return False


def data_checks(data: Path | None) -> list[Check]:
    """Every registered data set, whether its files are at hand."""
    checks = []
    for name, entry in all_datasets().items():
        absent = missing(entry, data)
        note = " (non-commercial)" if entry.non_commercial else ""
        checks.append(Check(name + note, not absent, "here" if not absent else "missing", how_to_get(entry)))
    return checks


@dataclass(frozen=True)
class Obstacle:
    """What keeps a table from running, and the way out."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def obstacles(table: Table) -> list[Obstacle]:
    """What keeps a table from running; empty when it can run.

    On a cluster the login node need not have what the jobs ask for.
    """
    found = []
    for name in table.needs.data:
        if missing(dataset(name), table.data):
            found.append(Obstacle(f"data set {name}", how_to_get(dataset(name))))
    for name in table.needs.models:
        if not find(name).cached():
            found.append(Obstacle(f"model {name}", find(name).how_to_get()))
    if table.launcher.name == "slurm":
        return found
    nodes, gpus, memory = (table.most(need) for need in ("nodes", "gpus", "memory_gb"))
    if nodes > 1:
        remedy = "submit it to a cluster with --launcher slurm_multinode"
        found.append(Obstacle(f"{nodes:g} nodes a cell", remedy))
    if gpus > gpu_count():
        remedy = "run on a machine or cluster that has them"
        found.append(Obstacle(f"{gpus:g} GPU a cell, {gpu_count()} here", remedy))
    if memory > memory_gb():
        found.append(Obstacle(f"{memory:g} GB of memory", f"this machine has {memory_gb():.0f}"))
    return found


Found = dict[tuple[str, str], list[Obstacle]]  # (paper/table, scale) -> what keeps it from running here


def answer(tiny: Found) -> str:
    """In one line, whether the tiny tables can run here, and what is missing where they cannot."""
    lacking = [found for found in tiny.values() if found]
    if not lacking:
        return f"tiny tables: all {len(tiny)} can run here; nothing is missing for them"
    able = f"tiny tables: {len(tiny) - len(lacking)} of {len(tiny)} can run here; missing for the rest: "
    return able + "; ".join(sorted({one.what for found in lacking for one in found}))


def show() -> None:
    """Print the answer for tiny tables, then this machine, and for every table and scale what is missing here."""
    tables = [
        (f"{paper}/{table}", scale)
        for paper in catalogue.implemented()
        for table, scales in catalogue.tables(paper).items()
        for scale in scales
    ]
    with ProcessPoolExecutor(min(8, core_count())) as pool:  # to compose a table takes a fifth of a second
        begun = {each: pool.submit(_found, *each) for each in sorted(tables, key=lambda each: each[1] != "tiny")}
        click.secho(answer({each: begun[each].result() for each in tables if each[1] == "tiny"}), bold=True)
        found = {each: begun[each].result() for each in tables}
    click.secho("versions", bold=True)
    click.echo(
        "  " + ", ".join(f"{name} {version}" for name, version in versions().items()) + f" on {platform.platform()}"
    )
    _print("machine", machine())
    _print("components", components())
    data = os.environ.get("REPRO_DATA")
    click.secho(f"data sets that tables ask for (REPRO_DATA is {data or 'not set'})", bold=True)
    try:
        present = [check.name for check in data_checks(Path(data) if data else None) if check.present]
    except UserError as error:  # the mirror cannot be read
        click.echo(f"  {error}")
        present = [check.name for check in data_checks(None) if check.present]
    click.echo(f"  here: {', '.join(present) or 'none'}")
    _print_missing("data set ", found)
    click.secho("models that tables ask for", bold=True)
    _print_missing("model ", found)
    click.secho("tables that can run here", bold=True)
    for (name, scale), lacking in found.items():
        missing_here = f"   -> missing: {', '.join(one.what for one in lacking)}" if lacking else ""
        click.echo(f"  {'no ' if lacking else 'yes':<4}{name} --scale {scale}{missing_here}")


def _print_missing(kind: str, tables: Found) -> None:
    """A line for each thing of a kind that some table lacks, with the way to get it."""
    lacking = {one.what: one.remedy for found in tables.values() for one in found if one.what.startswith(kind)}
    for what, remedy in sorted(lacking.items()):
        click.echo(f"  missing {what.removeprefix(kind)}: {remedy}")
    if not lacking:
        click.echo("  nothing is missing")


def _print(title: str, checks: Sequence[Check]) -> None:
    click.secho(title, bold=True)
    for check in checks:
        remedy = f"   -> {check.remedy}" if not check.present and check.remedy else ""
        click.echo(f"  {'yes' if check.present else 'no ':<4}{check.name:<14}{check.found}{remedy}")


def _found(name: str, scale: str) -> list[Obstacle]:
    try:
        return obstacles(compose_table(name, scale))
    except UserError as error:
        return [Obstacle(str(error), "")]
