"""Texts a second of the packaged sentence encoder and of the cache: `python -m tests.benchmarks.encoders`.

Rates are the best of `RUNS`: what the code can do, not what else the machine did. With `--write` the table goes to
reports/performance.md.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common.models.embedding_cache import CachedEncoder
from common.models.encoders import HashedWords, build
from tests.benchmarks.report import write_section

RUNS = 5
WORDS = ("state", "memory", "after", "each", "passage", "that", "agent", "read", "city", "river", "letter")


def texts(count: int, words: int) -> list[str]:
    """Distinct texts of that many common words (each about one word piece)."""
    return [" ".join([str(i), *(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(words - 1))]) for i in range(count)]


def rate(count: int, action: Callable[[int], object]) -> float:
    """Items a second of the fastest `action(run)`, after one run that is not counted."""
    seconds = []
    for run in range(RUNS + 1):
        start = time.perf_counter()
        action(run)
        seconds.append(time.perf_counter() - start)
    return count / min(seconds[1:])


def measure() -> Iterator[tuple[str, float]]:
    """(what, texts a second) as they are measured."""
    import torch

    encoder = build("minilm", device="cpu")
    questions, passages = texts(256, 12), texts(64, 100)
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        cores = f"{threads} core{'s' * (threads > 1)}"
        yield f"MiniLM, questions of 12 words, {cores}", rate(len(questions), lambda _: encoder.encode(questions))
        yield f"MiniLM, passages of 100 words, {cores}", rate(len(passages), lambda _: encoder.encode(passages))
    yield "MiniLM, questions one by one", rate(32, lambda _: [encoder.encode([text]) for text in questions[:32]])
    with tempfile.TemporaryDirectory() as folder:
        many, cheap = texts(20_000, 12), HashedWords(384)

        def fill(run: int) -> None:
            CachedEncoder(cheap, Path(folder) / str(run)).encode(many)

        yield "hashed words, 12 words", rate(len(many), lambda _: cheap.encode(many))
        yield "hashed words, into an empty cache", rate(len(many), fill)
        known = rate(len(many), lambda _: CachedEncoder(cheap, Path(folder) / "0").encode(many))
        yield "a cache of 20,000 known texts, opened anew", known


def main() -> None:
    lines = ["| what | texts a second |", "|---|---|"]
    for what, found in measure():
        lines.append(f"| {what} | {found:,.0f} |")
        print(lines[-1], flush=True)
    if "--write" in sys.argv:
        write_section("Sentence encoder", "tests.benchmarks.encoders", "\n".join(lines))


if __name__ == "__main__":
    main()
