"""The journal under a store: entries, their history and their ids, kept consistent and in a form for files.

A store holds a `Journal` and passes its clock; what it adds is how it reads. The journal is the whole state of a store
that keeps nothing beside its entries, since replaying the history gives them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from common.memory.store import Change, Entry, Operation, UnknownEntry, plain


class Journal:
    """Entries by id, and every change that made them.

    Attributes:
        history: first to last.
        held: the entries now, in the order of their first write.
    """

    def __init__(self, prefix: str) -> None:
        """Args: prefix: of the ids: `n` gives n1, n2, …"""
        self.prefix = prefix
        self.history: list[Change] = []
        self.held: dict[str, Entry] = {}
        self._written = 0

    def write(self, time: float, cause: str, text: str, sources: Iterable[str], fields: Mapping[str, Any]) -> Entry:
        """A new entry. Errors as `Memory.write`."""
        entry = Entry(f"{self.prefix}{self._written + 1}", text, _ids(sources), plain(fields))
        self._record(time, "write", entry.id, None, entry, cause)
        return entry

    def update(
        self,
        time: float,
        cause: str,
        id: str,
        text: str,
        sources: Iterable[str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Entry:
        """The entry as it is after the change. Errors as `Memory.update`."""
        before = self.entry(id)
        after = replace(
            before,
            text=text,
            sources=before.sources if sources is None else _ids(sources),
            fields=before.fields if fields is None else plain(fields),
        )
        self._record(time, "update", id, before, after, cause)
        return after

    def forget(self, time: float, cause: str, id: str) -> Entry:
        """The entry that is held no more. Errors as `Memory.forget`."""
        before = self.entry(id)
        self._record(time, "forget", id, before, None, cause)
        return before

    def entry(self, id: str) -> Entry:
        """The entry of an id; UnknownEntry where none is held."""
        if id not in self.held:
            raise UnknownEntry(id, len(self.held))
        return self.held[id]

    def rows(self) -> list[dict[str, Any]]:
        """The history as JSON objects; what stood before a change follows from those before it."""
        return [
            {"time": change.time, "operation": change.operation, "id": change.id, "cause": change.cause}
            | ({} if change.after is None else _content(change.after))
            for change in self.history
        ]

    @classmethod
    def of_rows(cls, prefix: str, rows: Iterable[Mapping[str, Any]]) -> "Journal":
        """The journal that gave these rows.

        Raises:
            KeyError, TypeError, ValueError: no journal gives them.
        """
        journal = cls(prefix)
        for row in rows:
            time, cause = row["time"], row["cause"]
            match row["operation"]:
                case "write":
                    id = journal.write(time, cause, row["text"], row["sources"], row["fields"]).id
                    if id != row["id"]:
                        raise ValueError(f"entry '{row['id']}' stands where '{id}' was written")
                case "update":
                    journal.update(time, cause, row["id"], row["text"], row["sources"], row["fields"])
                case "forget":
                    journal.forget(time, cause, row["id"])
                case other:
                    raise ValueError(f"unknown operation '{other}'")
        return journal

    def _record(
        self, time: float, operation: Operation, id: str, before: Entry | None, after: Entry | None, cause: str
    ) -> None:
        last = self.history[-1].time if self.history else -math.inf
        if not last <= time < math.inf:
            raise ValueError(f"time must be finite and at least {last}, that of the last change, not {time}")
        self.history.append(Change(time, operation, id, before, after, cause))
        self._written += operation == "write"
        if after is None:
            del self.held[id]
        else:
            self.held[id] = after


def _ids(sources: Iterable[str]) -> tuple[str, ...]:
    if isinstance(sources, str):
        raise ValueError(f"sources must be a sequence of ids, not the string {sources!r}")
    return tuple(sources)


def _content(entry: Entry) -> dict[str, Any]:
    return {"text": entry.text, "sources": list(entry.sources), "fields": plain(entry.fields)}
