"""A language model that answers by a script: role -> what it says to the fields of its prompt. No weights, no noise."""

import re
from collections.abc import Callable, Mapping, Sequence

from common.models.language_model import Completion, Sampling, Score
from common.models.meter import Meter, Metered
from common.retrievers.bm25 import BM25
from projects.amber.data import Search
from projects.amber.prompts import PROMPTS, Agents
from projects.amber.settings import Limits

Script = Mapping[str, str | Callable[[Mapping[str, str]], str]]


LogProbs = tuple[float, ...] | None


class Scripted:
    """A `LanguageModel`; `said` keeps every (role, prompt).

    Args:
        sure: log-probabilities of a completion's tokens: of the only one, or by the text.
    """

    name, revision, backend, context, kv_bytes_per_token = "scripted", "1", "script", 0, 0

    def __init__(self, script: Script, sure: float | Callable[[str], LogProbs] = 0.0) -> None:
        self.script, self.sure = script, sure
        self.said: list[tuple[str, str]] = []

    def generate(self, prompts, sampling, purpose=""):
        assert isinstance(sampling, Sampling)
        assert sampling.temperature == 0
        return [self._complete(purpose, prompt[0]["content"]) for prompt in prompts]

    def _complete(self, role: str, text: str) -> Completion:
        self.said.append((role, text))
        line = self.script.get(role, "")
        said = line if isinstance(line, str) else line(fields(role, text))
        sure = self.sure(said) if callable(self.sure) else (self.sure,)
        return Completion(said, (0,) * len(sure or ()), sure, "stop", len(text.split()), len(said.split()))

    def score(self, prompts: Sequence, continuations: Sequence[str], purpose: str = "") -> list[Score]:
        line = self.script["score"]
        return [
            Score(tuple(line({"prompt": prompt[0]["content"], "answer": answer})), 1)
            for prompt, answer in zip(prompts, continuations, strict=True)
        ]

    def roles(self) -> list[str]:
        """The roles in the order in which they spoke, runs of one role once."""
        order = [role for role, _ in self.said]
        return [role for i, role in enumerate(order) if not i or order[i - 1] != role]

    def prompts(self, role: str) -> list[str]:
        return [text for spoke, text in self.said if spoke == role]


def fields(role: str, text: str) -> dict[str, str]:
    """The fields that a role's prompt was filled with."""
    pattern = re.escape(PROMPTS[role])
    for name in re.findall(r"\\\{(\w+)\\\}", pattern):
        pattern = pattern.replace(rf"\{{{name}\}}", rf"(?P<{name}>.*?)", 1)
    found = re.fullmatch(pattern, text, re.DOTALL)
    assert found, f"the prompt of {role} has another form: {text}"
    return found.groupdict()


def agents(script: Script, sure: float | Callable[[str], LogProbs] = 0.0) -> tuple[Agents, Scripted, Meter]:
    lm, meter = Scripted(script, sure), Meter()
    return Agents(Metered(lm, meter), Limits()), lm, meter


def search(passages: Mapping[str, str], characters: int = 2000) -> Search:
    index = BM25()
    index.build(list(passages), list(passages.values()))
    return Search(index, passages, characters)
