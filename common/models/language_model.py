"""Language models behind one protocol: `generate` completes prompts, `score` gives the log-probability of given text.

    lm = TransformersLM.load("path/or/hub-id")          # or VllmLM.load(...), OpenAILM(...); see `build.py`
    greedy = Sampling(max_tokens=32, stop=("\\n",))
    [answer] = lm.generate([[{"role": "user", "content": "Whom did Ada meet?"}]], greedy)
    [score] = lm.score(["Ada met"], [" Bo."])           # score.log_probs: one number per token of the continuation

What holds for every backend, and is tested on all of them by one conformance suite:

- A prompt is a string, taken as it is, or a list of messages, rendered by the chat template of the model's tokenizer
  with the opening of the assistant's turn. Results come in the order of the prompts, whatever the batching.
- Temperature 0 takes the likeliest token. Otherwise a prompt and a seed decide the text: neither the other prompts of
  the call nor their order do (up to rounding of the dtype: a batch of another shape may round a tie differently).
- A stop string ends the text before itself; of several, the one that is complete first, and of those the longest. The
  tokens of the completion include those of the stop string, and the end-of-text token where the model gave one.
- A prompt that leaves no room for `max_tokens`, or that has no token at all, is refused by a UserError that names the
  prompt and both lengths. Nothing is ever cut silently.
- An interrupted call (KeyboardInterrupt) ends after the step under way and leaves the model usable.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from common.experiments.errors import UserError

Message = Mapping[str, str]  # {"role": "user", "content": "..."}
Prompt = str | Sequence[Message]
FinishReason = Literal["stop", "length", "invalid"]


@dataclass(frozen=True)
class Sampling:
    """How to complete a prompt.

    Attributes:
        max_tokens: at most so many new tokens, >= 1.
        temperature: 0 is greedy; else logits are divided by it; at most 2, as servers have it.
        top_p: smallest set of likeliest tokens with at least this probability, in (0, 1].
        top_k: the k likeliest tokens, ties included; 0 is all. Applied before `top_p`.
        seed: >= 0; with the prompt it decides the text.
        stop: strings that end the text.
        log_probs: give the log-probability of each new token, at temperature 1 and before `top_k` and `top_p`.
        regex: the whole text must match it.
        json_schema: the whole text must be JSON of this schema. The backend constrains decoding where it can, else
            tries again (see `structured`); a text that fits in no try comes with finish reason `invalid`.

    Raises:
        UserError: a value out of range, or both `regex` and `json_schema`.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    log_probs: bool = False
    regex: str | None = None
    json_schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, wrong, must in (
            ("max_tokens", self.max_tokens < 1, "at least 1"),
            ("temperature", not 0 <= self.temperature <= 2, "in [0, 2]"),
            ("top_p", not 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k < 0, "at least 0"),
            ("seed", self.seed < 0, "at least 0"),
            ("stop", isinstance(self.stop, str) or "" in self.stop, "a tuple of strings, none empty"),
        ):
            if wrong:
                raise UserError(f"sampling: {name} must be {must}, not {getattr(self, name)!r}")
        if self.regex is not None and self.json_schema is not None:
            raise UserError("sampling: regex and json_schema exclude each other")

    @property
    def constrained(self) -> bool:
        """Whether the text must have a form."""
        return self.regex is not None or self.json_schema is not None


@dataclass(frozen=True)
class Completion:
    """What a model answered to one prompt.

    Attributes:
        text: decoded without special tokens; ends before the stop string.
        token_ids: all new tokens, of the stop string and of the end too; None where the backend tells none.
        log_probs: natural, one per new token; None unless asked for and known to the backend.
        finish_reason: `stop` (a stop string or the model's own end), `length` (`max_tokens` reached), or `invalid`
            (no try had the form that was asked for; the text is that of the last).
        prompt_tokens: tokens of the prompt, with template and special tokens.
        completion_tokens: new tokens.
        discarded_prompt_tokens, discarded_completion_tokens: spent on tries whose text had not the form.
    """

    text: str
    token_ids: tuple[int, ...] | None
    log_probs: tuple[float, ...] | None
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    discarded_prompt_tokens: int = 0
    discarded_completion_tokens: int = 0


@dataclass(frozen=True)
class Score:
    """How likely a continuation is after its prompt.

    Attributes:
        log_probs: natural, one per token of the continuation.
        prompt_tokens: tokens of the prompt, with template and special tokens.
    """

    log_probs: tuple[float, ...]
    prompt_tokens: int

    @property
    def total(self) -> float:
        """Log-probability of the whole continuation; 0 of an empty one."""
        return math.fsum(self.log_probs)


class LanguageModel(Protocol):
    """Anything that completes and scores text.

    Attributes:
        name: hub id, folder name, or what the server calls it.
        revision: commit on the hub, or hash of the files; empty where unknown (a server's model).
        backend: what computes, and in which dtype: two of them round differently.
        context: most tokens of prompt and completion together; 0 where unknown (a server that does not say).
        kv_bytes_per_token: keys and values that one more token of context holds, bytes; 0 where unknown.
    """

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def context(self) -> int: ...
    @property
    def kv_bytes_per_token(self) -> int: ...

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt.

        Args:
            sampling: one for all, or one for each prompt (several samples of one prompt differ in the seed).
            purpose: what the calls are for ("answer", "extract", "judge"); only the meter reads it.

        Raises:
            UserError: a prompt is too long, or has no token; the server is not there; see the backend.
            ValueError: as many samplings as prompts were expected; or `prompts` is one string.
        """
        ...

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Natural log-probability of every token of each continuation, after its prompt.

        The continuation's tokens are those of the string alone, without special tokens, appended to the prompt's: it
        begins with its space, where it has one. An empty continuation has no numbers. Prompt and continuation together
        must be shorter than the context.

        Raises:
            UserError, ValueError: as `generate`; or there are not as many continuations as prompts.
        """
        ...


def per_prompt(prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling]) -> list[Sampling]:
    """The sampling of each prompt; ValueError when the numbers differ or `prompts` is one string."""
    if isinstance(prompts, str):
        raise ValueError("prompts must be a sequence of prompts, not one string")
    if isinstance(sampling, Sampling):
        return [sampling] * len(prompts)
    if len(sampling) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(sampling)} samplings")
    return list(sampling)


def check_pairs(prompts: Sequence[Prompt], continuations: Sequence[str]) -> None:
    """ValueError unless each prompt has its continuation."""
    if isinstance(prompts, str) or isinstance(continuations, str):
        raise ValueError("prompts and continuations must be sequences, not one string")
    if len(prompts) != len(continuations):
        raise ValueError(f"{len(prompts)} prompts and {len(continuations)} continuations")


def rendered(prompt: Prompt) -> str:
    """A prompt as one JSON string: equal prompts, and only they, give equal strings."""
    return json.dumps(prompt if isinstance(prompt, str) else [dict(m) for m in prompt], sort_keys=True)


def request_seed(seed: int, prompt: Prompt) -> int:
    """Seed of one request, in [0, 2³¹): two prompts under one seed draw independent numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {rendered(prompt)}".encode()).digest()[:4], "big") >> 1


def stop_at(text: str, stop: Sequence[str], new: int) -> int | None:
    """Length of `text` before the stop string that is complete first, and of those the longest; None without one.

    Args:
        new: how many characters at the end of `text` are new; matches that end before them are not looked for.
    """
    found = [
        (start + len(s), start) for s in stop if (start := text.find(s, max(0, len(text) - new - len(s) + 1))) >= 0
    ]
    return min(found)[1] if found else None


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: a string with the special tokens of its tokenizer, messages through its chat template.

    Raises:
        UserError: messages, and the tokenizer has no chat template or the template refuses them.
    """
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(well_formed(prompt)).input_ids
        return ids
    if tokenizer.chat_template is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: give it strings, not messages"
        )
    from jinja2 import TemplateError

    messages = [{key: well_formed(value) for key, value in message.items()} for message in prompt]
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except TemplateError as error:
        raise UserError(f"the chat template of {tokenizer.name_or_path} refuses these messages: {error}") from error
    return ids


def encode_continuation(tokenizer: Any, continuation: str) -> list[int]:
    """Token ids of a continuation: of the string alone."""
    ids: list[int] = tokenizer(well_formed(continuation), add_special_tokens=False).input_ids
    return ids


def well_formed(text: str) -> str:
    """The text without lone surrogates, which no tokenizer and no server takes: each becomes `?`."""
    return text.encode("utf-8", "replace").decode()


def check_fits(name: str, index: int, prompt_tokens: int, new_tokens: int, context: int) -> None:
    """UserError unless prompt `index` has a token and leaves room for the new ones."""
    if not prompt_tokens:
        raise UserError(f"prompt {index} is empty: {name} has no token to begin from")
    if prompt_tokens + new_tokens > context:
        raise UserError(
            f"prompt {index} has {prompt_tokens} tokens and {new_tokens} new ones were asked for: "
            f"{name} holds {context} together"
        )
