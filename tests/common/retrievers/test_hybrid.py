"""Reciprocal rank fusion by hand, and parts that fail."""

import random

import numpy as np
import pytest

from common.retrievers.bm25 import BM25
from common.retrievers.dense import DenseRetriever
from common.retrievers.hybrid import HybridRetriever, reciprocal_ranks
from common.retrievers.rerank import RerankedRetriever
from common.retrievers.retriever import no_hits
from tests.common.retrievers.kinds import ENCODER, shared_letters


class Fixed(BM25):
    """Gives a ranking that it was told, whatever the query."""

    def __init__(self, *ranking):
        super().__init__()
        self.ranking = ranking

    def search(self, queries, k):
        hits = no_hits(len(queries), min(k, len(self)))
        found = self.ranking[:k]
        hits.ids[:, : len(found)], hits.scores[:, : len(found)] = found, 1
        return hits


def test_by_hand():
    scores = reciprocal_ranks([["a", "b", "c"], ["c", "a"], ["d"]])
    assert scores == pytest.approx({"a": 1 / 61 + 1 / 62, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 61})
    assert reciprocal_ranks([["a", "b"]], smoothing=0) == {"a": 1, "b": 1 / 2}
    assert reciprocal_ranks([]) == {}


def test_the_order_of_the_retrievers_does_not_matter_to_a_bit():
    names = [str(i) for i in range(100)]
    ranks = [random.Random(seed).sample(names, 100) for seed in range(4)]
    assert reciprocal_ranks(ranks) == reciprocal_ranks(ranks[::-1]) == reciprocal_ranks([*ranks[1:], ranks[0]])


def test_fused_hits_and_their_ties():
    hybrid = HybridRetriever([Fixed("c", "b", "a"), Fixed("b", "c", "d")])
    hybrid.build(["a", "b", "c", "d", "e"], [""] * 5)
    hits = hybrid.search(["any"], 5)
    assert hits.ids.tolist() == [["b", "c", "a", "d", ""]]  # b before c, a before d: equal, the earlier first
    expected = np.float32([1 / 61 + 1 / 62, 1 / 61 + 1 / 62, 1 / 63, 1 / 63, -np.inf])
    assert np.array_equal(hits.scores[0], expected)
    assert HybridRetriever([Fixed()]).search(["any"], 3).ids.shape == (1, 0)


def test_depth_cuts_the_rankings_but_never_below_k():
    shallow = HybridRetriever([Fixed("a", "b", "c"), Fixed("c", "d", "e")], depth=1)
    shallow.build(list("abcde"), [""] * 5)
    assert shallow.search(["any"], 1).rankings() == [["a"]]  # a and c: of equal ones the earlier
    assert shallow.search(["any"], 3).rankings() == [["c", "a", "b"]]


class Failing(BM25):
    broken = False

    def _terms(self, passage):
        if self.broken:
            raise KeyboardInterrupt
        return super()._terms(passage)


def test_when_one_part_fails_the_others_take_the_addition_back():
    last = Failing()
    hybrid = HybridRetriever([BM25(), DenseRetriever(ENCODER), last])
    hybrid.build(["a"], ["ada"])
    last.broken = True
    with pytest.raises(KeyboardInterrupt):
        hybrid.add(["b"], ["bo"])
    assert [part.ids for part in hybrid.retrievers] == [["a"]] * 3 and hybrid.ids == ["a"]
    with pytest.raises(KeyboardInterrupt):
        hybrid.build(["c"], ["cy"])
    assert [part.ids for part in hybrid.retrievers] == [[]] * 3 and hybrid.ids == []


def test_a_judge_over_a_hybrid_that_failed_is_empty_too():
    last = Failing()
    reranked = RerankedRetriever(HybridRetriever([BM25(), last]), shared_letters)
    reranked.build(["a"], ["ada"])
    with pytest.raises(ValueError, match="given twice"):
        reranked.build(["b", "b"], ["bo", "bo"])
    assert reranked.ids == ["a"] and reranked.search(["ada"], 1).rankings() == [["a"]]
    last.broken = True
    with pytest.raises(KeyboardInterrupt):
        reranked.build(["b"], ["bo"])
    assert reranked.ids == [] and reranked.search(["ada"], 1).ids.shape == (1, 0)


def test_parts_must_agree():
    one, other = BM25(), BM25()
    one.build(["a"], ["ada"])
    with pytest.raises(ValueError, match="same passages"):
        HybridRetriever([one, other])
    with pytest.raises(ValueError, match="at least one"):
        HybridRetriever([])
    other.build(["a"], ["ada"])
    assert HybridRetriever([one, other]).search(["ada"], 1).rankings() == [["a"]]
