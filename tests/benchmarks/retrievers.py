"""Speed of the retrievers beside bm25s and faiss called directly: `python -m tests.benchmarks.retrievers [--write]`.

Seconds are of CPU time with one thread (`OMP_NUM_THREADS=1`), so that what else the machine does counts little; ratios
are between runs that take turns, by the best of `ROUNDS`.
The corpus is text-world passages, 100,000 by default (`--passages N`); vectors are random around centres, so that no
encoder is timed. Exits with 1 when BM25 takes more than a minute, or a search is more than 10% slower than the direct
call.
"""

import sys
import time
from collections.abc import Callable
from random import Random

import bm25s
import faiss
import numpy as np

from common.data.text_world.text import corpus
from common.data.text_world.world import Dials, make_world
from common.retrievers.analysis import words
from common.retrievers.bm25 import BM25
from common.retrievers.dense import DenseRetriever
from common.retrievers.vector_index import HNSW, IVF, Exact, VectorIndex
from tests.benchmarks.report import write_section

ROUNDS = 7
DIMENSION = 384
K = 10
BUDGET = 60.0  # seconds for BM25, build and search
SLOWER = 1.10


class Given:
    """An encoder that was told its vectors: the text `17` is row 17, a query that of another array."""

    name, revision, dimension = "given", "1", DIMENSION

    def __init__(self, passages: int, queries: int) -> None:
        self.settings: dict[str, str | int | bool] = {}
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((500, DIMENSION), np.float32)
        self.arrays = {}
        for role, count in (("passage", passages), ("query", queries)):
            found = centres[rng.integers(0, 500, count)] + rng.standard_normal((count, DIMENSION), np.float32)
            self.arrays[role] = found / np.linalg.norm(found, axis=1, keepdims=True)

    def encode(self, texts: list[str], role: str = "passage") -> np.ndarray:
        return self.arrays[role][np.array(texts, np.int64)].reshape(len(texts), DIMENSION)


def take_turns(*actions: Callable[[], object]) -> list[float]:
    """Seconds of the fastest run of each, after one that is not counted."""
    best = [float("inf")] * len(actions)
    for round in range(ROUNDS + 1):
        for i, action in enumerate(actions):
            start = time.process_time()
            action()
            if round:
                best[i] = min(best[i], time.process_time() - start)
    return best


def passages_and_queries(count: int) -> tuple[list[str], list[str]]:
    """Text-world passages over a world of many names, and 100 queries of six words of a passage."""
    world = make_world(1, "test", Dials(people=max(40, count // 20), cities=200, companies=200, middles=2))
    texts = [passage.text for passage in corpus(Random(1), world, count)]
    rng = Random(2)
    queries = [" ".join(rng.choices(words(text), k=6)) for text in rng.sample(texts, 100)]
    return texts, queries


def measure_bm25(count: int) -> tuple[list[str], list[str]]:
    """Lines of the table, and what is over budget."""
    texts, queries = passages_and_queries(count)
    ids = [str(i) for i in range(count)]
    retriever = BM25()
    start = time.process_time()
    retriever.build(ids, texts)
    retriever.search(queries, K)
    ours = time.process_time() - start
    start = time.process_time()
    direct = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    direct.index([words(text) for text in texts], show_progress=False)
    direct.retrieve([words(query) for query in queries], k=K, show_progress=False)
    theirs = time.process_time() - start
    retriever.add(["one more"], ["one more passage"])
    start = time.process_time()
    retriever.search(queries[:1], K)
    again = time.process_time() - start
    many, many_direct = take_turns(
        lambda: retriever.search(queries, K),
        lambda: direct.retrieve([words(query) for query in queries], k=K, show_progress=False),
    )
    lines = [
        _line(f"BM25, build and search {count:,} passages", ours, theirs),
        _line("BM25, first search after one more passage", again, None),
        _line("BM25, 100 queries", many, many_direct),
    ]
    return lines, ([] if ours <= BUDGET else ["BM25, build and search"]) + _over("BM25", many, many_direct)


def measure_dense(count: int) -> tuple[list[str], list[str]]:
    """As `measure_bm25`, for each index."""
    encoder = Given(count, 500)
    names, queries = [str(i) for i in range(count)], [str(i) for i in range(500)]
    lines, over = [], []
    for title, index in _indexes():
        start = time.process_time()
        retriever = DenseRetriever(encoder, index)
        retriever.build(names, names)
        built = time.process_time() - start
        direct = _direct(index, encoder)
        batch, alone = queries if title != "exact" else queries[:100], queries[:50]

        def ours(texts: list[str], retriever: DenseRetriever = retriever) -> object:
            return retriever.search(texts, K)

        def theirs(texts: list[str], direct: "faiss.Index" = direct) -> object:
            return direct.search(encoder.encode(texts, "query"), K)

        lines.append(_line(f"dense, {title}, build {count:,} vectors of {DIMENSION}", built, None))
        many, many_direct = take_turns(lambda t=batch: ours(t), lambda t=batch: theirs(t))
        lines.append(_line(f"dense, {title}, {len(batch)} queries at once", many, many_direct))
        one, one_direct = take_turns(
            lambda t=alone: [ours([text]) for text in t], lambda t=alone: [theirs([text]) for text in t]
        )
        lines.append(_line(f"dense, {title}, {len(alone)} queries one by one", one, one_direct))
        over += _over(f"dense, {title}", many, many_direct)
    return lines, over


def _indexes() -> list[tuple[str, VectorIndex]]:
    return [("exact", Exact("cpu")), ("IVF", IVF(device="cpu")), ("HNSW", HNSW())]


def _direct(index: VectorIndex, encoder: Given) -> "faiss.Index":
    """The same index as faiss alone has it."""
    if isinstance(index, Exact):
        flat = faiss.IndexFlatIP(DIMENSION)
        flat.add(encoder.arrays["passage"])
        return flat
    return index._index  # type: ignore[attr-defined]


def _line(what: str, ours: float, direct: float | None) -> str:
    beside = "| |" if direct is None else f"{direct:.3f} | {ours / direct:.2f} |"
    return f"| {what} | {ours:.3f} | {beside}"


def _over(what: str, ours: float, direct: float) -> list[str]:
    return [what] if ours > SLOWER * direct else []


def main() -> None:
    count = int(sys.argv[sys.argv.index("--passages") + 1]) if "--passages" in sys.argv else 100_000
    lines, over = ["| what | CPU seconds | called directly | ratio |", "|---|---|---|---|"], []
    for part in (measure_bm25, measure_dense):
        more, missed = part(count)
        lines, over = lines + more, over + missed
        print("\n".join(more), flush=True)
    if "--write" in sys.argv:
        body = (
            f"Best of {ROUNDS} rounds in which ours and the direct call take turns, {K} hits a query, faiss with "
            f"{faiss.omp_get_max_threads()} thread(s); builds once. Budget: BM25 within {BUDGET:.0f} s, batches within "
            f"{100 * (SLOWER - 1):.0f}% of bm25s {bm25s.__version__} and faiss {faiss.__version__} called directly. "
            "bm25s and faiss leave the order of equal scores open, give no ids, and index no changes.\n\n"
        )
        write_section("Retrievers", "tests.benchmarks.retrievers", body + "\n".join(lines))
    sys.exit(f"over budget: {', '.join(over)}" if over else 0)


if __name__ == "__main__":
    main()
