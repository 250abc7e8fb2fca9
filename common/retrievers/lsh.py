"""Locality-sensitive hashing by random hyperplanes (Charikar, STOC 2002).

A bit of a vector's hash says on which side of a random hyperplane through the origin it lies. Two vectors at angle θ
agree in a bit with probability 1 - θ/π, so with b bits a table and T tables they meet in at least one bucket with

    P(θ) = 1 - (1 - (1 - θ/π)^b)^T

and a query is compared with the vectors that it meets, by inner product. A question lies far from the passage that
answers it (60 degrees is common), so buckets must be large to hold both: few bits, many tables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.retrievers.storage import Rows as Growing
from common.retrievers.storage import read_array, write_array
from common.retrievers.vector_index import Rows, Vectors


class LSH:
    """A `VectorIndex` by buckets.

    Args:
        bits: b, hyperplanes of a table, 1 to 62; more make buckets smaller.
        tables: T, independent tables; more find more.
        seed: of the hyperplanes.

    Raises:
        ValueError: `bits` or `tables` out of range.
    """

    kind = "lsh"

    def __init__(self, bits: int = 6, tables: int = 16, seed: int = 0) -> None:
        if not 1 <= bits <= 62 or tables < 1:
            raise ValueError(f"bits must be 1 to 62 and tables at least 1, not {bits} and {tables}")
        self.settings: Mapping[str, Any] = {"bits": bits, "tables": tables, "seed": seed}
        self._bits, self._tables, self._seed = bits, tables, seed
        self._planes: Vectors | None = None
        self._buckets = Growing(np.zeros((0, tables), np.int64))
        self._sorted: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def fit(self, vectors: Vectors) -> None:
        self._buckets, self._sorted = Growing(np.zeros((0, self._tables), np.int64)), None
        self.add(vectors)

    def add(self, vectors: Vectors) -> None:
        self._buckets.append(self.buckets(vectors))
        self._sorted = None

    def buckets(self, vectors: Vectors) -> NDArray[np.int64]:
        """Number of each vector's bucket in each table, [N, T]."""
        if self._planes is None:
            rng = np.random.default_rng(self._seed)
            self._planes = rng.standard_normal((self._tables * self._bits, vectors.shape[1]), np.float32)
        # Vector by vector, in float64: a batch must not move one across a plane.
        planes = self._planes.astype(np.float64)
        sides = np.stack([planes @ v for v in vectors]) > 0 if len(vectors) else np.zeros(0)
        powers = 1 << np.arange(self._bits, dtype=np.int64)
        numbers: NDArray[np.int64] = sides.reshape(len(vectors), self._tables, self._bits) @ powers
        return numbers.astype(np.int64)

    def search(self, queries: Vectors, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        if self._sorted is None:
            order = np.argsort(self._buckets.array, axis=0, kind="stable").T  # [T, N]
            self._sorted = np.take_along_axis(self._buckets.array.T, order, axis=1), order
        buckets, order = self._sorted
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        for i, (query, asked) in enumerate(zip(queries, self.buckets(queries), strict=True)):
            first = [int(np.searchsorted(buckets[t], asked[t], "left")) for t in range(self._tables)]
            last = [int(np.searchsorted(buckets[t], asked[t], "right")) for t in range(self._tables)]
            met = np.unique(np.concatenate([order[t, first[t] : last[t]] for t in range(self._tables)]))
            found = vectors[met] @ query
            best = np.argsort(-found, kind="stable")[:k]
            scores[i, : len(best)], rows[i, : len(best)] = found[best], met[best]
        return scores, rows

    def save(self, folder: Path) -> None:
        write_array(folder, "buckets", self._buckets.array)

    def load(self, folder: Path) -> None:
        self._buckets, self._sorted = Growing(read_array(folder, "buckets")), None
