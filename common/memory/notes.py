"""Note memory: texts in the order in which they were written, each with where it came from.

A memory that is one text, rewritten again and again (a running summary, an agent's state), is a note memory of one
note. Lists of facts, experiences or thoughts are many notes.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.memory import snapshot
from common.memory.journal import Journal
from common.memory.search import Search
from common.memory.store import Change, Entry

KIND = "notes"


class NoteMemory:
    """A `Memory` of notes n1, n2, …

    Attributes:
        now: see `Memory`.
    """

    def __init__(self, search: Search | None = None) -> None:
        """Make an empty memory.

        Args:
            search: how `read` finds notes: `RetrieverSearch(...)`, `lexical` or `newest` of `search.py`. None for
                methods that use all notes at every step: `read` then refuses, rather than rank by a rule of its own.
        """
        self.now: float = 0
        self._search = search
        self._journal = Journal("n")

    @property
    def history(self) -> Sequence[Change]:
        return tuple(self._journal.history)

    def entries(self) -> list[Entry]:
        return list(self._journal.held.values())

    def write(self, text: str, *, cause: str, sources: Iterable[str] = (), fields: Mapping[str, Any] = {}) -> str:
        return self._journal.write(self.now, cause, text, sources, fields).id

    def read(self, query: str, k: int) -> list[Entry]:
        """As `Memory.read`. ValueError: k below 1, or a memory without a search."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if self._search is None:
            raise ValueError("this memory has no search: NoteMemory(lexical), NoteMemory(RetrieverSearch(BM25())), …")
        return self._search(query, self.entries(), k)

    def update(
        self,
        id: str,
        text: str,
        *,
        cause: str,
        sources: Iterable[str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._journal.update(self.now, cause, id, text, sources, fields)

    def forget(self, id: str, *, cause: str) -> None:
        self._journal.forget(self.now, cause, id)

    def snapshot(self, folder: Path) -> None:
        snapshot.save(folder, KIND, {"now": self.now, "history": self._journal.rows()})

    def restore(self, folder: Path) -> None:
        state = snapshot.load(folder, KIND)
        try:
            now, journal = state["now"], Journal.of_rows("n", state["history"])
        except (KeyError, TypeError, ValueError) as error:
            raise snapshot.damaged(folder, str(error)) from None
        self.now, self._journal = now, journal
