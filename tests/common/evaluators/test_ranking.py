"""Hits@k against hand-made rankings."""

import pytest

from common.evaluators.ranking import hits_at_k

RANKINGS = [[3, 1, 2], [0, 2, 1], [2]]


@pytest.mark.parametrize(("k", "hits"), [(1, 1), (2, 2), (3, 2), (10, 2)])
def test_counts_gold_within_the_first_k(k, hits):
    assert hits_at_k(RANKINGS, gold=[3, 2, 1], k=k) == hits / 3


def test_all_or_none():
    assert hits_at_k(RANKINGS, gold=[3, 0, 2], k=1) == 1
    assert hits_at_k(RANKINGS, gold=[9, 9, 9], k=3) == 0
    assert hits_at_k([[], []], gold=[0, 1], k=5) == 0


def test_never_falls_with_k():
    values = [hits_at_k(RANKINGS, gold=[2, 1, 0], k=k) for k in range(1, 5)]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("rankings", "gold", "k"),
    [([], [], 1), ([[1]], [1, 2], 1), ([[1]], [1], 0), ([[1, 1]], [1], 2)],
    ids=["no queries", "lengths differ", "k = 0", "repeated id"],
)
def test_refuses_what_has_no_value(rankings, gold, k):
    with pytest.raises(ValueError):
        hits_at_k(rankings, gold, k)
