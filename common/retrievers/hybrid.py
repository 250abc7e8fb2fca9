"""Several retrievers as one, by reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009).

RRF(d) = Σ_r 1 / (k + rank_r(d)),    ranks from 1, k = 60 in the paper
"""

import math
from collections.abc import Sequence
from pathlib import Path

from common.retrievers.passage_ids import PassageIds
from common.retrievers.retriever import Hits, Retriever, check_search, no_hits
from common.retrievers.storage import saving

SMOOTHING = 60


def reciprocal_ranks(rankings: Sequence[Sequence[str]], smoothing: float = SMOOTHING) -> dict[str, float]:
    """RRF of everything that at least one ranking holds, in no order; what a ranking lacks gets nothing from it."""
    parts: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            parts.setdefault(name, []).append(1 / (smoothing + rank))
    return {name: math.fsum(shares) for name, shares in parts.items()}  # fsum: whatever the order of the retrievers


class HybridRetriever:
    """A `Retriever` that fuses the rankings of others, which it keeps alike.

    Args:
        retrievers: at least one, all empty or with the same passages.
        depth: how far down each ranking counts (at least k).
        smoothing: the paper's k.

    Raises:
        ValueError: no retriever, or retrievers with different passages; `depth` below 1 or `smoothing` below 0.
    """

    def __init__(self, retrievers: Sequence[Retriever], depth: int = 100, smoothing: float = SMOOTHING) -> None:
        if not retrievers:
            raise ValueError("a hybrid needs at least one retriever")
        if depth < 1 or smoothing < 0:
            raise ValueError(f"depth must be at least 1 and smoothing at least 0, not {depth} and {smoothing}")
        self.retrievers, self.depth, self.smoothing = tuple(retrievers), depth, smoothing
        names = retrievers[0].ids
        if any(retriever.ids != names for retriever in retrievers[1:]):
            raise ValueError("the retrievers of a hybrid must hold the same passages in the same order")
        self._ids = PassageIds()
        self._ids.append(names)

    @property
    def ids(self) -> list[str]:
        return self._ids.living()

    def __len__(self) -> int:
        return len(self._ids)

    def build(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        """As `Retriever.build`. When one of the retrievers fails midway, all are left empty."""
        PassageIds.check_build(ids, passages)
        try:
            for retriever in self.retrievers:
                retriever.build(ids, passages)
        except BaseException:
            for retriever in self.retrievers:
                retriever.build([], [])
            self._ids = PassageIds()
            raise
        self._ids = PassageIds()
        self._ids.append(ids)

    def add(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        self._ids.check(ids, passages)
        done: list[Retriever] = []
        try:
            for retriever in self.retrievers:
                retriever.add(ids, passages)
                done.append(retriever)
        except BaseException:
            for retriever in done:
                retriever.delete(ids)
            raise
        self._ids.append(ids)

    def delete(self, ids: Sequence[str]) -> None:
        self._ids.remove(ids)
        for retriever in self.retrievers:
            retriever.delete(ids)
        if 2 * len(self._ids) < self._ids.rows:
            self._ids.compact()

    def search(self, queries: Sequence[str], k: int) -> Hits:
        check_search(queries, k)
        hits = no_hits(len(queries), min(k, len(self)))
        if not hits.ids.size:
            return hits
        found = [retriever.search(queries, max(self.depth, k)).rankings() for retriever in self.retrievers]
        for i, rankings in enumerate(zip(*found, strict=True)):
            fused = reciprocal_ranks(rankings, self.smoothing)
            best = sorted(fused, key=lambda name: (-fused[name], self._ids.row(name)))[:k]
            hits.ids[i, : len(best)] = best
            hits.scores[i, : len(best)] = [fused[name] for name in best]
        return hits

    def save(self, folder: Path) -> None:
        about = {
            "kind": "hybrid",
            "retrievers": len(self.retrievers),
            "depth": self.depth,
            "smoothing": self.smoothing,
        }
        with saving(folder, about) as fresh:
            for number, retriever in enumerate(self.retrievers):
                retriever.save(fresh / str(number))
