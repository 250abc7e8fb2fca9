"""Statistics against scipy.stats, hand-computed cases, numeric inversion and simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from common.evaluators.statistics import (
    bootstrap_interval,
    equivalence,
    holm,
    interval,
    mean_interval,
    one_sample,
    paired_difference,
    paired_items,
    paired_ratio,
)

A = [0.45, 0.47, 0.43, 0.52, 0.49]
values = st.floats(-100, 100).map(lambda x: round(x, 3))
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=8)
checked = settings(derandomize=True, deadline=None, max_examples=100)


def test_mean_interval_by_hand():
    # x̄ = 2, s = 1, t_{0.975, 2} = 4.302653: half width 4.302653 / √3
    estimate = mean_interval([1, 2, 3])
    assert (estimate.mean, estimate.n, estimate.p_value) == (2, 3, None)
    assert estimate.high == pytest.approx(2 + 4.30265272974946 / math.sqrt(3), rel=1e-12)
    assert estimate.low == pytest.approx(2 - 4.30265272974946 / math.sqrt(3), rel=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_mean_interval_agrees_with_scipy(confidence):
    estimate = mean_interval(A, confidence)
    assert (estimate.low, estimate.high) == pytest.approx(
        stats.t.interval(confidence, len(A) - 1, np.mean(A), stats.sem(A)), rel=1e-10
    )


def test_one_sample_agrees_with_scipy():
    estimate, reference = one_sample(A, 0.4), stats.ttest_1samp(A, 0.4)
    assert estimate.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(reference.confidence_interval()), rel=1e-10)


@checked
@given(pairs)
def test_paired_difference_agrees_with_scipy(rows):
    a, b = np.array(rows).T
    estimate = paired_difference(a, b)
    if np.std(a - b) > 1e-6:
        reference = stats.ttest_rel(a, b)
        assert estimate.p_value == pytest.approx(reference.pvalue, rel=1e-6)
        assert (estimate.low, estimate.high) == pytest.approx(
            tuple(reference.confidence_interval()), rel=1e-8, abs=1e-8
        )


@checked
@given(pairs)
def test_swapping_operands_flips_the_sign(rows):
    a, b = np.array(rows).T
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.mean, one.low, one.high, one.p_value) == (
        -other.mean,
        -other.high,
        -other.low,
        other.p_value,
    )


@checked
@given(pairs, values)
def test_a_constant_added_to_both_sides_changes_nothing(rows, constant):
    a, b = np.array(rows).T
    one, other = paired_difference(a, b), paired_difference(a + constant, b + constant)
    assert (one.mean, one.low, one.high, one.p_value) == pytest.approx(
        (other.mean, other.low, other.high, other.p_value), rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize("function", [lambda x: one_sample(x, 0.0), mean_interval, bootstrap_interval])
def test_one_value_has_no_interval(function):
    estimate = function([0.3])
    assert (estimate.mean, estimate.low, estimate.high, estimate.n, estimate.p_value) == (0.3, None, None, 1, None)


def test_one_pair_has_no_interval():
    for estimate in (paired_difference([3.0], [1.0]), equivalence([3.0], [1.0], 5), paired_ratio([3.0], [1.0])):
        assert (estimate.low, estimate.high, estimate.n, estimate.p_value) == (None, None, 1, None)


def test_zero_variance_collapses():
    same = one_sample([0.5, 0.5], 0.5)
    assert (same.low, same.mean, same.high, same.p_value) == (0.5, 0.5, 0.5, 1.0)
    assert one_sample([0.5, 0.5], 0.4).p_value == 0.0
    assert bootstrap_interval([2, 2, 2]).low == 2


def test_rounding_is_neither_an_effect_nor_a_variance():
    # 0.3 - 0.1 is 0.19999999999999998 and 0.1 + 0.2 is 0.30000000000000004
    tie = paired_difference([0.3 - 0.1, 0.1 + 0.2, 0.7], [0.2, 0.3, 0.7])
    assert (tie.mean, tie.low, tie.high, tie.p_value) == (0.0, 0.0, 0.0, 1.0)
    lead = paired_difference([0.3, 0.4, 0.9], [0.1, 0.2, 0.7])
    assert lead.low == lead.mean == lead.high == pytest.approx(0.2)
    assert lead.p_value == 0.0
    small = paired_difference([2e-15, 3e-15, 4e-15], [1e-15, 1e-15, 1e-15])  # small units are no rounding
    assert small.mean == pytest.approx(2e-15)
    assert small.low < small.high


def test_intervals_cover_as_often_as_they_say():
    rng, trials, confidence = np.random.default_rng(0), 3000, 0.9
    covered = hits = 0
    for _ in range(trials):
        noise = rng.normal(size=(2, 4))
        estimate = paired_difference(noise[0] + 1.5, noise[1], confidence)
        covered += estimate.low <= 1.5 <= estimate.high
        hits += paired_difference(noise[0], noise[1]).p_value < 0.05
    assert abs(covered / trials - confidence) < 4 * math.sqrt(0.09 / trials)
    assert abs(hits / trials - 0.05) < 4 * math.sqrt(0.0475 / trials)


def test_ratio_interval_inverts_the_paired_test():
    a, b = np.array([6.1, 5.7, 6.4, 6.0]), np.array([1.0, 1.1, 0.9, 1.05])
    estimate = paired_ratio(a, b, ratio=5.0)
    assert estimate.mean == a.mean() / b.mean()
    assert estimate.p_value == pytest.approx(stats.ttest_rel(a, 5.0 * b).pvalue, rel=1e-9)

    def excess(theta):
        return stats.ttest_rel(a, theta * b).pvalue - 0.05

    assert estimate.low == pytest.approx(optimize.brentq(excess, 1, estimate.mean), rel=1e-8)
    assert estimate.high == pytest.approx(optimize.brentq(excess, estimate.mean, 20), rel=1e-8)


@checked
@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=6))
def test_ratio_bounds_are_just_not_rejected(rows):
    a, b = np.array(rows).T
    estimate = paired_ratio(a, b)
    if estimate.low is not None and estimate.high - estimate.low > 1e-3:
        for bound in (estimate.low, estimate.high):
            assert stats.ttest_rel(a, bound * b).pvalue == pytest.approx(0.05, rel=1e-4)


def test_ratio_of_constants_is_exact_and_of_noise_is_unbounded():
    exact = paired_ratio([600, 600, 600], [100, 100, 100], ratio=6)
    assert (exact.low, exact.mean, exact.high, exact.p_value) == (6, 6, 6, 1.0)
    proportional = paired_ratio([6.0, 9.0, 12.0], [2.0, 3.0, 4.0])
    assert (proportional.low, proportional.high) == pytest.approx((3, 3), rel=1e-6)
    noise = paired_ratio([1.0, 2.0, 3.0], [-1.0, 0.1, 1.2])
    assert (noise.low, noise.high) == (None, None)
    assert noise.p_value is not None
    with pytest.raises(ValueError, match="mean of 0"):
        paired_ratio([1, 2], [-1, 1])


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("shift", [0.0, 0.01, -0.03])
def test_equivalence_is_two_one_sided_tests(margin, shift):
    rng = np.random.default_rng(3)
    b = rng.normal(0.5, 0.05, size=6)
    a = b + shift + rng.normal(0, 0.01, size=6)
    estimate = equivalence(a, b, margin)
    above = stats.ttest_1samp(a - b, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(a - b, margin, alternative="less").pvalue
    assert estimate.p_value == pytest.approx(max(above, below), rel=1e-9)
    assert (estimate.low, estimate.high) == pytest.approx(
        tuple(stats.ttest_rel(a, b).confidence_interval(0.90)), rel=1e-9
    )
    assert (estimate.p_value < 0.05) == (-margin < estimate.low and estimate.high < margin)


def test_equivalence_without_variance_is_closed_at_the_margin():
    assert equivalence([0.3, 0.4], [0.1, 0.2], 0.2).p_value == 0.0
    assert equivalence([0.3, 0.4], [0.1, 0.2], 0.19).p_value == 1.0
    assert equivalence([0.3, 0.4], [0.3, 0.4], 0.0).p_value == 0.0


@pytest.mark.parametrize("statistic", [np.mean, np.median, lambda x: float(np.quantile(x, 0.8))])
def test_bootstrap_is_scipys_bca(statistic):
    sample = np.random.default_rng(1).lognormal(size=61)
    estimate = bootstrap_interval(sample, statistic, resamples=499, seed=7)
    reference = stats.bootstrap(
        (sample,), statistic, n_resamples=499, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    assert (estimate.low, estimate.high) == (reference.low, reference.high)
    assert estimate.mean == statistic(sample)
    assert estimate == bootstrap_interval(sample, statistic, resamples=499, seed=7)
    assert estimate != bootstrap_interval(sample, statistic, resamples=499, seed=8)


def test_bootstrap_where_bca_is_undefined_takes_percentiles():
    ties = [1, 1, 1, 1, 1, 1, 1, 2]  # every leave-one-out median is 1: acceleration 0/0
    estimate = bootstrap_interval(ties, np.median, resamples=499)
    assert (estimate.mean, estimate.low, estimate.high) == (1, 1, 1)


def test_declared_skew_takes_the_bootstrap_which_stays_in_range():
    outcomes = [1] * 2 + [0] * 38  # 5% correct: the t interval goes below 0
    assert mean_interval(outcomes).low < 0 <= interval(outcomes, skewed=True).low
    assert interval(outcomes, skewed=True) == bootstrap_interval(outcomes)
    assert interval(outcomes) == mean_interval(outcomes)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_items_agree_with_scipys_exact_permutation_test(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.7, 1, size=n), rng.normal(size=n)
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    estimate = paired_items(a, b)
    assert estimate.p_value == pytest.approx(reference.pvalue, rel=1e-12)
    assert estimate.mean == pytest.approx(np.mean(a - b))


def test_binary_items_are_mcnemars_exact_test():
    a = [1] * 9 + [0] * 2 + [1] * 20  # 11 discordant items, 9 for a
    b = [0] * 9 + [1] * 2 + [1] * 20
    assert paired_items(a, b).p_value == pytest.approx(stats.binomtest(9, 11).pvalue, rel=1e-12)
    assert paired_items(a, a).p_value == 1.0


def test_many_items_are_sampled_with_a_seed():
    a, b = [1] * 32 + [0] * 18, [0] * 32 + [1] * 18
    exact = stats.binomtest(32, 50).pvalue
    estimate = paired_items(a, b, seed=1)
    assert estimate.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))
    assert estimate == paired_items(a, b, seed=1)
    assert paired_items([1.0] * 40, [0.0] * 40).p_value == 1 / 10000  # never 0


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4, 3, 2, 1: .04 .06 .06 .04, then the running maximum
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("bad", [[], [[1, 2]], [1, math.nan], [math.inf]])
def test_values_that_are_no_sample_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(bad)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 and 3"):
        paired_difference([1, 2], [1, 2, 3])


def test_the_import_stays_light():
    code = "import sys, common.evaluators.statistics; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
