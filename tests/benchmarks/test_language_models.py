"""What the benchmark of language models makes of its measurements."""

import pytest

from tests.benchmarks.language_models import Round, rates, row


def test_rates_are_those_of_the_best_rounds():
    """100 tokens a second read, 20 written: 1,000 and 63 tokens take 10 s and 3.15 s; load adds to other rounds."""
    rounds = [Round(100.0, 1000, 63, 30.0), Round(40.0, 1000, 63, 13.15)]
    assert rates(rounds) == pytest.approx((100.0, 20.0, 13.15))


def test_a_backend_that_is_not_here_has_a_cell():
    assert row("float32", "loading", figures={"transformers": 1.26}, form=".1f") == (
        "| float32 | loading | 1.3 | not installed | not installed |"
    )
