"""Speed and size of a bank of dense memories: `python -m tests.benchmarks.bank [--write]`.

100,000 memories by default (`--memories N`), of m = 8 vectors of 128 numbers as at the tiny scale of CMT; random keys.
Seconds of CPU time with one thread (`OMP_NUM_THREADS=1`). Exits with 1 where a search is more than 10% slower than
faiss called directly; the same by torch stands beside.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from common.memory.dense_bank import FILE, MARGIN, DenseBank
from tests.benchmarks.report import write_section

SOFT, WIDTH = 8, 128
AT_A_TIME = 1000  # memories
QUERIES, K, ROUNDS = 64, 4, 7
SLOWER = 1.10


def seconds(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of the fastest of several runs."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def filled(count: int, keys: np.ndarray) -> DenseBank:
    bank, rng = DenseBank(), np.random.default_rng(1)
    memories = rng.standard_normal((AT_A_TIME, SOFT, WIDTH), np.float32)
    for start in range(0, count, AT_A_TIME):
        part = keys[start : start + AT_A_TIME]
        bank.append([f"text {start + i}" for i in range(len(part))], part, memories[: len(part)])
    return bank


def measure(count: int) -> tuple[list[str], bool]:
    """Rows of the table, and whether a search was too slow."""
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((count, WIDTH), np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries = keys[rng.integers(0, count, QUERIES)] + rng.standard_normal((QUERIES, WIDTH), np.float32) / 8
    start = time.process_time()
    bank = filled(count, keys)
    built = time.process_time() - start
    search = seconds(lambda: bank.search(queries, K))
    one = seconds(lambda: bank.search(queries[:1], K))
    direct = seconds(lambda: faiss.knn(queries, keys, K + MARGIN, metric=faiss.METRIC_INNER_PRODUCT))
    by_torch = seconds(lambda: (torch.from_numpy(queries) @ torch.from_numpy(keys).T).topk(K + MARGIN))
    rows = bank.search(queries, K)[1]
    assert (rows == (queries @ keys.T).argsort(1)[:, : -K - 1 : -1]).mean() > 0.99
    with tempfile.TemporaryDirectory() as folder:
        save = seconds(lambda: bank.save(Path(folder)), 1)
        size = (Path(folder) / FILE).stat().st_size
        load = seconds(lambda: DenseBank.load(Path(folder)), 1)
        again = DenseBank.load(Path(folder))
        first = seconds(lambda: again.memories(again.search(queries, K)[1]), 1)
        assert (again.search(queries, K)[1] == rows).all()
    lines = [
        f"| append, {AT_A_TIME:,} at a time | {built:.2f} |",
        f"| search, {QUERIES} queries | {search:.3f} |",
        f"| the best {K + MARGIN} of each by faiss alone | {direct:.3f} |",
        f"| by torch alone: all products, their best | {by_torch:.3f} |",
        f"| search, 1 query | {one:.4f} |",
        f"| save | {save:.2f} |",
        f"| load | {load:.2f} |",
        f"| first search after it, with the memories found | {first:.3f} |",
    ]
    sizes = f"{bank.bytes / 1e6:.1f} MB in memory, {bank.bytes / count:,.0f} bytes a memory; file {size / 1e6:.1f} MB"
    return [sizes, *lines], search > SLOWER * direct


def main() -> None:
    count = int(sys.argv[sys.argv.index("--memories") + 1]) if "--memories" in sys.argv else 100_000
    (size, *lines), slow = measure(count)
    table = "\n".join(["| what | CPU seconds |", "|---|---|", *lines])
    print(size, table, sep="\n")
    if "--write" in sys.argv:
        body = f"{count:,} memories of {SOFT} x {WIDTH} numbers, exact index: {size}. Best of {ROUNDS} searches.\n\n"
        write_section("Bank of dense memories", "tests.benchmarks.bank", body + table)
    sys.exit("over budget: search" if slow else 0)


if __name__ == "__main__":
    main()
