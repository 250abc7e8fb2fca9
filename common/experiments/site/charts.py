"""Geometry of drawn figures: places in percent of an axis, so that a page draws them at any width without scripts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STEPS = (1, 2, 5, 10)  # times a power of ten: the distances that people read between ticks


@dataclass(frozen=True)
class Axis:
    """The part of the numbers that a chart shows.

    Attributes:
        low, high: its ends, low < high; both above 0 where `log`.
        margin: percent of the width that stays free at each end.
    """

    low: float
    high: float
    log: bool = False
    margin: float = 4.0

    @classmethod
    def around(cls, values: Iterable[float | None], *, log: bool = False) -> "Axis":
        """The axis that shows all finite `values`; a single one stands in its middle."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = min(known, default=0.0), max(known, default=0.0)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        return cls(low, high, log)

    def place(self, value: float) -> float:
        """Percent from the left; values beyond an end (an open interval) stand at the very edge."""
        if math.isinf(value):
            return 0.0 if value < 0 else 100.0
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        share = (at - low) / (high - low)
        return round(min(max(self.margin + (100 - 2 * self.margin) * share, 0.0), 100.0), 2)

    def ticks(self, most: int = 5) -> list[tuple[float, float]]:
        """At most `most` + 1 round values with their places; on a logarithmic axis 1, 2 or 5 times powers of ten."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [step * 10.0**power for power in powers for step in STEPS[:3]]
            inside = [value for value in values if self.low <= value <= self.high]
            return [(value, self.place(value)) for value in inside[:: -(-len(inside) // most) or 1]]
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(step * unit for step in STEPS if step * unit >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(number * step, self.place(number * step)) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Strip:
    """A point with its interval on an axis, in percent; `low` and `high` are None without an interval."""

    at: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, axis: Axis, mean: float, low: float | None, high: float | None) -> "Strip":
        """A single None is an open end."""
        if low is None and high is None:
            return cls(axis.place(mean), None, None)
        ends = (-math.inf if low is None else low, math.inf if high is None else high)
        return cls(axis.place(mean), axis.place(ends[0]), axis.place(ends[1]))


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Points (cost, quality) that no other point beats in both, by their number, cheapest first."""
    best, kept = -math.inf, []
    for number in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[number][1] > best:
            best = points[number][1]
            kept.append(number)
    return kept
