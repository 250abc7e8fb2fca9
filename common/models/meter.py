"""What a method spends on language models: calls, tokens, seconds and cache, by purpose.

    meter = Meter()
    lm = Metered(lm, meter)                            # a LanguageModel; without it nothing is counted
    lm.generate(prompts, sampling, purpose="extract")
    meter.as_dict()                                    # {"extract": {"calls": 1, "requests": 8, ...}}

Around a cached model (`Metered(CachedLM(...))`) tokens count as if nothing were cached: what the method costs, whoever
pays. Inside (`CachedLM(Metered(...))`) only what was computed counts.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from common.models.language_model import Completion, LanguageModel, Prompt, Sampling, Score


@dataclass
class Usage:
    """What was spent on one purpose.

    Attributes:
        calls: of `generate` and `score`.
        requests: prompts in them.
        tokens_in, tokens_out: read and generated; a scored continuation is read. With tries that were rejected.
        seconds: in the calls, on the clock; calls at the same time each count theirs.
        peak_tokens: largest context of one request, prompt and completion.
        peak_kv_bytes: keys and values of that context; 0 where the model does not say (a server).
    """

    calls: int = 0
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    peak_tokens: int = 0
    peak_kv_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together: sums, and the larger of the peaks."""
        return Usage(
            self.calls + other.calls,
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.seconds + other.seconds,
            max(self.peak_tokens, other.peak_tokens),
            max(self.peak_kv_bytes, other.peak_kv_bytes),
        )


class Meter:
    """Usage by purpose; may be shared by several models and threads."""

    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {}
        self._lock = threading.Lock()

    def add(self, purpose: str, usage: Usage) -> None:
        with self._lock:
            self.usage[purpose] = self.usage.get(purpose, Usage()) + usage

    def total(self) -> Usage:
        """All purposes together."""
        return sum(self.usage.values(), Usage())

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Plain numbers, for a result file."""
        return {purpose: asdict(usage) for purpose, usage in self.usage.items()}


class Metered:
    """A language model whose calls are counted in `meter`; a call that fails counts nothing."""

    def __init__(self, lm: LanguageModel, meter: Meter) -> None:
        self.lm = lm
        self.meter = meter
        self.name, self.revision, self.backend = lm.name, lm.revision, lm.backend
        self.context, self.kv_bytes_per_token = lm.context, lm.kv_bytes_per_token

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`."""
        begin = time.perf_counter()
        completions = self.lm.generate(prompts, sampling, purpose)
        seconds = time.perf_counter() - begin
        read = sum(c.prompt_tokens + c.discarded_prompt_tokens for c in completions)
        written = sum(c.completion_tokens + c.discarded_completion_tokens for c in completions)
        peak = max((c.prompt_tokens + c.completion_tokens for c in completions), default=0)
        self._add(purpose, len(completions), read, written, seconds, peak)
        return completions

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Log-probability of each token of each continuation; see `LanguageModel.score`."""
        begin = time.perf_counter()
        scores = self.lm.score(prompts, continuations, purpose)
        seconds = time.perf_counter() - begin
        lengths = [score.prompt_tokens + len(score.log_probs) for score in scores]
        self._add(purpose, len(scores), sum(lengths), 0, seconds, max(lengths, default=0))
        return scores

    def _add(self, purpose: str, requests: int, read: int, written: int, seconds: float, peak: int) -> None:
        self.meter.add(purpose, Usage(1, requests, read, written, seconds, peak, peak * self.kv_bytes_per_token))
