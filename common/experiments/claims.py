"""Claims of a paper as typed predicates over scores, decided by intervals over seeds.

A predicate says that one quantity is on the claimed side of another. Its **effect** is the distance to the point where
the claim turns, in units of the metric, averaged over the seeds both sides share: **positive means towards the claim**,
and the status can be read off the interval alone.

    greater         mean(row) - mean(over) - margin            > 0
    at_least        mean(row) - value                          >= 0
    at_most         value - mean(row)                          >= 0
    ratio_at_least  mean(row) - ratio * mean(over)             >= 0     (the ratio itself stands in `detail`)
    ratio_at_most   ratio * mean(over) - mean(row)             >= 0
    order           each row better than the next              > 0
    monotone        each row not below (above) the one before  >= 0
    equal_within    margin - |mean(row) - mean(over)|          >= 0     (TOST: the 90% interval)
    not_worse       mean(row) - mean(over) + margin            >= 0     (signs turned where lower is better)
    all_of          every part

Status: `holds` when the whole 95% interval is on the claimed side, `fails` when it is on the other, else
`underpowered`; `not tested` when an operand has no values or the operands share no seed. One seed has no interval:
underpowered. Predicates of several parts are intersection-union tests: they fail with any part and hold with all, so no
correction for several tests is due.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from common.evaluators.statistics import RESOLUTION, Estimate, equivalence, paired_difference, paired_ratio

HOLDS, FAILS, UNDERPOWERED, NOT_TESTED = "holds", "fails", "underpowered", "not tested"

Scores = Mapping[tuple[str, str, str], Mapping[int, float]]  # (row, column, metric) -> seed -> value


@dataclass(frozen=True)
class Operand:
    """One quantity of a table: a metric of a row on a column."""

    row: str
    column: str
    metric: str

    def __str__(self) -> str:
        return f"{self.metric}({self.row}, {self.column})"


@dataclass(frozen=True)
class Greater:
    """left > over + margin, in the unit of the metric."""

    left: Operand
    over: Operand
    margin: float = 0.0


@dataclass(frozen=True)
class AtLeast:
    """left ≥ value, in the unit of the metric."""

    left: Operand
    value: float


@dataclass(frozen=True)
class AtMost:
    """left ≤ value, in the unit of the metric."""

    left: Operand
    value: float


@dataclass(frozen=True)
class RatioAtLeast:
    """left ≥ ratio · over."""

    left: Operand
    over: Operand
    ratio: float


@dataclass(frozen=True)
class RatioAtMost:
    """left ≤ ratio · over."""

    left: Operand
    over: Operand
    ratio: float


@dataclass(frozen=True)
class Order:
    """Best first; `better` (higher or lower) is what the table says of the metric."""

    operands: tuple[Operand, ...]
    better: str = "higher"


@dataclass(frozen=True)
class Monotone:
    """`direction` is increasing or decreasing, and weak: exact ties are allowed."""

    operands: tuple[Operand, ...]
    direction: str


@dataclass(frozen=True)
class EqualWithin:
    """|left − over| ≤ margin, in the unit of the metric."""

    left: Operand
    over: Operand
    margin: float


@dataclass(frozen=True)
class NotWorse:
    """Non-inferiority; `better` (higher or lower) is what the table says of the metric."""

    left: Operand
    over: Operand
    margin: float
    better: str = "higher"


@dataclass(frozen=True)
class AllOf:
    """All parts at once; its evidence is that of the weakest."""

    parts: tuple["Predicate", ...]


Predicate = Greater | AtLeast | AtMost | RatioAtLeast | RatioAtMost | Order | Monotone | EqualWithin | NotWorse | AllOf


@dataclass(frozen=True)
class Outcome:
    """What the scores say of a predicate.

    Attributes:
        status: holds, fails, underpowered or not tested.
        effect: distance to the turning point, positive towards the claim; of the weakest part where there are several
            (the first that fails, else the one with the largest p). None when not tested.
        ci_low, ci_high: its 95% interval (90% for equal_within); None with fewer than two seeds.
        p_value: of the same part: two-sided against the turning point; for equal_within that of TOST. Of several
            parts it is thus the largest, unless one fails. 1 at an exact tie.
        n: pairs of seeds behind the effect.
        detail: one line per part.
        metric: in whose unit the effect is: that of the same part's left side.
    """

    status: str
    effect: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    n: int
    detail: str
    metric: str


def evaluate(predicate: Predicate, scores: Scores) -> Outcome:
    """Decide a predicate on the scores at hand; operands are paired over their common seeds."""
    match predicate:
        case Greater(left, over, margin):
            relation = "> {}" + _plus(margin)
            return _pair(left, relation, over, scores, lambda a, b: (a, [y + margin for y in b]), strict=True)
        case NotWorse(left, over, margin, better="lower"):
            return _pair(left, "<= {}" + _plus(margin), over, scores, lambda a, b: ([y + margin for y in b], a))
        case NotWorse(left, over, margin):
            return _pair(left, ">= {}" + _plus(-margin), over, scores, lambda a, b: (a, [y - margin for y in b]))
        case AtLeast(left, value):
            values = _values(scores, left)
            return _decide(left.metric, f"{_shown(left, values)} >= {value:g}", values, [value] * len(values))
        case AtMost(left, value):
            values = _values(scores, left)
            return _decide(left.metric, f"{_shown(left, values)} <= {value:g}", [value] * len(values), values)
        case RatioAtLeast(left, over, ratio):
            return _ratio(left, f">= {ratio:g} * {{}}", over, scores, ratio, lambda a, b: (a, b))
        case RatioAtMost(left, over, ratio):
            return _ratio(left, f"<= {ratio:g} * {{}}", over, scores, ratio, lambda a, b: (b, a))
        case EqualWithin(left, over, margin):
            return _equal(left, over, margin, scores)
        case Order(operands, better):
            steps = pairwise(operands if better == "higher" else operands[::-1])
            return _combine([evaluate(Greater(left, over), scores) for left, over in steps])
        case Monotone(operands, direction):
            steps = pairwise(operands if direction == "decreasing" else operands[::-1])
            return _combine([evaluate(NotWorse(left, over, 0.0), scores) for left, over in steps])
        case AllOf(parts):
            return _combine([evaluate(part, scores) for part in parts])


_Sides = Callable[[Sequence[float], Sequence[float]], tuple[Sequence[float], Sequence[float]]]


def _pair(left: Operand, relation: str, over: Operand, scores: Scores, sides: _Sides, strict: bool = False) -> Outcome:
    """Decide `left relation over`; `sides` turns the paired values into (claimed larger, claimed smaller)."""
    a, b, note = _common(scores, left, over)
    statement = f"{_shown(left, a)} {relation.format(_shown(over, b))}"
    return _decide(left.metric, statement, *sides(a, b), strict=strict, note=note)


def _ratio(left: Operand, relation: str, over: Operand, scores: Scores, ratio: float, sides: _Sides) -> Outcome:
    """As `_pair` with `over` scaled; the ratio is told, and a negative denominator is not taken for one."""
    a, b, note = _common(scores, left, over)
    statement = f"{_shown(left, a)} {relation.format(_shown(over, b))}"
    if b and sum(b) < 0:
        return _not_tested(left.metric, statement, "a ratio to a negative mean says nothing")
    if b and sum(b) > 0:
        measured = paired_ratio(a, b)
        note = f", ratio {measured.mean:.4g}{_bounds(measured.low, measured.high, '.4g')}{note}"
    return _decide(left.metric, statement, *sides(a, [ratio * y for y in b]), note=note)


def _equal(left: Operand, over: Operand, margin: float, scores: Scores) -> Outcome:
    """Two one-sided tests; the interval of the difference becomes one of `margin - |difference|`."""
    a, b, note = _common(scores, left, over)
    statement = f"{_shown(left, a)} = {_shown(over, b)} within {margin:g}"
    if not a:
        return _not_tested(left.metric, statement, note)
    difference = equivalence(a, b, margin)
    low, high = difference.low, difference.high
    note = f", difference {difference.mean:+.4g}{_bounds(low, high, '+.4g')}{note}"
    room_low = room_high = None
    rounding = RESOLUTION * max(*map(abs, a), *map(abs, b), margin)
    if low is not None and high is not None:
        nearest_to_zero = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        room_low = _clean(margin - max(abs(low), abs(high)), rounding)
        room_high = _clean(margin - nearest_to_zero, rounding)
    room = _clean(margin - abs(difference.mean), rounding)
    distance = Estimate(room, room_low, room_high, difference.n, difference.p_value)
    return _outcome(left.metric, statement, distance, False, note)


def _decide(
    metric: str, statement: str, larger: Sequence[float], smaller: Sequence[float], strict: bool = False, note: str = ""
) -> Outcome:
    """Every directed predicate: is mean(larger - smaller) positive (`strict`) or not negative?"""
    if not larger:
        return _not_tested(metric, statement, note or "no values")
    return _outcome(metric, statement, paired_difference(larger, smaller), strict, note)


def _outcome(metric: str, statement: str, distance: Estimate, strict: bool, note: str) -> Outcome:
    low, high = distance.low, distance.high
    if low is None or high is None:
        status = UNDERPOWERED
    elif low > 0 or (low == 0 and not strict):
        status = HOLDS
    elif high < 0 or (high == 0 and strict):
        status = FAILS
    else:
        status = UNDERPOWERED
    p_value = "" if distance.p_value is None else f", p {distance.p_value:.2g}"
    seeds = "1 seed" if distance.n == 1 else f"{distance.n} seeds"
    effect = f"effect {distance.mean:+.4g}{_bounds(low, high, '+.4g')}"
    detail = f"{status}: {statement}: {effect}{p_value}, {seeds}{note}"
    return Outcome(status, distance.mean, low, high, distance.p_value, distance.n, detail, metric)


def _not_tested(metric: str, statement: str, reason: str) -> Outcome:
    return Outcome(NOT_TESTED, None, None, None, None, 0, f"{NOT_TESTED}: {statement}: {reason}", metric)


def _combine(parts: Sequence[Outcome]) -> Outcome:
    """Intersection-union: the worst status, with the figures of the weakest part that has it."""
    status = min((part.status for part in parts), key=[FAILS, NOT_TESTED, UNDERPOWERED, HOLDS].index)
    worst = [part for part in parts if part.status == status]
    weakest = worst[0] if status == FAILS else max(worst, key=_weakness)
    return replace(weakest, detail="\n".join(part.detail for part in parts))


def _weakness(part: Outcome) -> tuple[float, float]:
    """No test at all is weakest, then the largest p, then the smallest effect."""
    return (2.0 if part.p_value is None else part.p_value, -(part.effect or 0.0))


def _values(scores: Scores, operand: Operand) -> list[float]:
    by_seed = scores.get((operand.row, operand.column, operand.metric), {})
    return [by_seed[seed] for seed in sorted(by_seed)]


def _common(scores: Scores, left: Operand, over: Operand) -> tuple[list[float], list[float], str]:
    """Values of both operands over their common seeds, and a note on what is missing or left out."""
    a = scores.get((left.row, left.column, left.metric), {})
    b = scores.get((over.row, over.column, over.metric), {})
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        missing = [str(operand) for operand, values in ((left, a), (over, b)) if not values]
        return [], [], f"no values of {' and '.join(missing)}" if missing else "no common seed"
    alone = sorted(a.keys() ^ b.keys())
    note = f", unpaired seeds left out: {', '.join(map(str, alone))}" if alone else ""
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds], note


def _plus(margin: float) -> str:
    return f" {'-' if margin < 0 else '+'} {abs(margin):g}" if margin else ""


def _shown(operand: Operand, values: Sequence[float]) -> str:
    return f"{operand} = {sum(values) / len(values):.4g}" if values else str(operand)


def _bounds(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _clean(distance: float, rounding: float) -> float:
    return 0.0 if abs(distance) <= rounding else distance
