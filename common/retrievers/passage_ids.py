"""Ids of passages by row. Rows are numbered in the order of adding; a deleted passage leaves its row empty until
`compact` closes the gaps, so that an index may drop passages when it suits it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.retrievers.storage import Rows, read_array, read_strings, write_array, write_strings


class PassageIds:
    """Which passage stands in which row, and which rows are empty."""

    def __init__(self) -> None:
        self._names: Sequence[str] = []
        self._alive = Rows(np.zeros(0, np.bool_))
        self._row_of: dict[str, int] | None = {}
        self._living = 0

    def __len__(self) -> int:
        """Number of passages."""
        return self._living

    @property
    def rows(self) -> int:
        """Number of rows, the empty ones included."""
        return len(self._names)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whether each row holds a passage, [rows]."""
        alive: NDArray[np.bool_] = self._alive.array
        return alive

    def living(self) -> list[str]:
        """Ids of all passages, in the order of adding."""
        if self._living == self.rows:
            return list(self._names)
        return [self._names[row] for row in np.flatnonzero(self.alive).tolist()]

    def check(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        """ValueError where `Retriever.add` must raise one."""
        self.check_build(ids, passages)
        here = self._lookup()
        known = next((name for name in ids if name in here), None)
        if known is not None:
            raise ValueError(f"passage '{known}' is here already; delete it first")

    @staticmethod
    def check_build(ids: Sequence[str], passages: Sequence[str]) -> None:
        """ValueError where `Retriever.build` must raise one."""
        if isinstance(ids, str) or isinstance(passages, str):
            raise ValueError("ids and passages must be sequences of strings, not one string")
        if len(ids) != len(passages):
            raise ValueError(f"{len(ids)} ids for {len(passages)} passages")
        for what, strings in (("id", ids), ("passage", passages)):
            odd = [string for string in strings if not isinstance(string, str)]
            if odd:
                raise ValueError(f"each {what} must be a string, not {odd[0]!r}")
        if "" in ids:
            raise ValueError("an id must not be empty")
        _distinct(ids)

    def append(self, ids: Sequence[str]) -> None:
        """New rows for ids that `check` accepts."""
        here = self._lookup()
        names = self._names if isinstance(self._names, list) else list(self._names)
        here.update(zip(ids, range(len(names), len(names) + len(ids)), strict=True))
        names.extend(ids)
        self._names = names
        self._alive.append(np.ones(len(ids), np.bool_))
        self._living += len(ids)

    def remove(self, ids: Sequence[str]) -> None:
        """Empty the rows of these passages. ValueError as `Retriever.delete`."""
        if isinstance(ids, str):
            raise ValueError("ids must be a sequence of strings, not one string")
        here = self._lookup()
        unknown = next((name for name in ids if name not in here), None)
        if unknown is not None:
            raise ValueError(f"no passage '{unknown}' is here")
        _distinct(ids)
        rows = [here.pop(name) for name in ids]
        self._alive.put(rows, False)
        self._living -= len(rows)

    def compact(self) -> NDArray[np.int64]:
        """Close the gaps; the old numbers [N] of the N rows that are left, rising."""
        kept = np.flatnonzero(self.alive)
        self._names = [self._names[row] for row in kept.tolist()]
        self._alive = Rows(np.ones(len(kept), np.bool_))
        self._row_of = None
        return kept

    def named(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of `rows` [n]."""
        names = self._names
        return [names[row] for row in rows.tolist()]

    def row(self, name: str) -> int:
        """The row of a passage that is here."""
        return self._lookup()[name]

    def save(self, folder: Path) -> None:
        write_strings(folder, "ids", self._names)
        write_array(folder, "alive", self.alive)

    @classmethod
    def load(cls, folder: Path) -> "PassageIds":
        """Mapped from disk; ids are read into memory at the first change."""
        loaded = cls()
        loaded._names = read_strings(folder, "ids")
        loaded._alive = Rows(read_array(folder, "alive"))
        loaded._living = int(loaded.alive.sum())
        loaded._row_of = None
        return loaded

    def _lookup(self) -> dict[str, int]:
        if self._row_of is None:
            alive = self.alive.tolist()
            self._row_of = {name: row for row, name in enumerate(self._names) if alive[row]}
        return self._row_of


def _distinct(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"id '{twice}' is given twice")
