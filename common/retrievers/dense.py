"""Dense retrieval: the passages whose vectors have the largest inner product with the query's.

The score of a pair is computed from its two vectors alone, in one way, whatever index or device proposed it: libraries
sum in an order that depends on the batch and on the place in memory, so their last digits would let equal passages
trade places. Candidates are asked for until no passage outside of them can belong to the best k.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError
from common.models.encoders import Encoder, Role
from common.retrievers.passage_ids import PassageIds
from common.retrievers.retriever import Hits, check_search, no_hits
from common.retrievers.storage import Rows, read_about, read_array, saving, write_array
from common.retrievers.vector_index import Exact, VectorIndex, Vectors

MARGIN = 8  # candidates beyond k
BATCH = 512  # queries at a time
PRODUCTS = 2**22  # numbers at a time in `pair_scores`


class DenseRetriever:
    """A `Retriever` by meaning, as far as its encoder sees it. Scores are inner products: cosines for unit vectors.

    Every passage is a candidate for every query, the empty one too, whose vector is the encoder's matter. Deleted
    vectors stay until they outnumber the others; then the index is built again.

    Args:
        encoder: makes the vectors; a `CachedEncoder` remembers them.
        index: who proposes candidates: `Exact` (by default), `IVF`, `HNSW`, `LSH`; empty.
    """

    def __init__(self, encoder: Encoder, index: VectorIndex | None = None) -> None:
        self.encoder, self._index = encoder, index or Exact()
        self._ids = PassageIds()
        self._vectors = Rows(np.zeros((0, encoder.dimension), np.float32))
        self._longest = 0.0  # length of the longest vector

    @property
    def ids(self) -> list[str]:
        return self._ids.living()

    def __len__(self) -> int:
        return len(self._ids)

    def build(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        PassageIds.check_build(ids, passages)
        self._fill(ids, self._encode(passages, "passage"))

    def add(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        self._ids.check(ids, passages)
        vectors = self._encode(passages, "passage")
        self._index.add(vectors)
        self._ids.append(ids)
        self._vectors.append(vectors)
        self._longest = max(self._longest, _longest(vectors))

    def delete(self, ids: Sequence[str]) -> None:
        self._ids.remove(ids)
        if 2 * len(self._ids) < self._ids.rows:
            self._fill(self._ids.living(), self._vectors.array[self._ids.alive])

    def search(self, queries: Sequence[str], k: int) -> Hits:
        check_search(queries, k)
        hits = no_hits(len(queries), min(k, len(self)))
        if not hits.ids.size:
            return hits
        asked = self._encode(queries, "query")
        for start in range(0, len(queries), BATCH):
            part = slice(start, start + BATCH)
            self._search(asked[part], Hits(hits.ids[part], hits.scores[part]))
        return hits

    def save(self, folder: Path) -> None:
        about = {
            "kind": "dense",
            "encoder": _about(self.encoder),
            "index": self._index.kind,
            "settings": dict(self._index.settings),
        }
        with saving(folder, about) as fresh:
            self._ids.save(fresh)
            write_array(fresh, "vectors", self._vectors.array)
            self._index.save(fresh)

    @classmethod
    def load(cls, folder: Path, encoder: Encoder, index: VectorIndex) -> "DenseRetriever":
        """What `save` wrote, mapped from disk; `build.load` makes the index that belongs to it.

        Raises:
            UserError: it was made with another encoder; a file is missing or damaged.
        """
        about = read_about(folder)["encoder"]
        if about != _about(encoder):
            here = _about(encoder)
            differ = next(key for key in about if about[key] != here[key])
            raise UserError(
                f"retriever in {folder} was made with encoder '{about['name']}', {differ} {about[differ]}; "
                f"this one is '{encoder.name}', {differ} {here[differ]}"
            )
        loaded = cls(encoder, index)
        loaded._ids = PassageIds.load(folder)
        loaded._vectors = Rows(read_array(folder, "vectors"))
        loaded._longest = _longest(loaded._vectors.array)
        index.load(folder)
        return loaded

    def _fill(self, ids: Sequence[str], vectors: Vectors) -> None:
        self._index.fit(vectors)
        self._ids = PassageIds()
        self._ids.append(ids)
        self._vectors = Rows(vectors)
        self._longest = _longest(vectors)

    def _encode(self, texts: Sequence[str], role: Role) -> Vectors:
        vectors = self.encoder.encode(texts, role)
        if not np.isfinite(vectors).all():
            raise ValueError(f"encoder '{self.encoder.name}' gave a vector that is not finite")
        return vectors

    def _search(self, queries: Vectors, hits: Hits) -> None:
        """Fill `hits` [Q, K] for the vectors of Q queries, [Q, D]."""
        vectors, alive, k = self._vectors.array, self._ids.alive, hits.ids.shape[1]
        # What rounding may move an inner product of dimension D by.
        slack = vectors.shape[1] * 2.0**-23 * self._longest * _lengths(queries)
        left, wanted = np.arange(len(queries)), k + MARGIN
        while len(left):
            wanted = min(wanted, len(vectors))
            proposed, rows = self._index.search(queries[left], vectors, wanted)
            complete = (rows[:, -1] < 0) | (wanted == len(vectors))
            scores = pair_scores(queries[left], vectors, rows)
            scores[(rows < 0) | ~alive[rows]] = -np.inf
            best = np.arange(len(left))[:, None], np.lexsort((rows, -scores), axis=1)[:, :k]
            rows, scores = rows[best], scores[best]
            complete |= scores[:, -1] > proposed[:, -1] + slack[left]  # nothing outside can come in
            for i in np.flatnonzero(complete):
                found = np.count_nonzero(scores[i] > -np.inf)
                hits.ids[left[i], :found] = self._ids.named(rows[i, :found])
                hits.scores[left[i]] = scores[i]
            left, wanted = left[~complete], 4 * wanted


def pair_scores(queries: Vectors, vectors: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """Inner product of each query with vectors of its own, [Q, K] for queries [Q, D] and rows [Q, K].

    The products are summed pair by pair, in an order that depends on D alone.
    """
    scores = np.empty(rows.shape, np.float32)
    step = max(1, PRODUCTS // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        np.sum(queries[part, None, :] * vectors[rows[part]], axis=2, out=scores[part])
    return scores


def _longest(vectors: Vectors) -> float:
    return float(np.max(_lengths(vectors), initial=0.0))


def _lengths(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def _about(encoder: Encoder) -> dict[str, Any]:
    return {
        "name": encoder.name,
        "revision": encoder.revision,
        "dimension": encoder.dimension,
        "settings": dict(encoder.settings),
    }
