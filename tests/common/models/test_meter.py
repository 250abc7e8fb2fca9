"""The meter counts what completions say, by purpose, and nothing where calls fail."""

import threading

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Completion, Sampling, Score, per_prompt
from common.models.meter import Meter, Metered, Usage


class Parrot:
    """Repeats the prompt; a token a character."""

    name, revision, backend, context, kv_bytes_per_token = "parrot", "r1", "test", 100, 8

    def __init__(self):
        self.asked = []

    def generate(self, prompts, sampling, purpose=""):
        per_prompt(prompts, sampling)
        self.asked += prompts
        if "crash" in prompts:
            raise UserError("crashed")
        return [Completion(p, None, None, "stop", len(p), 3, 5, 2) for p in prompts]

    def score(self, prompts, continuations, purpose=""):
        self.asked += prompts
        return [Score((-1.0,) * len(c), len(p)) for p, c in zip(prompts, continuations, strict=True)]


def test_usage_by_purpose():
    meter = Meter()
    lm = Metered(Parrot(), meter)
    assert [c.text for c in lm.generate(["ab", "abcd"], Sampling(), purpose="answer")] == ["ab", "abcd"]
    lm.generate(["abc"], Sampling(), purpose="answer")
    lm.score(["abcdef", "a"], ["xy", "z"], purpose="judge")
    answer, judge = meter.usage["answer"], meter.usage["judge"]
    assert (answer.calls, answer.requests) == (2, 3)
    assert (answer.tokens_in, answer.tokens_out) == (2 + 4 + 3 + 3 * 5, 3 * 3 + 3 * 2)  # with rejected tries
    assert (answer.peak_tokens, answer.peak_kv_bytes) == (7, 56)
    assert (judge.calls, judge.requests, judge.tokens_in, judge.tokens_out) == (1, 2, 10, 0)
    assert (judge.peak_tokens, judge.peak_kv_bytes) == (8, 64)
    total = meter.total()
    assert (total.calls, total.tokens_in, total.peak_tokens) == (3, 34, 8)
    assert total.seconds == pytest.approx(answer.seconds + judge.seconds)
    assert meter.as_dict()["judge"] == vars(judge)
    assert (lm.name, lm.revision, lm.backend, lm.context, lm.kv_bytes_per_token) == ("parrot", "r1", "test", 100, 8)


def test_a_failed_call_counts_nothing():
    meter = Meter()
    with pytest.raises(UserError, match="crashed"):
        Metered(Parrot(), meter).generate(["crash"], Sampling())
    assert meter.total() == Usage()


def test_threads_share_a_meter():
    meter = Meter()
    lm = Metered(Parrot(), meter)
    threads = [
        threading.Thread(target=lambda: [lm.generate(["a"], Sampling(), "p") for _ in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.usage["p"].calls == 1600
