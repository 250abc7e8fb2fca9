"""A_n, F_n, LA_n and forgetting events: closed forms by hand, and naive loops copied from the equations."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.evaluators.continual import (
    average_performance,
    forgetting,
    forgetting_events,
    learning,
    never_learned,
    stably_memorised,
)

P = [[0.9], [0.5, 0.8], [0.6, 0.3, 0.7]]


def test_by_hand():
    assert average_performance(P) == pytest.approx((0.6 + 0.3 + 0.7) / 3)
    assert forgetting(P) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.3)) / 2)
    assert learning(P) == pytest.approx((0.8 + 0.7) / 2)


def test_forgetting_compares_with_the_best_earlier_model_not_the_first():
    assert forgetting([[0.2], [0.9, 0.5], [0.6, 0.5, 0.1]]) == pytest.approx(((0.9 - 0.6) + 0.0) / 2)


def test_backward_transfer_is_negative_forgetting():
    assert forgetting([[0.2], [0.5, 0.5]]) == pytest.approx(-0.3)


def test_the_last_corpus_moves_average_and_learning_only():
    moved = [*P[:2], [0.6, 0.3, 0.1]]
    assert forgetting(moved) == forgetting(P)
    assert average_performance(moved) < average_performance(P)
    assert learning(moved) < learning(P)


def test_a_model_that_keeps_everything():
    flat = [[0.4] * (n + 1) for n in range(6)]
    assert (average_performance(flat), forgetting(flat), learning(flat)) == pytest.approx((0.4, 0.0, 0.4))


def naive(P):
    """The equations, with missing entries (o' < o) left out."""
    n = len(P) - 1
    lost = 0.0
    for o in range(n):
        best = None
        for earlier in range(n):
            if earlier >= o:
                difference = P[earlier][o] - P[n][o]
                best = difference if best is None or difference > best else best
        lost += best
    return sum(P[n][o] for o in range(n + 1)) / (n + 1), lost / n, sum(P[o][o] for o in range(1, n + 1)) / n


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(*[st.lists(st.floats(0, 1), min_size=m, max_size=m) for m in range(1, n + 2)])
    )
)
def test_equals_the_naive_loop(rows):
    assert (average_performance(rows), forgetting(rows), learning(rows)) == pytest.approx(naive(rows))


@pytest.mark.parametrize("rows", [[], [[1.0, 2.0]], [[1.0], [1.0]]])
def test_refuses_what_is_no_triangle(rows):
    with pytest.raises(ValueError, match="entries"):
        average_performance(rows)


def test_one_step_has_an_average_but_no_forgetting():
    assert average_performance([[0.3]]) == 0.3
    for metric in (forgetting, learning):
        with pytest.raises(ValueError, match="increment"):
            metric([[0.3]])


#           never  late   lost   twice  always   rows are checks
CHECKS = [[0, 0, 1, 1, 1],
          [0, 0, 1, 0, 1],
          [0, 1, 0, 1, 1],
          [0, 1, 0, 0, 1]]  # fmt: skip


def test_forgetting_events_by_hand():
    assert forgetting_events(CHECKS).tolist() == [0, 0, 1, 2, 0]
    assert stably_memorised(CHECKS).tolist() == [False, True, False, False, True]
    assert never_learned(CHECKS).tolist() == [True, False, False, False, False]


def test_relearning_is_no_event_and_does_not_undo_one():
    assert forgetting_events([[1], [0], [1]]).tolist() == [1]
    assert not stably_memorised([[1], [0], [1]])[0]


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_every_example_is_stable_or_forgotten_or_never_learned(checks):
    events = np.zeros(3, dtype=int)
    for before, after in itertools.pairwise(checks):
        events += np.array([b and not a for b, a in zip(before, after, strict=True)])
    assert forgetting_events(checks).tolist() == events.tolist()
    assert (stably_memorised(checks).astype(int) + never_learned(checks) + (events > 0)).tolist() == [1, 1, 1]


def test_checks_need_two_axes():
    with pytest.raises(ValueError, match=r"\[T, N\]"):
        forgetting_events([True, False])
