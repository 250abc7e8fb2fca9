"""A bank of dense memories: vectors of a document under one key vector, found by inner product, mapped from disk.

    bank = DenseBank()
    bank.append(["a text"], keys, memories)           # keys [n, K], memories [n, m, D]; a known text is left out
    scores, rows = bank.search(queries, k=4)          # [Q, K] queries -> [Q, k]
    bank.memories(rows)                               # [Q, k, m, D]

Append-only: rows keep their numbers. Memories are kept in fp16, keys in fp32 as the search takes them. Keys and queries
of length 1 make the inner product a cosine.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError
from common.files import replacing
from common.retrievers.dense import pair_scores
from common.retrievers.storage import Rows
from common.retrievers.vector_index import Exact, VectorIndex, Vectors

FILE = "bank.safetensors"
MARGIN = 8  # more candidates than asked for, so that rounding and equal scores change no order
DIGEST = 16  # bytes that tell texts apart


class DenseBank:
    """Memories of documents.

    Args:
        dedup: keep one memory of equal texts; False keeps each.
        index: proposes candidates; the exact one if None.
    """

    def __init__(self, dedup: bool = True, index: VectorIndex | None = None) -> None:
        self.dedup = dedup
        self._index: VectorIndex = index or Exact()
        self._digests: Rows | None = None  # [N, DIGEST] uint8; None while empty, when no shape is known
        self._keys: Rows
        self._memories: Rows
        self._known: set[bytes] = set()

    def __len__(self) -> int:
        return 0 if self._digests is None else len(self._digests.array)

    def __contains__(self, text: str) -> bool:
        return _digest(text) in self._known

    @property
    def bytes(self) -> int:
        """Of memories, keys and digests."""
        if self._digests is None:
            return 0
        return sum(rows.array.nbytes for rows in (self._digests, self._keys, self._memories))

    def append(self, texts: Sequence[str], keys: NDArray[Any], memories: NDArray[Any]) -> int:
        """Add documents in order; the number added, without those that the bank (or the call) has already.

        Args:
            keys: [n, K]. memories: [n, m, D].

        Raises:
            ValueError: numbers or shapes differ, among themselves or from the bank's; a value is not finite in fp16.
        """
        if not len(texts) == len(keys) == len(memories):
            raise ValueError(f"{len(texts)} texts, {len(keys)} keys and {len(memories)} memories")
        digests = [_digest(text) for text in texts]
        fresh = list(range(len(texts)))
        if self.dedup:
            first = {digest: number for number, digest in reversed(list(enumerate(digests)))}
            fresh = [
                number for number in fresh if digests[number] not in self._known and first[digests[number]] == number
            ]
        if not fresh:
            return 0
        new_keys = np.ascontiguousarray(keys[fresh], np.float32)
        with np.errstate(over="ignore"):
            new_memories = np.asarray(memories[fresh], np.float16)
        if not (np.isfinite(new_memories).all() and np.isfinite(new_keys).all()):
            raise ValueError("a memory or a key is not finite in fp16 and fp32")
        new_digests = np.frombuffer(b"".join(digests[number] for number in fresh), np.uint8).reshape(-1, DIGEST)
        if self._digests is None:
            self._digests, self._keys, self._memories = Rows(new_digests), Rows(new_keys), Rows(new_memories)
        else:
            for new, rows in ((new_keys, self._keys), (new_memories, self._memories)):
                if new.shape[1:] != rows.array.shape[1:]:
                    raise ValueError(f"shape {new.shape[1:]} is not the bank's {rows.array.shape[1:]}")
            self._digests.append(new_digests)
            self._keys.append(new_keys)
            self._memories.append(new_memories)
        self._index.add(new_keys)
        self._known.update(digests)
        return len(fresh)

    def search(self, queries: NDArray[Any], k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Inner products and rows, [Q, min(k, N)], of the best memories of each query, best first, earlier rows first.

        Args:
            queries: [Q, K].

        Raises:
            ValueError: the bank is empty, or k < 1.
        """
        if self._digests is None or k < 1:
            raise ValueError(f"a search takes k >= 1 and a bank that is not empty, not {k} of {len(self)}")
        asked, vectors, k = np.ascontiguousarray(queries, np.float32), self._keys.array, min(k, len(self))
        _, rows = self._index.search(asked, vectors, min(len(self), k + MARGIN))
        scores = pair_scores(asked, vectors, rows)
        scores[rows < 0] = -np.inf
        best = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)

    def memories(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        """Memories of rows of any shape, [..., m, D]."""
        found: NDArray[np.float16] = self._memories.array[rows]
        return found

    @property
    def keys(self) -> Vectors:
        """All keys, [N, K]."""
        keys: Vectors = self._keys.array
        return keys

    def save(self, folder: Path) -> None:
        """Into `bank.safetensors`, whole or not at all.

        Raises:
            ValueError: the bank is empty.
        """
        from safetensors.numpy import save_file

        if self._digests is None:
            raise ValueError("an empty bank has no shapes to save")
        parts = {"digests": self._digests, "keys": self._keys, "memories": self._memories}
        with replacing(folder / FILE) as partial:
            save_file({name: rows.array for name, rows in parts.items()}, partial, metadata={"dedup": str(self.dedup)})

    @classmethod
    def load(cls, folder: Path, index: VectorIndex | None = None) -> "DenseBank":
        """What `save` wrote, mapped from disk until it grows. UserError when it is missing or damaged."""
        dedup, arrays = _mapped(folder / FILE)
        bank = cls(dedup, index)
        bank._digests, bank._keys, bank._memories = (Rows(arrays[name]) for name in ("digests", "keys", "memories"))
        bank._known = {row.tobytes() for row in arrays["digests"]}
        bank._index.fit(bank._keys.array)
        return bank


_DTYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}


def _mapped(path: Path) -> tuple[bool, dict[str, NDArray[Any]]]:
    """Whether equal texts were left out, and the arrays of a safetensors file, mapped: its readers for numpy copy."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(size))
        dedup = head["__metadata__"]["dedup"] == "True"
        arrays: dict[str, NDArray[Any]] = {
            name: np.memmap(
                path, _DTYPES[about["dtype"]], "r", 8 + size + about["data_offsets"][0], tuple(about["shape"])
            )
            for name, about in head.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"no bank of memories can be read from {path} ({' '.join(str(error).split())})") from None
    return dedup, arrays


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()
