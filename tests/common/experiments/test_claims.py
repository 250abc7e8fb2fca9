"""Claims: every kind and every status, on scores whose answer is known; invariances; planted flips."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.experiments.claims import (
    AllOf,
    AtLeast,
    AtMost,
    EqualWithin,
    Greater,
    Monotone,
    NotWorse,
    Operand,
    Order,
    RatioAtLeast,
    RatioAtMost,
    evaluate,
)

NOISE = (0.0, 0.013, -0.011, 0.006, -0.004)
A, B, C = (Operand(row, "corpus", "hits") for row in "abc")
checked = settings(derandomize=True, deadline=None, max_examples=100)


def scores(**rows):
    """Scores of one metric: per row the values of seeds 0, 1, ... or a dict for chosen seeds."""
    return {
        (row, "corpus", "hits"): dict(enumerate(values)) if isinstance(values, list) else values
        for row, values in rows.items()
    }


def around(mean, noise=NOISE):
    return [mean + e for e in noise]


REVERSED = tuple(reversed(NOISE))
HALF, NEAR, HIGH = around(0.5), around(0.501, REVERSED), around(0.9, REVERSED)
CASES = [  # predicate, then the values of b (a is HALF) for: holds, fails, underpowered
    (Greater(A, B), around(0.1, REVERSED), HIGH, NEAR),
    (Greater(A, B, margin=0.2), around(0.1, REVERSED), around(0.4, REVERSED), around(0.3, REVERSED)),
    (RatioAtLeast(A, B, 2.0), around(0.1, REVERSED), around(0.4, REVERSED), around(0.25, REVERSED)),
    (RatioAtMost(A, B, 2.0), around(0.4, REVERSED), around(0.1, REVERSED), around(0.25, REVERSED)),
    (EqualWithin(A, B, 0.05), NEAR, HIGH, around(0.548, REVERSED)),
    (NotWorse(A, B, 0.05), NEAR, HIGH, around(0.545, REVERSED)),
    (NotWorse(A, B, 0.05, better="lower"), NEAR, around(0.1, REVERSED), around(0.455, REVERSED)),
    (Order((A, B)), around(0.1, REVERSED), HIGH, NEAR),
    (Order((A, B), better="lower"), HIGH, around(0.1, REVERSED), NEAR),
    (Monotone((A, B), "increasing"), HIGH, around(0.1, REVERSED), NEAR),
    (Monotone((A, B), "decreasing"), around(0.1, REVERSED), HIGH, NEAR),
    (AllOf((Greater(A, B), AtLeast(A, 0.2))), around(0.1, REVERSED), HIGH, NEAR),
]


@pytest.mark.parametrize(("predicate", "holds", "fails", "underpowered"), CASES)
def test_each_status_of_each_kind(predicate, holds, fails, underpowered):
    for values, status in ((holds, "holds"), (fails, "fails"), (underpowered, "underpowered")):
        outcome = evaluate(predicate, scores(a=HALF, b=values))
        assert outcome.status == status, outcome.detail
        assert outcome.n == 5
        assert outcome.ci_low <= outcome.effect <= outcome.ci_high
    assert evaluate(predicate, scores(a=HALF)).status == "not tested"
    assert evaluate(predicate, scores(a={0: 0.5, 1: 0.6}, b={2: 0.1, 3: 0.1})).status == "not tested"
    one_seed = evaluate(predicate, scores(a=HALF[:1], b=holds[:1]))
    assert (one_seed.status, one_seed.ci_low, one_seed.p_value, one_seed.n) == ("underpowered", None, None, 1)


@pytest.mark.parametrize(("kind", "holds", "fails"), [(AtLeast, 0.3, 0.7), (AtMost, 0.7, 0.3)])
def test_each_status_of_thresholds(kind, holds, fails):
    assert evaluate(kind(A, holds), scores(a=HALF)).status == "holds"
    assert evaluate(kind(A, fails), scores(a=HALF)).status == "fails"
    assert evaluate(kind(A, 0.501), scores(a=HALF)).status == "underpowered"
    assert evaluate(kind(A, holds), scores(b=HALF)).status == "not tested"
    assert evaluate(kind(A, holds), scores(a=[0.5])).status == "underpowered"


def test_effects_by_hand():
    data = scores(a=HALF, b=around(0.2, REVERSED))
    mean_a, mean_b = 0.5008, 0.2008
    for predicate, effect in [
        (Greater(A, B), mean_a - mean_b),
        (Greater(A, B, 0.1), mean_a - mean_b - 0.1),
        (NotWorse(A, B, 0.1), mean_a - mean_b + 0.1),
        (NotWorse(A, B, 0.1, "lower"), mean_b + 0.1 - mean_a),
        (AtLeast(A, 0.3), mean_a - 0.3),
        (AtMost(A, 0.6), 0.6 - mean_a),
        (RatioAtLeast(A, B, 2), mean_a - 2 * mean_b),
        (RatioAtMost(A, B, 3), 3 * mean_b - mean_a),
        (EqualWithin(A, B, 0.4), 0.4 - (mean_a - mean_b)),
        (EqualWithin(B, A, 0.4), 0.4 - (mean_a - mean_b)),
    ]:
        assert evaluate(predicate, data).effect == pytest.approx(effect), predicate


def test_interval_and_p_are_those_of_the_paired_t_test():
    a, b = HALF, around(0.49, REVERSED)
    reference = stats.ttest_rel(a, b)
    outcome = evaluate(Greater(A, B), scores(a=a, b=b))
    assert outcome.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (outcome.ci_low, outcome.ci_high) == pytest.approx(tuple(reference.confidence_interval()), rel=1e-9)


def test_equal_within_shows_the_room_left_by_the_90_percent_interval():
    a, b = HALF, around(0.49, REVERSED)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.90)
    outcome = evaluate(EqualWithin(A, B, 0.05), scores(a=a, b=b))
    nearest_to_zero = 0 if low <= 0 <= high else min(abs(low), abs(high))
    assert (outcome.ci_low, outcome.ci_high) == pytest.approx((0.05 - max(abs(low), abs(high)), 0.05 - nearest_to_zero))


def test_exact_ties_without_variance():
    tie = scores(a=[0.3 - 0.1] * 3, b=[0.2] * 3)
    assert evaluate(Greater(A, B), tie).status == "fails"  # strictly greater it is not
    assert evaluate(Order((A, B)), tie).status == "fails"
    assert evaluate(Monotone((A, B), "increasing"), tie).status == "holds"
    assert evaluate(Monotone((A, B), "decreasing"), tie).status == "holds"
    assert evaluate(EqualWithin(A, B, 0.0), tie).status == "holds"
    assert evaluate(NotWorse(A, B, 0.0), tie).status == "holds"
    assert evaluate(AtLeast(A, 0.2), tie).status == "holds"
    assert evaluate(AtMost(A, 0.2), tie).status == "holds"
    assert evaluate(RatioAtLeast(A, B, 1.0), tie).status == "holds"
    assert evaluate(EqualWithin(A, B, 0.2), scores(a=[0.3] * 2, b=[0.1] * 2)).status == "holds"


def test_only_common_seeds_count_and_the_rest_is_named():
    outcome = evaluate(Greater(A, B), scores(a={0: 1.0, 1: 2.0, 5: 99.0}, b={1: 1.0, 0: 0.5, 7: -99.0}))
    assert (outcome.effect, outcome.n) == (0.75, 2)
    assert "unpaired seeds left out: 5, 7" in outcome.detail


def test_pairing_sees_what_the_spread_over_seeds_hides():
    easy_and_hard = [0.1, 0.5, 0.9, 0.3, 0.7]
    lead = [x + 0.02 + e / 10 for x, e in zip(easy_and_hard, NOISE, strict=True)]
    assert evaluate(Greater(A, B), scores(a=lead, b=easy_and_hard)).status == "holds"
    assert evaluate(Greater(A, B), scores(a=lead, b=easy_and_hard[::-1])).status == "underpowered"


def test_operands_may_differ_in_metric_and_column():
    data = {("a", "nq", "f_index"): {0: 0.8, 1: 0.82}, ("a", "msmarco", "f_hits"): {0: 0.3, 1: 0.31}}
    outcome = evaluate(Greater(Operand("a", "nq", "f_index"), Operand("a", "msmarco", "f_hits")), data)
    assert outcome.status == "holds"
    assert "f_index(a, nq) = 0.81 > f_hits(a, msmarco) = 0.305" in outcome.detail


def test_ratio_is_told_and_a_negative_denominator_is_no_ratio():
    outcome = evaluate(RatioAtLeast(A, B, 3.0), scores(a=[600, 600, 600], b=[100, 100, 100]))
    assert (outcome.status, outcome.effect) == ("holds", 300)
    assert "ratio 6 [6, 6]" in outcome.detail
    assert evaluate(RatioAtMost(A, B, 2.0), scores(a=HALF, b=[-x for x in HALF])).status == "not tested"
    assert evaluate(RatioAtLeast(A, B, 2.0), scores(a=HALF, b=[0.0] * 5)).status == "holds"
    assert evaluate(RatioAtMost(A, B, 2.0), scores(a=HALF, b=[0.0] * 5)).status == "fails"


def test_the_metric_is_that_of_the_weakest_part():
    size, small = Operand("a", "corpus", "size"), {("a", "corpus", "size"): {0: 7.0, 1: 8.0, 2: 7.5}}
    data = {**scores(a=[0.5, 0.52, 0.51], b=[0.4, 0.43, 0.41]), **small}
    for limit, metric in ((7.6, "size"), (3.0, "size"), (1000.0, "hits")):  # underpowered, fails, holds by far
        outcome = evaluate(AllOf((Greater(A, B), AtMost(size, limit))), data)
        assert (outcome.metric, outcome.effect) == (
            metric,
            pytest.approx(0.0967 if metric == "hits" else limit - 7.5, abs=1e-4),
        )
    assert evaluate(AllOf((Greater(A, B), AtMost(size, 9.0))), scores(a=[0.5], b=[0.4])).metric == "size"  # no values
    assert evaluate(RatioAtMost(size, A, 20.0), data).metric == "size"


def test_a_part_that_fails_fails_the_whole_and_is_shown():
    data = scores(a=HALF, b=around(0.1, REVERSED), c=HIGH)
    outcome = evaluate(Order((A, B, C)), data)
    part = evaluate(Greater(B, C), data)
    assert (outcome.status, outcome.effect, outcome.p_value) == ("fails", part.effect, part.p_value)
    assert [line.split(":")[0] for line in outcome.detail.splitlines()] == ["holds", "fails"]


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "underpowered"], "underpowered"),
        (["underpowered", "not tested", "holds"], "not tested"),
        (["not tested", "fails", "underpowered"], "fails"),
    ],
)
def test_the_worst_part_decides(statuses, whole):
    part = {
        "holds": AtLeast(A, 0.3),
        "fails": AtLeast(A, 0.7),
        "underpowered": AtLeast(A, 0.501),
        "not tested": AtLeast(C, 0.1),
    }
    data = scores(a=HALF)
    outcome = evaluate(AllOf(tuple(part[status] for status in statuses)), data)
    assert outcome.status == whole
    assert outcome.effect == evaluate(part[whole], data).effect
    assert outcome.detail.count("\n") == len(statuses) - 1
    nested = AllOf((AllOf(tuple(part[status] for status in statuses)), part["holds"]))
    assert evaluate(nested, data).status == whole


rows_of_seeds = st.lists(
    st.lists(st.floats(0, 1).map(lambda x: round(x, 2)), min_size=4, max_size=4), min_size=3, max_size=4
)


@checked
@given(rows_of_seeds)
def test_order_is_its_pairs(rows):
    steps = [[0.6 * (len(rows) - i) + x / 4 for x in row] for i, row in enumerate(rows)]  # often in order
    data = scores(**{f"r{i}": row for i, row in enumerate(steps)})
    operands = tuple(Operand(f"r{i}", "corpus", "hits") for i in range(len(rows)))
    whole = evaluate(Order(operands), data)
    adjacent = [evaluate(Greater(a, b), data) for a, b in pairwise(operands)]
    if whole.status == "holds":  # then every pair holds, neighbours or not: standard deviations are subadditive
        assert all(evaluate(Greater(a, b), data).status == "holds" for a, b in combinations(operands, 2))
        assert whole.p_value == max(part.p_value for part in adjacent)
    assert (whole.status == "fails") == any(part.status == "fails" for part in adjacent)
    assert whole == evaluate(Order(operands[::-1], better="lower"), data)


@checked
@given(rows_of_seeds)
def test_swapped_operands_swap_holds_and_fails(rows):
    data = scores(a=rows[0], b=rows[1])
    one, other = evaluate(Greater(A, B), data), evaluate(Greater(B, A), data)
    assert (one.effect, one.ci_low, one.p_value) == (-other.effect, -other.ci_high, other.p_value)
    if rows[0] != rows[1]:
        swap = {"holds": "fails", "fails": "holds", "underpowered": "underpowered"}
        assert other.status == swap[one.status]
    assert evaluate(EqualWithin(A, B, 0.1), data).effect == evaluate(EqualWithin(B, A, 0.1), data).effect


@checked
@given(rows_of_seeds, st.sampled_from([case[0] for case in CASES]))
def test_the_interval_alone_tells_the_status(rows, predicate):
    outcome = evaluate(predicate, scores(a=rows[0], b=rows[1]))
    if outcome.ci_low > 0:
        assert outcome.status == "holds"
    elif outcome.ci_high < 0:
        assert outcome.status == "fails"
    elif outcome.ci_low < 0 < outcome.ci_high:
        assert outcome.status == "underpowered"


@checked
@given(rows_of_seeds, st.floats(-3, 3).map(lambda x: round(x, 2)))
def test_a_shift_of_all_scores_changes_no_comparison(rows, shift):
    data = scores(a=rows[0], b=rows[1])
    moved = scores(a=[x + shift for x in rows[0]], b=[x + shift for x in rows[1]])
    for predicate in (Greater(A, B), EqualWithin(A, B, 0.1), NotWorse(A, B, 0.1), Order((A, B))):
        assert evaluate(predicate, moved).effect == pytest.approx(evaluate(predicate, data).effect, abs=1e-9)


def test_a_planted_fault_flips_the_claim():
    """Generative memory fed wrong pairs drops below plain continual indexing: the claim turns from holds to fails."""
    plain, newest = around(0.28, REVERSED), around(0.19)
    claim = Order((A, B, C))
    assert evaluate(claim, scores(a=around(0.46), b=plain, c=newest)).status == "holds"
    assert evaluate(claim, scores(a=around(0.22), b=plain, c=newest)).status == "fails"
    assert evaluate(claim, scores(a=plain, b=plain, c=newest)).status == "fails"  # the fault makes the two rows one
