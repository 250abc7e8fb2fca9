"""Continual-learning metrics: average, forgetting and learning of a sequence of corpora; forgetting events.

A, F and LA as in DSI++ (Mehta et al., EMNLP 2023) and, for classification, Chaudhry et al. (ECCV 2018);
forgetting events as in Toneva et al. (ICLR 2019).

Notation: P[n][o] is the metric on corpus o after training step n, for o <= n: a lower triangle, because a
corpus that has not arrived cannot be measured. P has rows 0..n.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = Sequence[Sequence[float]]


def check_triangle(P: Matrix) -> None:
    """Raise ValueError unless row n of P has n + 1 entries."""
    widths = [len(row) for row in P]
    if not widths or widths != list(range(1, len(widths) + 1)):
        raise ValueError(f"row n must have n + 1 entries, got widths {widths}")


def average_performance(P: Matrix) -> float:
    """A_n = 1/(n+1) sum_{o=0..n} P[n][o]: how good the last model is on everything that has arrived."""
    check_triangle(P)
    return float(np.mean(P[-1]))


def forgetting(P: Matrix) -> float:
    """F_n = 1/n sum_{o=0..n-1} max_{o'=o..n-1} (P[o'][o] - P[n][o]): loss against the best earlier model.

    Negative when the last model is the best one (backward transfer). The last corpus does not count.

    Raises:
        ValueError: fewer than two rows, for which nothing can have been forgotten.
    """
    check_triangle(P)
    n = len(P) - 1
    if n < 1:
        raise ValueError("forgetting needs at least one increment")
    return float(np.mean([max(P[earlier][o] for earlier in range(o, n)) - P[n][o] for o in range(n)]))


def learning(P: Matrix) -> float:
    """LA_n = 1/n sum_{o=1..n} P[o][o]: how well each new corpus is learned when it arrives.

    Raises:
        ValueError: fewer than two rows.
    """
    check_triangle(P)
    if len(P) < 2:
        raise ValueError("learning needs at least one increment")
    return float(np.mean([P[o][o] for o in range(1, len(P))]))


def forgetting_events(correct: ArrayLike) -> NDArray[np.int64]:
    """Per example, how often it went from correct at one check to wrong at the next (1 -> 0), [N].

    Args:
        correct: bool, [T, N]; row t is the t-th check.
    """
    checks = _checks(correct)
    return np.asarray((checks[:-1] & ~checks[1:]).sum(axis=0), dtype=np.int64)


def stably_memorised(correct: ArrayLike) -> NDArray[np.bool_]:
    """Per example, whether it was learned at some check and never forgotten afterwards, [N]."""
    return np.asarray(_checks(correct).any(axis=0) & (forgetting_events(correct) == 0))


def never_learned(correct: ArrayLike) -> NDArray[np.bool_]:
    """Per example, whether no check found it correct, [N]; such an example has no forgetting event either."""
    return np.asarray(~_checks(correct).any(axis=0))


def _checks(correct: ArrayLike) -> NDArray[np.bool_]:
    checks = np.asarray(correct, dtype=bool)
    if checks.ndim != 2 or checks.shape[0] < 1:
        raise ValueError(f"checks must be [T, N] with T >= 1, got {checks.shape}")
    return checks
