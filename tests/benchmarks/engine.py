"""Speed of the engine against its budgets: `make bench`, or `python -m tests.benchmarks.engine --write`.

Prints the median of several runs beside each budget and exits with 1 when one is missed. With `--write` the
figures go to reports/performance.md with the machine and the versions.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common.experiments.jobs import Array
from common.experiments.records import Store
from tests.benchmarks.report import write_section
from tests.conftest import Checkout, make_checkout

RUNS = 5


def median_seconds(action: Callable[[], subprocess.CompletedProcess[str]], runs: int = RUNS) -> float:
    """Median wall time of `action`, after one run that is not counted."""
    _succeed(action)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        _succeed(action)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _succeed(action: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    done = action()
    assert done.returncode == 0, done.stderr


def ten_thousand_cells(checkout: Checkout) -> None:
    """Fake records: a manifest of 10,000 cells that were submitted in arrays, with what `status` reads of each."""
    store = Store(checkout.root / "runs", "big")
    cells = [{"row": f"r{i % 100}", "column": "c", "seed": i // 100, "key": f"{i:012d}-c0de"} for i in range(10_000)]
    for i, cell in enumerate(cells):
        folder = store.record(str(cell["key"])).folder
        folder.mkdir(parents=True)
        (folder / "status").write_text('{"state": "done"}')
        if i % 100:  # one in a hundred is running: its lock is looked at
            (folder / "result.json").write_text('{"metrics": {"score": 1.0}}')
        else:
            (folder / "status").write_text('{"state": "running"}')
    for start in range(0, len(cells), 1000):
        keys = {str(cell["key"]): 1 for cell in cells[start : start + 1000]}
        needs = {"resources": {"cpus": 1, "gpus": 0, "memory_gb": 1}, "minutes": 10, "profile": {"retries": 3}}
        array = Array.new(store, keys, queue="slurm", table="big/t", code="", data=None, **needs)
        array.write()
        array.write_ids([str(start)])
    rows = [f"r{i}" for i in range(100)]
    head = {"paper": "big", "table": "t", "scale": "tiny", "title": "", "kind": "table", "overrides": []}
    store.write_manifest("t.tiny", {**head, "rows": rows, "columns": ["c"]}, cells)


def overhead_per_cell(checkout: Checkout) -> float:
    """Wall seconds per trivial cell of a table with one worker, beyond a table of two such cells."""

    def seconds(seeds: int) -> float:
        start = time.perf_counter()
        done = checkout.table(
            "--workers", "1", "--seeds", str(seeds), "settings.steps=1", f"settings.seconds=1.0e-{seeds + 9}"
        )
        assert done.returncode == 0, done.stderr
        return time.perf_counter() - start

    few, many = seconds(1), seconds(101)
    return (many - few) / 200


def measure() -> list[tuple[str, float, float]]:
    """(what, seconds, budget in seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = make_checkout(Path(folder) / "checkout")
        (checkout.root / "configs" / "tracking" / "local.yaml").write_text('uri: "off"\n')
        figures = [
            ("`repro --help`", median_seconds(lambda: checkout.repro("--help")), 0.5),
            ("`repro list`", median_seconds(lambda: checkout.repro("list")), 0.5),
        ]
        checkout.table()
        figures.append(("a finished table again", median_seconds(checkout.table), 2.0))
        figures.append(("overhead per trivial cell", overhead_per_cell(checkout), 0.1))
        ten_thousand_cells(checkout)
        figures.append(("`repro status` over 10,000 cells", median_seconds(lambda: checkout.repro("status")), 1.0))
    return figures


def main() -> None:
    figures = measure()
    lines = ["| what | seconds (median) | budget |", "|---|---|---|"]
    lines += [f"| {what} | {seconds:.3f} | {budget:g} |" for what, seconds, budget in figures]
    print("\n".join(lines))
    if "--write" in sys.argv:
        body = f"Whole commands, median of {RUNS} runs.\n\n" + "\n".join(lines)
        write_section("Engine", "tests.benchmarks.engine", body)
    missed = [what for what, seconds, budget in figures if seconds > budget]
    sys.exit(f"over budget: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
