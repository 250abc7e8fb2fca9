"""How a memory finds entries for a query: by a retriever, by common words, or the newest."""

import re
from collections.abc import Callable, Sequence

from common.memory.store import Entry
from common.retrievers.retriever import Retriever

Search = Callable[[str, Sequence[Entry], int], list[Entry]]  # query, entries held, k -> at most k of them, best first


def newest(query: str, entries: Sequence[Entry], k: int) -> list[Entry]:
    """The last `k` entries, newest first, whatever the query."""
    return list(entries[: -k - 1 : -1])


def lexical(query: str, entries: Sequence[Entry], k: int) -> list[Entry]:
    """Entries by the number of different query words in them, newest first among equals; none without any.

    Words are runs of letters, digits and `_` in lower case, all of one weight. A plain reading for stores of a few
    notes; BM25 with its weights and lengths is `RetrieverSearch(BM25())`.
    """
    wanted = _words(query)
    counted = [(len(wanted & _words(entry.text)), entry) for entry in reversed(entries)]
    found = sorted((pair for pair in counted if pair[0]), key=lambda pair: -pair[0])
    return [entry for _, entry in found[:k]]


class RetrieverSearch:
    """Entries as a retriever ranks their texts; equals in the order of the first write.

    The retriever is this object's own: each call brings it in step with the entries, from the first that changed
    on, so that what is found depends on the entries alone and not on how they came about.
    """

    def __init__(self, retriever: Retriever) -> None:
        """Raises: ValueError: the retriever holds passages already."""
        if len(retriever):
            raise ValueError(f"the retriever of a memory must start empty, this one holds {len(retriever)} passages")
        self._retriever = retriever
        self._indexed: dict[str, str] = {}

    def __call__(self, query: str, entries: Sequence[Entry], k: int) -> list[Entry]:
        held = {entry.id: entry for entry in entries}
        self._follow({id: entry.text for id, entry in held.items()})
        [ranking] = self._retriever.search([query], k).rankings()
        return [held[id] for id in ranking]

    def _follow(self, texts: dict[str, str]) -> None:
        """Index these texts in this order: from the first that is new or changed on, all are added again."""
        kept = {id: text for id, text in self._indexed.items() if texts.get(id) == text}
        same = 0
        for old, new in zip(kept, texts, strict=False):
            if old != new:
                break
            same += 1
        stay = dict(list(kept.items())[:same])
        gone = [id for id in self._indexed if id not in stay]
        fresh = list(texts)[same:]
        if gone:
            self._retriever.delete(gone)
            self._indexed = stay  # also if what follows fails
        if fresh:
            self._retriever.add(fresh, [texts[id] for id in fresh])
        self._indexed = dict(texts)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
