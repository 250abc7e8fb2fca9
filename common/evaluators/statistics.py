"""Intervals, paired tests and equivalence for figures over seeds or over items.

Which interval:

  - over seeds (3 to 10 training runs, a figure that is itself an average): Student t, `mean_interval` and the
    paired functions. A bootstrap of three values has no more to draw from than those three, and is far too narrow.
  - over items (tens to thousands of questions) with heavy skew, many ties or 0/1 outcomes, and for medians and other
    statistics that are no mean: the t interval is wrong (symmetric, may leave [0, 1]); `bootstrap_interval`.
  - one method against another on the same items: `paired_items`.

The caller declares the choice (`interval(values, skewed=True)`); choosing after a look at the data would bias it.

Zero variance, n >= 2: the interval collapses to the mean and p is 0, or 1 when the mean equals the threshold. That is
right for counts (updates, bytes) and generous for coarse metrics that agree by chance; use more seeds there.
One value: no interval and no p (None), never a guess at the variance.
Rounding: differences below 1e-12 of the operands' size count as zero, so that 0.3 - 0.1 equals 0.2.

Imports numpy and scipy.special only; scipy.stats, slow to import, is loaded by the bootstrap alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

RESOLUTION = 1e-12  # relative; see "Rounding" above
EXACT_ITEMS = 16  # sign flips are enumerated up to 2^16, sampled beyond

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its interval and test.

    Attributes:
        mean: the estimate (a mean unless the function says otherwise), in units of the values.
        low, high: bounds of the interval; None where it is undefined (one value) or unbounded (`paired_ratio`).
        n: values or pairs behind it.
        p_value: two-sided unless the function says otherwise; None where nothing is tested or n is 1.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p_value: float | None = None


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean with its Student t interval: x̄ ± t s / √n, n - 1 degrees of freedom.

    Args:
        values: [N], N >= 1, finite.

    Raises:
        ValueError: no values, not one-dimensional, or not finite.
    """
    sample = _vector(values)
    return replace(_student(sample, 0.0, _size(sample), confidence), p_value=None)


def one_sample(values: ArrayLike, threshold: float, confidence: float = 0.95) -> Estimate:
    """Mean with its t interval, and the two-sided p of `mean == threshold` (one-sample t test)."""
    sample = _vector(values)
    return _student(sample, threshold, max(_size(sample), abs(threshold)), confidence)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Estimate:
    """mean(a - b) with its t interval, and the two-sided p of no difference (paired t test).

    Args:
        a, b: [N] each; a[i] and b[i] share their seed.

    Raises:
        ValueError: the lengths differ, or as `mean_interval`.
    """
    left, right = _paired(a, b)
    return _student(left - right, 0.0, max(_size(left), _size(right)), confidence)


def paired_ratio(a: ArrayLike, b: ArrayLike, ratio: float = 1.0, confidence: float = 0.95) -> Estimate:
    """mean(a) / mean(b) with Fieller's interval, and the two-sided p of `mean(a) == ratio * mean(b)`.

    The interval holds every θ that the paired t test of mean(a - θ b) = 0 does not reject (Fieller 1954):

        (ā - θ b̄)² <= t² (s_aa - 2 θ s_ab + θ² s_bb) / n

    It is unbounded, and given as None, when mean(b) itself cannot be told from zero; p stays defined then.

    Raises:
        ValueError: mean(b) is 0, or as `paired_difference`.
    """
    left, right = _paired(a, b)
    n, mean_a, mean_b = len(left), float(left.mean()), float(right.mean())
    if mean_b == 0:
        raise ValueError("a ratio to a mean of 0 is undefined")
    test = paired_difference(left, ratio * right, confidence)
    if n == 1:
        return replace(test, mean=mean_a / mean_b)
    (s_aa, s_ab), (_, s_bb) = np.cov(left, right)
    k = _quantile(n, confidence) ** 2 / n
    leading = mean_b**2 - k * s_bb
    if leading <= 0:
        return replace(test, mean=mean_a / mean_b, low=None, high=None)
    # (āb̄ - k s_ab)² - leading (ā² - k s_aa), expanded: no cancellation when the variances vanish
    spread = s_aa * mean_b**2 - 2 * s_ab * mean_a * mean_b + s_bb * mean_a**2
    root = math.sqrt(max(0.0, k * spread - k**2 * (s_aa * s_bb - s_ab**2)))
    centre = mean_a * mean_b - k * s_ab
    return replace(test, mean=mean_a / mean_b, low=(centre - root) / leading, high=(centre + root) / leading)


def equivalence(a: ArrayLike, b: ArrayLike, margin: float, confidence: float = 0.90) -> Estimate:
    """mean(a - b) with its 90% interval, and the p of two one-sided tests (TOST, Schuirmann 1987).

    The null is a difference of more than `margin`: a small p says that a and b are equal within it. p < 0.05 exactly
    when the 90% interval lies inside [-margin, margin].

    Args:
        margin: largest difference that counts as equal, >= 0, in units of the values.
    """
    left, right = _paired(a, b)
    size = max(_size(left), _size(right), margin)
    estimate = _student(left - right, 0.0, size, confidence)
    if estimate.n == 1:
        return estimate
    room, error = margin - abs(estimate.mean), _standard_error(left - right, size)
    if error == 0:
        return replace(estimate, p_value=0.0 if room >= -RESOLUTION * size else 1.0)
    return replace(estimate, p_value=float(stdtr(estimate.n - 1, -room / error)))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> Estimate:
    """A statistic of many values with its BCa bootstrap interval (Efron 1987); same seed, same interval.

    For items, not for a handful of seeds (see the top). Where BCa is undefined (its acceleration is 0/0 or its bias
    infinite, as for a median among ties) the percentile interval stands in.

    Args:
        values: [N] exchangeable values.
        statistic: function of a vector, faster when it takes `axis`; `Estimate.mean` is its value on all of them.
    """
    sample = _vector(values)
    n, estimate = len(sample), float(statistic(sample))
    if n == 1:
        return Estimate(estimate, None, None, 1)
    if np.ptp(sample) <= RESOLUTION * _size(sample):
        return Estimate(estimate, estimate, estimate, n)
    import warnings

    from scipy import stats

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            bounds = stats.bootstrap(
                (sample,),
                statistic,
                confidence_level=confidence,
                n_resamples=resamples,
                batch=max(1, 2**22 // n),
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(bounds.low) and math.isfinite(bounds.high):
            break
    return Estimate(estimate, float(bounds.low), float(bounds.high), n)


def interval(values: ArrayLike, skewed: bool = False, confidence: float = 0.95) -> Estimate:
    """Mean with the interval that suits what the values are: `skewed` items (0/1 too) take the bootstrap, else t."""
    return bootstrap_interval(values, np.mean, confidence) if skewed else mean_interval(values, confidence)


def paired_items(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Estimate:
    """mean(a - b) over items with its BCa interval, and the two-sided p of a sign-flip permutation test.

    If the two methods do not differ, each item's difference is as likely with either sign. All sign patterns are
    enumerated up to 16 differing items, else `resamples` are drawn (p = (1 + hits) / (1 + resamples), Phipson & Smyth
    2010). For 0/1 outcomes this is McNemar's exact test.

    Args:
        a, b: [N] one score per item, in the same order. Average an item over seeds first: two seeds of one question
            are not two questions.
    """
    left, right = _paired(a, b)
    differences = left - right
    differences[np.abs(differences) <= RESOLUTION * max(_size(left), _size(right))] = 0.0
    p_value = _sign_flip(differences[differences != 0], resamples, seed)
    return replace(bootstrap_interval(differences, np.mean, confidence, resamples, seed), p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: reject those below a level and the
    chance of any false rejection stays below it.

    p̃_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))    for sorted p_(1) <= ... <= p_(m)
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _student(sample: Vector, threshold: float, size: float, confidence: float) -> Estimate:
    """Mean, t interval and two-sided p of `mean == threshold`; below RESOLUTION * size all is rounding."""
    n, mean = len(sample), float(sample.mean())
    if abs(mean - threshold) <= RESOLUTION * size:
        mean = threshold
    if n == 1:
        return Estimate(mean, None, None, 1)
    error = _standard_error(sample, size)
    if error == 0:
        return Estimate(mean, mean, mean, n, 1.0 if mean == threshold else 0.0)
    half = _quantile(n, confidence) * error
    return Estimate(mean, mean - half, mean + half, n, float(2 * stdtr(n - 1, -abs(mean - threshold) / error)))


def _standard_error(sample: Vector, size: float) -> float:
    """s / √n, and 0 when the values differ by rounding alone."""
    deviation = float(sample.std(ddof=1))
    return 0.0 if deviation <= RESOLUTION * size else deviation / math.sqrt(len(sample))


def _quantile(n: int, confidence: float) -> float:
    """Two-sided Student t quantile for the mean of n values."""
    return float(stdtrit(n - 1, (1 + confidence) / 2))


def _sign_flip(differences: Vector, resamples: int, seed: int) -> float:
    """Two-sided p of |sum| under random signs; exact for few differences, Monte Carlo otherwise."""
    m = len(differences)
    observed = abs(float(differences.sum())) - RESOLUTION * float(np.abs(differences).sum())
    if m <= EXACT_ITEMS:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)  # [2^m, m]
        return float(np.mean(np.abs(signs @ differences) >= observed))
    rng, hits, drawn = np.random.default_rng(seed), 0, 0
    while drawn < resamples:
        count = min(max(1, 2**22 // m), resamples - drawn)
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(count, m), dtype=np.int8)
        hits += int(np.sum(np.abs(signs @ differences) >= observed))
        drawn += count
    return (1 + hits) / (1 + resamples)


def _size(sample: Vector) -> float:
    return float(np.max(np.abs(sample)))


def _vector(values: ArrayLike) -> Vector:
    sample = np.array(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.all(np.isfinite(sample)):
        raise ValueError(f"expected at least one finite value in one dimension, got {values!r}")
    return sample


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Vector, Vector]:
    left, right = _vector(a), _vector(b)
    if len(left) != len(right):
        raise ValueError(f"pairs need equal lengths, got {len(left)} and {len(right)}")
    return left, right
