"""What a cell costs beside its own work, on SLURM and by the local launcher: `python -m tests.benchmarks.slurm`.

200 cells of no work on a one-node SLURM of this machine (slurm/local_cluster.sh), as many at a time as the local
launcher has workers. With `--write` the table goes to reports/performance.md.
"""

import sys
import tempfile
import time
from pathlib import Path

from common.experiments.launch import core_count
from tests.benchmarks.report import write_section
from tests.conftest import Checkout
from tests.integration.slurm_cluster import ABSENT, make, running_cluster

SEEDS = 100  # of two rows


def seconds(checkout: Checkout, seeds: int, *arguments: str) -> float:
    """Wall seconds of a whole `repro table` whose cells do nothing."""
    start = time.perf_counter()
    process = checkout.start("table", "lab/main", "--seeds", str(seeds), "settings.steps=1", *arguments)
    out, err = process.communicate(timeout=3600)
    assert process.returncode == 0, out + err
    return time.perf_counter() - start


def overhead(folder: Path, name: str, rounds: int, environment: dict[str, str], *arguments: str) -> tuple[float, float]:
    """Least seconds of all 200 cells, and of one of them: what they take beyond a table of two cells."""
    least = []
    for seeds, times in ((1, 3), (SEEDS, rounds)):
        made = [make(folder / f"{name}-{seeds}-{number}", **environment) for number in range(times)]
        least.append(min(seconds(checkout, seeds, *arguments) for checkout in made))
    few, many = least
    return many, (many - few) / (2 * SEEDS - 2)


def main() -> None:
    if ABSENT:
        sys.exit(f"no SLURM here: {', '.join(ABSENT)} missing")
    cores = core_count()
    with tempfile.TemporaryDirectory() as root, running_cluster(cores) as cluster:
        folder, options = Path(root), ["--launcher", "slurm", "--wait", "resources.memory_gb=0.5"]
        local = overhead(folder, "local", 3, {}, "--workers", str(cores))
        slurm = overhead(folder, "slurm", 1, cluster.environment, *options)
    lines = ["| launcher | 200 cells, seconds | overhead a cell, seconds |", "|---|---|---|"]
    lines += [f"| {name} | {all_:.0f} | {each:.3f} |" for name, (all_, each) in (("local", local), ("SLURM", slurm))]
    print("\n".join(lines))
    if "--write" in sys.argv:
        body = (
            f"200 cells without work, {cores} at a time, from an empty runs folder to the report. A SLURM job starts "
            "an interpreter of its own for each cell, the local launcher keeps its workers. Overhead: beyond a table of"
            " two cells (best of 3), divided by the further cells (local: best of 3).\n\n" + "\n".join(lines)
        )
        write_section("Launchers", "tests.benchmarks.slurm", body)


if __name__ == "__main__":
    main()
