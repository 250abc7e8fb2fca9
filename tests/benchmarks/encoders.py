"""Texts a second of the packaged sentence encoder and of the cache: `python -m tests.benchmarks.encoders`.

Seconds are those of the processor, on one thread, and rates the best of `RUNS`: what the code can do, not what else the
machine did. Each rate but the first is also given as a multiple of another. With `--write` the table goes to
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
        start = time.process_time()
        action(run)
        seconds.append(time.process_time() - start)
    return count / min(seconds[1:])


def measure() -> Iterator[tuple[str, float, str]]:
    """(what, texts a second, what to compare it with) as they are measured; the first has no other."""
    import torch

    encoder = build("minilm", device="cpu")
    questions, passages = texts(256, 12), texts(64, 100)
    torch.set_num_threads(1)
    asked = "MiniLM, questions of 12 words"
    yield asked, rate(len(questions), lambda _: encoder.encode(questions)), ""
    yield "MiniLM, passages of 100 words", rate(len(passages), lambda _: encoder.encode(passages)), asked
    yield "MiniLM, the questions one by one", rate(32, lambda _: [encoder.encode([q]) for q in questions[:32]]), asked
    with tempfile.TemporaryDirectory() as folder:
        many, cheap = texts(20_000, 12), HashedWords(384)

        def fill(run: int) -> None:
            CachedEncoder(cheap, Path(folder) / str(run)).encode(many)

        hashed = "hashed words, questions of 12 words"
        yield hashed, rate(len(many), lambda _: cheap.encode(many)), asked
        yield "the same into an empty cache", rate(len(many), fill), hashed
        known = rate(len(many), lambda _: CachedEncoder(cheap, Path(folder) / "0").encode(many))
        yield f"{len(many):,} known ones from a cache, opened anew", known, asked


def main() -> None:
    lines = ["| what | texts a second of one core | |", "|---|---|---|"]
    rates: dict[str, float] = {}
    for what, found, other in measure():
        rates[what] = found
        times = found / rates[other] if other else 1
        ratio = f"{times:,.{0 if times >= 10 else 2}f} × {other}" if other else ""
        lines.append(f"| {what} | {found:,.0f} | {ratio} |")
        print(lines[-1], flush=True)
    if "--write" in sys.argv:
        write_section("Sentence encoder", "tests.benchmarks.encoders", "\n".join(lines))


if __name__ == "__main__":
    main()
