"""Retrievers behind one protocol: passages in under ids, the best for each query out.

    retriever = BM25()                                   # or DenseRetriever(encoder), HybridRetriever([...]), ...
    retriever.build(["a", "b"], ["Ada met Bo in Oslo.", "Bo lives in Rome."])
    hits = retriever.search(["Whom did Ada meet?"], k=2)
    hits.rankings()                                      # [["a", "b"]], or fewer: BM25 gives only what shares a word

What holds for every retriever, and is tested on all of them by one conformance suite:

- A row of `Hits` goes from best to worst; equal scores stand in the order in which their passages were added. The same
  calls give the same ids and scores, bit for bit, in one batch or query by query, before and after save and load.
- After any adds and deletes the hits are those of a retriever built afresh from what is left (for the approximate
  indexes IVF, HNSW and LSH: its order and scores, as far as they find the same passages).
- Every string is a valid query and a valid passage: empty, of any script, of any length, with lone surrogates. `k`
  above the size of the corpus gives the whole corpus; an empty corpus gives rows of length 0; no queries, no rows.
- A call that raises has changed nothing (a hybrid's `build` that fails midway leaves it empty).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NO_HIT = ""  # in place of an id, with a score of -inf


@dataclass(frozen=True)
class Hits:
    """What a batch of Q queries found, K = min(k, passages) to each.

    Attributes:
        ids: [Q, K] strings (dtype object), best first; `NO_HIT` after the last where fewer than K were found.
        scores: [Q, K] float32, falling along a row; -inf where there is no hit. Their meaning is the retriever's.
    """

    ids: NDArray[np.object_]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[list[tuple[str, float]]]:
        """For each query its (id, score) pairs, without the places that hold no hit."""
        for names, scores in zip(self.ids.tolist(), self.scores.tolist(), strict=True):
            yield [(name, score) for name, score in zip(names, scores, strict=True) if name != NO_HIT]

    def rankings(self) -> list[list[str]]:
        """For each query the ids that were found, best first."""
        return [[name for name, _ in row] for row in self]


class Retriever(Protocol):
    """Anything that finds passages by text."""

    @property
    def ids(self) -> list[str]:
        """Ids of all passages, in the order in which they were added."""
        ...

    def __len__(self) -> int: ...

    def build(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        """Index these passages and no others.

        Raises:
            ValueError: as many ids as passages are needed; an id is empty or given twice; one string in place of a
                sequence.
        """
        ...

    def add(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        """Index these passages too. Errors as `build`, and ValueError for an id that is here already."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Forget these passages. ValueError for an id that is not here or given twice."""
        ...

    def search(self, queries: Sequence[str], k: int) -> Hits:
        """The best `k` passages for each query. ValueError: k below 1, or `queries` is one string."""
        ...

    def save(self, folder: Path) -> None:
        """Write all to a folder, in place of a retriever that was saved there; `build.load` opens it again.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        ...


def check_search(queries: Sequence[str], k: int) -> None:
    """ValueError where `Retriever.search` must raise one."""
    if isinstance(queries, str):
        raise ValueError("queries must be a sequence of strings, not one string")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")


def no_hits(queries: int, k: int) -> Hits:
    """Hits that hold nothing yet, [queries, k]."""
    return Hits(np.full((queries, k), NO_HIT, object), np.full((queries, k), -np.inf, np.float32))
