"""Note memory keeps what the protocol promises, with each way of reading; and what is its own."""

import pytest

from common.experiments.errors import UserError
from common.memory import snapshot
from common.memory.notes import NoteMemory
from common.memory.search import RetrieverSearch, lexical, newest
from common.memory.store import Entry
from common.retrievers.bm25 import BM25
from tests.common.memory.conformance import CHECKS, filled, run_machine

MAKERS = {"bm25": lambda: NoteMemory(RetrieverSearch(BM25())), "lexical": lambda: NoteMemory(lexical)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("search", MAKERS)
def test_conformance(check, search, tmp_path):
    check(MAKERS[search], tmp_path)


@pytest.mark.parametrize("search", MAKERS)
def test_random_calls_against_a_dictionary(search):
    run_machine(MAKERS[search])


def test_notes_keep_their_place_when_updated():
    memory = NoteMemory()
    ids = [memory.write(text, cause="test") for text in "abc"]
    memory.update(ids[0], "z", cause="test")
    assert ids == ["n1", "n2", "n3"]
    assert [entry.text for entry in memory.entries()] == ["z", "b", "c"]


def test_reading_without_a_search_is_refused_not_guessed():
    memory = filled(NoteMemory)
    with pytest.raises(ValueError, match="this memory has no search"):
        memory.read("Ada", 1)


WROTE = {"time": 0, "operation": "write", "id": "n1", "cause": "test", "text": "Ada", "sources": [], "fields": {}}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"history": []}, "now"),
        ({"now": 0, "history": [WROTE | {"id": "n2"}]}, "entry 'n2' stands where 'n1' was written"),
        ({"now": 0, "history": [WROTE | {"operation": "merge"}]}, "unknown operation 'merge'"),
        ({"now": 0, "history": [WROTE | {"operation": "update"}]}, "no entry 'n1' among the 0"),
        ({"now": 0, "history": [WROTE | {"time": 5}, WROTE | {"id": "n2"}]}, "at least 5"),
        ({"now": 0, "history": [{"time": 0}]}, "cause"),
        ({"now": 0, "history": 3}, "not iterable"),
    ],
)
def test_a_history_that_no_memory_has_is_damage_even_under_a_right_checksum(state, why, tmp_path):
    snapshot.save(tmp_path, "notes", state)
    memory = filled(NoteMemory)
    before = memory.now, memory.entries(), memory.history
    with pytest.raises(UserError, match=f"the snapshot in .* is damaged \\(.*{why}"):
        memory.restore(tmp_path)
    assert (memory.now, memory.entries(), memory.history) == before


def test_lexical_counts_different_query_words_newest_first():
    entries = [Entry(f"n{i}", text) for i, text in enumerate(["Ada, ADA Bo", "Bo", "ada bo Cy", "Di"])]
    assert [e.id for e in lexical("Ada Bo", entries, 4)] == ["n2", "n0", "n1"]
    assert [e.id for e in lexical("Ada Bo", entries, 1)] == ["n2"]
    assert lexical("zebra", entries, 3) == lexical("", entries, 3) == []


def test_newest_ignores_the_query():
    entries = [Entry(id, id) for id in "abc"]
    assert [e.id for e in newest("a", entries, 2)] == ["c", "b"]
    assert [e.id for e in newest("a", entries, 9)] == ["c", "b", "a"]
    assert newest("a", [], 2) == []


class Counting(BM25):
    """BM25 that says what was added and deleted."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def add(self, ids, passages):
        self.calls.append(("add", list(ids)))
        super().add(ids, passages)

    def delete(self, ids):
        self.calls.append(("delete", list(ids)))
        super().delete(ids)


def test_the_index_follows_what_changed_and_no_more():
    retriever = Counting()
    memory = NoteMemory(RetrieverSearch(retriever))
    ids = [memory.write(f"Ada {i}", cause="test") for i in range(4)]
    memory.read("Ada", 1)
    memory.read("Ada", 1)
    assert retriever.calls == [("add", ids)]
    retriever.calls.clear()
    memory.forget(ids[1], cause="test")
    new = memory.write("Ada again", cause="test")
    memory.read("Ada", 1)
    assert [call for call, _ in retriever.calls] == ["delete", "add"]
    assert retriever.calls[0][1] == ids[1:2] and retriever.calls[1][1] == [new]
    retriever.calls.clear()
    memory.update(ids[2], "Ada changed", cause="test")
    memory.read("Ada", 1)
    assert retriever.calls == [("delete", [ids[2], ids[3], new]), ("add", [ids[2], ids[3], new])]
    assert retriever.ids == [entry.id for entry in memory.entries()]


def test_equal_notes_come_in_their_order_however_they_came_about():
    memory, afresh = NoteMemory(RetrieverSearch(BM25())), NoteMemory(RetrieverSearch(BM25()))
    ids = [memory.write(text, cause="test") for text in ("Bo", "Ada", "Ada")]
    memory.read("Ada", 3)
    memory.update(ids[0], "Ada", cause="test")
    for _ in range(3):
        afresh.write("Ada", cause="test")
    assert memory.read("Ada", 2) == afresh.read("Ada", 2) == memory.entries()[:2]


def test_a_read_that_failed_leaves_a_memory_that_reads():
    retriever = BM25()
    memory = NoteMemory(RetrieverSearch(retriever))
    ids = [memory.write(text, cause="test") for text in ("Ada", "Bo", "Ada again")]
    memory.read("Ada", 1)
    memory.update(ids[1], "Ada too", cause="test")
    add, retriever.add = retriever.add, None
    with pytest.raises(TypeError):
        memory.read("Ada", 3)
    retriever.add = add
    assert [entry.id for entry in memory.read("Ada", 3)] == [ids[0], ids[1], ids[2]]
    assert retriever.ids == ids


def test_a_retriever_that_holds_passages_is_refused():
    retriever = BM25()
    retriever.build(["a"], ["Ada"])
    with pytest.raises(ValueError, match="must start empty, this one holds 1"):
        RetrieverSearch(retriever)
