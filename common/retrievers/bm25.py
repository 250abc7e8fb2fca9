"""BM25 on bm25s (Lù 2024; arXiv:2407.03618), in Lucene's variant (Kamphuis et al., ECIR 2020).

    score(q, d) = Σ_{t in q} ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) · f / (f + k₁ (1 - b + b |d| / L))

over the terms of the query with repetition: N passages, n_t of them with t, f times t in d, |d| terms in d, L the mean
of |d|. Every matching term adds more than 0; passages that share no term are no hits. So the empty query has no hits.

All scores change with N, n_t and L, so an index cannot be extended: passages are kept as term numbers, and the index is
made again from them at the first search after a change. It is made by sorting, much faster than bm25s's own builder and
with the same bits (`tests/benchmarks/retrievers.py` times both), so that a memory of some thousand notes may be
searched after every note.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common.retrievers.analysis import Analyser, words
from common.retrievers.passage_ids import PassageIds
from common.retrievers.retriever import Hits, check_search, no_hits
from common.retrievers.storage import (
    Rows,
    concatenated,
    read_about,
    read_array,
    read_strings,
    saving,
    write_array,
    write_strings,
)

STOP = -1  # in place of a term's number
INDEX = ("data", "indices", "indptr")


@dataclass(frozen=True)
class _Terms:
    """Passages as runs of term numbers."""

    numbers: Rows
    lengths: Rows


class BM25:
    """A `Retriever` by shared words.

    Args:
        k1: how slowly repetitions saturate, >= 0; Lucene's 1.2 (bm25s: 1.5, Pyserini: 0.9).
        b: how much length counts, in [0, 1]; Lucene's 0.75 (Pyserini: 0.4).
        analyser: `ENGLISH` for stems without stop words.

    Raises:
        ValueError: `k1` or `b` out of range.
    """

    def __init__(self, k1: float = 1.2, b: float = 0.75, analyser: Analyser | None = None) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be at least 0 and b in [0, 1], not {k1} and {b}")
        self.k1, self.b, self.analyser = k1, b, analyser or Analyser()
        self._clear()

    def _clear(self) -> None:
        self._ids = PassageIds()
        self._passages = _Terms(Rows(np.zeros(0, np.int32)), Rows(np.zeros(0, np.int32)))
        self._numbers: dict[str, int] = {}  # of terms
        self._known: dict[str, int] = {}  # of words as written, so that each is stemmed once
        self._index: bm25s.BM25 | None = None

    @property
    def ids(self) -> list[str]:
        return self._ids.living()

    def __len__(self) -> int:
        return len(self._ids)

    def build(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        PassageIds.check_build(ids, passages)
        self._clear()
        self.add(ids, passages)

    def add(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        self._ids.check(ids, passages)
        found = [self._terms(passage) for passage in passages]
        self._ids.append(ids)
        self._passages.numbers.append(concatenated(found))
        self._passages.lengths.append(np.array([len(terms) for terms in found], np.int32))
        self._index = None

    def delete(self, ids: Sequence[str]) -> None:
        self._ids.remove(ids)
        self._index = None

    def search(self, queries: Sequence[str], k: int) -> Hits:
        check_search(queries, k)
        hits = no_hits(len(queries), min(k, len(self)))
        if not hits.ids.size:
            return hits
        index = self._current()
        for i, query in enumerate(queries):
            terms = self._query_terms(query)
            if terms:
                scores: NDArray[np.float32] = index.get_scores_from_ids(terms)
                best = top_rows(scores, k)
                hits.ids[i, : len(best)] = self._ids.named(best)
                hits.scores[i, : len(best)] = scores[best]
        return hits

    def save(self, folder: Path) -> None:
        about = {
            "kind": "bm25",
            "k1": self.k1,
            "b": self.b,
            "stop words": sorted(self.analyser.stop_words),
            "stemmer": self.analyser.stemmer,
        }
        index = self._current()
        with saving(folder, about) as fresh:
            self._ids.save(fresh)
            write_strings(fresh, "terms", list(self._numbers))
            write_array(fresh, "numbers", self._passages.numbers.array)
            write_array(fresh, "lengths", self._passages.lengths.array)
            for name in INDEX:
                write_array(fresh, name, index.scores[name])

    @classmethod
    def load(cls, folder: Path) -> "BM25":
        """What `save` wrote, mapped from disk. UserError when a file is missing or damaged."""
        about = read_about(folder)
        loaded = cls(about["k1"], about["b"], Analyser(frozenset(about["stop words"]), about["stemmer"]))
        loaded._ids = PassageIds.load(folder)
        loaded._passages = _Terms(Rows(read_array(folder, "numbers")), Rows(read_array(folder, "lengths")))
        loaded._numbers = {term: i for i, term in enumerate(read_strings(folder, "terms"))}
        scores = {name: read_array(folder, name) for name in INDEX}
        loaded._index = loaded._with_scores(**scores)
        return loaded

    def _terms(self, passage: str) -> list[int]:
        """Term numbers of a passage; new terms get the next number."""
        known, found = self._known, []
        for word in words(passage):
            number = known.get(word)
            if number is None:
                term = self.analyser.term(word)
                number = known[word] = self._numbers.setdefault(term, len(self._numbers)) if term else STOP
            if number != STOP:
                found.append(number)
        return found

    def _query_terms(self, query: str) -> list[int]:
        """Term numbers of a query, without the terms that no passage has."""
        terms = [self.analyser.term(word) for word in words(query)]
        return [self._numbers[term] for term in terms if term in self._numbers]

    def _current(self) -> bm25s.BM25:
        """The index of what is here now."""
        if self._index is None:
            if len(self._ids) < self._ids.rows:
                alive = self._ids.alive
                numbers, lengths = self._passages.numbers.array, self._passages.lengths.array
                numbers, lengths = numbers[np.repeat(alive, lengths)], lengths[alive]
                self._passages = _Terms(Rows(numbers), Rows(lengths))
                self._ids.compact()
            self._index = self._made()
        return self._index

    def _made(self) -> bm25s.BM25:
        """The index as bm25s would build it, the same bits, by sorting instead of passage by passage."""
        numbers, lengths = self._passages.numbers.array, self._passages.lengths.array
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        shape = (len(lengths), len(self._numbers))
        counts = sparse.csr_matrix((np.ones(len(numbers), np.float32), numbers, ends), shape=shape).tocsc()
        counts.sum_duplicates()
        passages_with = np.diff(counts.indptr)
        idf = np.log(1 + (len(lengths) - passages_with + 0.5) / (passages_with + 0.5)).astype(np.float32)
        mean = lengths.mean() if len(numbers) else 1.0
        room = self.k1 * (1 - self.b + self.b * lengths / mean)
        data = np.repeat(idf, passages_with) * (counts.data / (room[counts.indices] + counts.data))
        return self._with_scores(data.astype(np.float32), counts.indices, counts.indptr)

    def _with_scores(self, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any]) -> bm25s.BM25:
        """The scores of all terms in bm25s's layout: compressed columns, one to a term."""
        index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        index.scores = {"data": data, "indices": indices, "indptr": indptr, "num_docs": len(self)}
        index.nonoccurrence_array = None
        return index


def top_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows [at most k] of the largest positive of `scores` [N], best first, of equal ones the earlier first."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores)
    else:
        rows = np.flatnonzero(scores)
    order = np.argsort(-scores[rows], kind="stable")[:k]
    best: NDArray[np.int64] = rows[order]
    return best
