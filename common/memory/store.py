"""Memory stores behind one protocol: an agent writes, reads, updates and forgets entries; every change has a cause.

    memory = NoteMemory(RetrieverSearch(BM25()))                # or another store; see the README
    note = memory.write("Ada moved to Oslo.", cause="turn 3", sources=["D1:3"])
    memory.update(note, "Ada moved to Rome.", cause="turn 9 contradicts")
    [hit] = memory.read("Where does Ada live?", k=1)
    memory.snapshot(folder)                                     # plain files; `restore` brings all of it back

What holds for every store, and is tested on all of them by one conformance suite:

- The history is the memory: `replay(memory.history)` gives its entries. A call that raises has changed nothing.
- Ids are given in order and never again, not even after a forget: the same calls give the same memory, bit for bit.
- `read` gives distinct entries that are held now, best first, at most k; reading changes no text and drops nothing.
- A restored memory cannot be told from the one that was snapshot: entries, history, clock, later ids, what is read.
- Every string is a valid text and a valid query: empty, of any script, of any length, with lone surrogates.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

Operation = Literal["write", "update", "forget"]


@dataclass(frozen=True)
class Entry:
    """One thing remembered. Nothing in it can be changed, so that a history stays what happened.

    Attributes:
        id: given by the store.
        text: what a reader is shown; the only part that counts as tokens.
        sources: provenance: ids of the passages, turns or entries it was made from.
        fields: what a store or a method keeps beside the text (tier, strength, day, links, keywords): JSON values, the
            arrays as tuples, the objects read-only.
    """

    id: str
    text: str
    sources: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _frozen(self.fields))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Entry":
        return self


@dataclass(frozen=True)
class Change:
    """One step of a memory's history.

    Attributes:
        time: the memory's clock, `now`, when it happened.
        before, after: the entry; None before a write and after a forget.
        cause: why, in the method's words ("refiner, round 2", "strength 0.1 below 0.3").
    """

    time: float
    operation: Operation
    id: str
    before: Entry | None
    after: Entry | None
    cause: str


class Memory(Protocol):
    """Anything that remembers entries.

    Attributes:
        now: the clock in the caller's unit (turn, round, day), which the caller sets and which never runs backwards;
            changes are stamped with it, and stores that forget by age read it. Starts at 0.
    """

    now: float

    @property
    def history(self) -> Sequence[Change]:
        """All changes, first to last."""
        ...

    def entries(self) -> list[Entry]:
        """What is held now, in the order of the first write."""
        ...

    def write(self, text: str, *, cause: str, sources: Iterable[str] = (), fields: Mapping[str, Any] = {}) -> str:
        """Remember something new; its id.

        Raises:
            ValueError: `fields` are no JSON values, or `now` lies before the last change.
        """
        ...

    def read(self, query: str, k: int) -> list[Entry]:
        """At most `k` entries for a query, best first; how they are found is the store's. ValueError: k below 1."""
        ...

    def update(
        self,
        id: str,
        text: str,
        *,
        cause: str,
        sources: Iterable[str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace an entry's text, and its sources and fields where they are given; its place in the order stays.

        Raises:
            UnknownEntry: no entry of this id is held.
            ValueError: as `write`.
        """
        ...

    def forget(self, id: str, *, cause: str) -> None:
        """Drop an entry. Errors as `update`."""
        ...

    def snapshot(self, folder: Path) -> None:
        """Write all of it to a folder, in place of an earlier snapshot there: whole or not at all.

        Raises:
            UserError: the folder cannot be written.
        """
        ...

    def restore(self, folder: Path) -> None:
        """Become the memory that was snapshot there; what was held is dropped, unless this raises.

        Raises:
            UserError: no snapshot is there, or it is damaged, or it is of another kind of store.
        """
        ...


class UnknownEntry(KeyError):
    """No entry of this id is held: a language model that edits its memory names such ids now and then."""

    def __init__(self, id: str, held: int) -> None:
        super().__init__(f"no entry '{id}' among the {held} that are held")

    def __str__(self) -> str:
        return str(self.args[0])


def replay(history: Iterable[Change]) -> list[Entry]:
    """The entries that a history ends with. Of a memory's first n changes: what it held then."""
    held: dict[str, Entry] = {}
    for change in history:
        if change.after is None:
            del held[change.id]
        else:
            held[change.id] = change.after
    return list(held.values())


def as_of(history: Iterable[Change], time: float) -> list[Entry]:
    """What a memory held at a time, changes at that time included."""
    return replay(change for change in history if change.time <= time)


def token_count(entries: Iterable[Entry], tokens: Callable[[str], int]) -> int:
    """Tokens of all texts, each counted by itself; ids, sources and fields are free.

    Args:
        tokens: tokens of a text, without special ones: `lambda text: len(encode_continuation(tokenizer, text))`.
    """
    return sum(tokens(entry.text) for entry in entries)


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `fields` as it will come back from a file. ValueError where JSON cannot hold them."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(fields), allow_nan=False, default=_thawed))
    except (TypeError, ValueError) as error:
        raise ValueError(f"fields must be JSON values: {error}") from None
    return copy


def _frozen(value: Any) -> Any:
    """A copy of JSON values that cannot be changed; of what is frozen, itself."""
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(each) for name, each in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _thawed(value: Any) -> dict[str, Any]:
    """What JSON writes for an object of a frozen entry."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is none")
