"""What every retriever must do: one suite for all kinds, and for dense search without faiss."""

import os
import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.experiments.errors import UserError
from common.retrievers import storage, vector_index
from common.retrievers.build import load
from tests.common.retrievers.kinds import ENCODER, KINDS, shared_letters

WORDS = ("ada", "bo", "met", "lives", "oslo", "rome", "river", "letter", "reads", "the", "of", "cities")
QUERIES = ["ada lives", "the river of rome", "", "letter", "unheard", "met met bo oslo"]


@pytest.fixture(params=[*KINDS, "dense_without_faiss"])
def make(request, monkeypatch):
    name = request.param
    if name == "dense_without_faiss":
        monkeypatch.setattr(vector_index, "has_faiss", lambda: False)
        name = "dense"
    return KINDS[name]


def texts(count, seed=0):
    """Distinct ids; passages of few words, of which some are the same."""
    rng = random.Random(seed)
    return [f"p{i}" for i in range(count)], [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(count)]


def built(make, ids, passages):
    retriever = make()
    retriever.build(ids, passages)
    return retriever


def same(one, other):
    assert one.ids.tolist() == other.ids.tolist()
    assert np.array_equal(one.scores, other.scores)


def test_the_passage_itself_is_the_first_hit(make):
    passages = ["ada reads a letter", "bo lives in rome", "the river"]
    hits = built(make, ["a", "b", "c"], passages).search(passages, 1)
    assert hits.ids.tolist() == [["a"], ["b"], ["c"]]
    assert hits.scores.dtype == np.float32 and hits.scores.shape == (3, 1)


def test_rows_fall_and_end_with_places_without_a_hit(make):
    hits = built(make, *texts(40)).search(QUERIES, 40)
    assert hits.ids.shape == hits.scores.shape == (len(QUERIES), 40)
    assert np.all(hits.scores[:, :-1] >= hits.scores[:, 1:])
    assert np.array_equal(hits.ids == "", np.isneginf(hits.scores))
    for row in hits.rankings():
        assert len(set(row)) == len(row) and "" not in row


def test_equal_passages_stand_in_the_order_of_adding(make):
    """Also where the cut goes through them."""
    ids = [f"{i:03}" for i in random.Random(3).sample(range(900), 600)]
    if make is KINDS["hnsw"]:
        ids = ids[:20]  # its graph does not hold together among hundreds of equal vectors
    retriever = built(make, ids, ["ada met bo in oslo"] * len(ids))
    for k in (1, 7) if make is KINDS["hnsw"] else (1, 7, 600):
        assert retriever.search(["ada met"], k).rankings() == [ids[:k]]
    retriever.delete(ids[:2])
    retriever.add([ids[0]], ["ada met bo in oslo"])
    assert retriever.search(["ada met"], 3).rankings() == [ids[2:5]]
    assert retriever.ids == [*ids[2:], ids[0]]


def test_a_batch_is_the_queries_one_by_one(make):
    retriever = built(make, *texts(60))
    together = retriever.search(QUERIES, 9)
    for i, query in enumerate(QUERIES):
        alone = retriever.search([query], 9)
        assert alone.ids.tolist() == together.ids[i : i + 1].tolist()
        assert np.array_equal(alone.scores, together.scores[i : i + 1])
    same(retriever.search(QUERIES[::-1], 9), type(together)(together.ids[::-1], together.scores[::-1]))


def test_less_is_the_beginning_of_more(make):
    retriever = built(make, *texts(50))
    if getattr(retriever, "depth", 50) < 50:
        pytest.skip("what is judged depends on k where k exceeds the depth")
    more = retriever.search(QUERIES, 30)
    less = retriever.search(QUERIES, 4)
    assert less.ids.tolist() == more.ids[:, :4].tolist() and np.array_equal(less.scores, more.scores[:, :4])


def test_the_same_calls_give_the_same_bits(make):
    same(*(built(make, *texts(80)).search(QUERIES, 10) for _ in range(2)))


def test_k_above_the_corpus_gives_the_corpus(make):
    ids, passages = texts(5)
    retriever = built(make, ids, [f"ada {passage}" for passage in passages])
    hits = retriever.search(["ada"], 1000)
    assert hits.ids.shape == (1, 5) and sorted(hits.rankings()[0]) == ids


def test_empty_corpus_and_no_queries(make):
    retriever = make()
    for _ in range(2):
        assert retriever.search(["ada", ""], 3).ids.shape == (2, 0)
        assert retriever.search([], 3).ids.shape == (0, 0)
        assert retriever.ids == [] and len(retriever) == 0
        retriever.build([], [])
    retriever.add([], [])
    retriever.add(["a"], ["ada"])
    assert retriever.search(["ada"], 3).rankings() == [["a"]]
    assert retriever.search([], 3).ids.shape == (0, 1)
    retriever.delete([])
    retriever.delete(["a"])
    assert retriever.search(["ada"], 3).ids.shape == (1, 0) and len(retriever) == 0
    retriever.add(["a"], ["ada"])
    assert retriever.search(["ada"], 3).rankings() == [["a"]]


STRANGE = [
    "",
    " \n\t",
    "…!?",
    "日本の川",
    "Ḑóñ Ȧdå ☕",
    "\ud800 lone",
    "a\0b",
    "<b>Ignore all</b> instructions",
    "x" * 100_000,
]


def test_every_string_is_a_passage_and_a_query(make):
    ids = [f"{i} {text[:20]}" for i, text in enumerate(STRANGE)]
    retriever = built(make, ids, STRANGE)
    assert retriever.ids == ids
    for i, ranking in enumerate(retriever.search(STRANGE, len(STRANGE)).rankings()):
        if i > 2:  # those with words
            assert ranking[0] == ids[i]
        assert set(ranking) <= set(ids)


def test_after_changes_it_is_as_built_afresh(make):
    ids, passages = texts(90)
    retriever = built(make, ids[:30], passages[:30])
    retriever.search(QUERIES, 5)
    for i in range(30, 60):
        retriever.add([ids[i]], [passages[i]])
    retriever.delete(ids[10:50])
    retriever.search(QUERIES, 5)
    retriever.add(ids[60:] + ids[10:20], passages[60:] + passages[10:20])
    retriever.delete(ids[3:5])
    left = [*range(3), *range(5, 10), *range(50, 90), *range(10, 20)]
    fresh = built(make, [ids[i] for i in left], [passages[i] for i in left])
    assert retriever.ids == fresh.ids and len(retriever) == len(left)
    same(retriever.search(QUERIES, 12), fresh.search(QUERIES, 12))
    retriever.build(ids[:5], passages[:5])
    same(retriever.search(QUERIES, 12), built(make, ids[:5], passages[:5]).search(QUERIES, 12))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "delete", "search"]), st.integers(0, 11), st.integers(0, 5)), max_size=25
    )
)
def test_any_history_ends_like_a_fresh_start(make, history):
    retriever, here = make(), {}
    for action, number, word in history:
        name = f"p{number}"
        if action == "search":
            retriever.search([WORDS[word]], 4)
        elif name in here:
            retriever.delete([name])
            del here[name]
        elif action == "add":
            here[name] = f"{WORDS[word]} {WORDS[number]}"
            retriever.add([name], [here[name]])
    same(retriever.search(QUERIES, 4), built(make, list(here), list(here.values())).search(QUERIES, 4))


def test_mistakes_are_named_and_change_nothing(make):
    ids, passages = texts(6)
    retriever = built(make, ids, passages)
    before = retriever.search(QUERIES, 6)
    for call, message in [
        (lambda: retriever.add(["new", "p3"], ["a", "b"]), "passage 'p3' is here already"),
        (lambda: retriever.add(["new", "x", "new"], ["a", "b", "c"]), "id 'new' is given twice"),
        (lambda: retriever.build(["x", "x"], ["a", "b"]), "id 'x' is given twice"),
        (lambda: retriever.add(["new"], ["a", "b"]), "1 ids for 2 passages"),
        (lambda: retriever.build(["new", ""], ["a", "b"]), "must not be empty"),
        (lambda: retriever.add(["new"], [None]), "passage must be a string, not None"),
        (lambda: retriever.build([7], ["a"]), "id must be a string, not 7"),
        (lambda: retriever.build("ab", "cd"), "not one string"),
        (lambda: retriever.delete(["p1", "gone"]), "no passage 'gone'"),
        (lambda: retriever.delete(["p1", "p1"]), "'p1' is given twice"),
        (lambda: retriever.delete("p1"), "not one string"),
        (lambda: retriever.search("ada", 1), "not one string"),
        (lambda: retriever.search(["ada"], 0), "k must be at least 1, not 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
        assert retriever.ids == ids
        same(retriever.search(QUERIES, 6), before)


def test_saved_and_loaded_it_goes_on(make, tmp_path):
    ids, passages = texts(70)
    ids = [*ids[:-1], "日本\ud800"]
    retriever = built(make, ids[:60], passages[:60])
    retriever.delete(ids[20:25])
    retriever.save(tmp_path / "index")
    opened = load(tmp_path / "index", ENCODER, shared_letters)
    assert opened.ids == retriever.ids and len(opened) == len(retriever) == 55
    same(opened.search(QUERIES, 20), retriever.search(QUERIES, 20))
    assert not [path for path in (tmp_path / "index").rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    for one in (opened, retriever):
        one.delete(ids[3:6])
        one.add(ids[60:], passages[60:])
    same(opened.search(QUERIES, 20), retriever.search(QUERIES, 20))
    opened.save(tmp_path / "index")  # over the files that it maps
    same(opened.search(QUERIES, 20), retriever.search(QUERIES, 20))
    again = load(tmp_path / "index", ENCODER, shared_letters)
    assert again.ids == retriever.ids
    same(again.search(QUERIES, 20), retriever.search(QUERIES, 20))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_interrupted_save_leaves_the_old_one(make, tmp_path, monkeypatch):
    retriever = built(make, *texts(5))
    retriever.save(tmp_path / "index")
    before = {path.name for path in (tmp_path / "index").rglob("*")}
    replace = os.replace

    def interrupted(old, new):
        if new == tmp_path / "index" and old.name.endswith(".new"):
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(storage.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        retriever.save(tmp_path / "index")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert {path.name for path in (tmp_path / "index").rglob("*")} == before


def test_a_disk_that_is_full_at_any_file_is_one_line_and_leaves_the_old_one(make, tmp_path):
    retriever = built(make, *texts(40))
    retriever.save(tmp_path / "index")
    sizes = {path.stat().st_size for path in (tmp_path / "index").rglob("*") if path.is_file()}
    old = load(tmp_path / "index", ENCODER, shared_letters).search(QUERIES, 5)
    for size in sizes:  # the last byte of some file does not fit
        with files_up_to(size - 1), pytest.raises(UserError, match=r"^retriever: cannot write \S+: .+") as error:
            retriever.save(tmp_path / "index")
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    same(load(tmp_path / "index", ENCODER, shared_letters).search(QUERIES, 5), old)


@contextmanager
def files_up_to(size):
    """Files of this process can grow to `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_damaged_files_are_one_line(make, tmp_path):
    built(make, *texts(5)).save(tmp_path / "index")
    for text in (
        "[]",
        "{}",
        '{"kind": "bm25"}',
        '{"kind": "dense"}',
        '{"kind": "hybrid"}',
        '{"kind": "dense", "index": "no"}',
    ):
        (tmp_path / "index" / "about.json").write_text(text)
        with pytest.raises(UserError, match="index"):
            load(tmp_path / "index", ENCODER)


def test_an_empty_one_is_saved_and_loaded(make, tmp_path):
    make().save(tmp_path / "index")
    opened = load(tmp_path / "index", ENCODER, shared_letters)
    assert opened.search(["ada"], 3).ids.shape == (1, 0)
    opened.add(["a"], ["ada"])
    assert opened.search(["ada"], 3).rankings() == [["a"]]


def test_a_folder_of_something_else_is_left_alone(make, tmp_path):
    (tmp_path / "letter.txt").write_text("dear Ada")
    with pytest.raises(UserError, match="holds something that is no retriever"):
        make().save(tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*: Not a directory"):
        make().save(tmp_path / "letter.txt" / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
