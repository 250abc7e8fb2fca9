"""The verdict on one published figure at one scale.

    scale        figure            verdict
    any          without values    not run
    tiny, small  plain value       not comparable: other models and other data
    tiny, small  lead over a row   direction only when our 95% interval excludes 0 on the published side, not
                                   reproduced when it does so on the other, underpowered when it holds 0
    paper        any               reproduced when the published value is in our interval or within the tolerance,
                                   else direction only for a lead, as above, else not reproduced

One seed has no interval: the verdict is then `not comparable`, unless a tolerance decides it at paper scale. A lead
published as 0 has no direction, and is `not comparable` below paper scale.
"""

from dataclasses import dataclass

from common.evaluators.statistics import RESOLUTION, Estimate, mean_interval, paired_difference
from common.experiments.claims import Scores
from common.experiments.expected import Figure

REPRODUCED, DIRECTION_ONLY, NOT_REPRODUCED = "reproduced", "direction only", "not reproduced"
UNDERPOWERED, NOT_RUN, NOT_COMPARABLE = "underpowered", "not run", "not comparable"


@dataclass(frozen=True)
class Comparison:
    """Our side of a published figure: mean over seeds (or mean paired difference), 95% interval, seeds, verdict."""

    ours: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    verdict: str


def compare(figure: Figure, scores: Scores, scale: str) -> Comparison:
    """Hold a published figure against our scores; a lead is paired over common seeds."""
    ours = _measure(figure, scores)
    if ours is None:
        return Comparison(None, None, None, 0, NOT_RUN)
    return Comparison(ours.mean, ours.low, ours.high, ours.n, _verdict(figure, ours, scale))


def _measure(figure: Figure, scores: Scores) -> Estimate | None:
    values = scores.get((figure.row, figure.column, figure.metric), {})
    if figure.over is None:
        return mean_interval([values[seed] for seed in sorted(values)]) if values else None
    others = scores.get((figure.over, figure.column, figure.metric), {})
    seeds = sorted(values.keys() & others.keys())
    return paired_difference([values[seed] for seed in seeds], [others[seed] for seed in seeds]) if seeds else None


def _verdict(figure: Figure, ours: Estimate, scale: str) -> str:
    published, low, high = figure.value, ours.low, ours.high
    rounding = RESOLUTION * max(abs(published), abs(ours.mean))
    if scale == "paper":
        if figure.tolerance is not None and abs(published - ours.mean) <= figure.tolerance + rounding:
            return REPRODUCED
        if low is not None and high is not None and low - rounding <= published <= high + rounding:
            return REPRODUCED
        if low is None and figure.tolerance is None:
            return NOT_COMPARABLE
    elif figure.over is None or low is None or published == 0:
        return NOT_COMPARABLE
    if figure.over is None or low is None or high is None:
        return NOT_REPRODUCED
    if (low > 0 and published > 0) or (high < 0 and published < 0):
        return DIRECTION_ONLY
    return UNDERPOWERED if scale != "paper" and low <= 0 <= high else NOT_REPRODUCED
