"""Text of a required form where decoding cannot be constrained: try, check, try again, and say so when no try fits.

The first try is the sampling that was asked for. Later ones draw at temperature 1 or more, each from a seed of its own,
so that a greedy model does not repeat itself; the whole is as reproducible as one request.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema

from common.experiments.errors import UserError
from common.models.language_model import Completion, Prompt, Sampling

TRIES = 4  # our choice: the fourth try of a model that fits one time in two fails in 6% of cases


def fits(text: str, sampling: Sampling) -> bool:
    """Whether the whole text has the form that the sampling asks for."""
    if sampling.regex is not None:
        return re.fullmatch(sampling.regex, text) is not None
    if sampling.json_schema is not None:
        return _is_json(text, sampling.json_schema)
    return True


def check_form(sampling: Sampling) -> None:
    """UserError where the regex or the schema is itself malformed."""
    try:
        if sampling.regex is not None:
            re.compile(sampling.regex)
        if sampling.json_schema is not None:
            jsonschema.Draft202012Validator.check_schema(sampling.json_schema)
    except re.error as error:
        raise UserError(f"sampling: regex {sampling.regex!r} is malformed: {error}") from error
    except jsonschema.SchemaError as error:
        raise UserError(f"sampling: json_schema is malformed: {error.message}") from error


def _is_json(text: str, schema: Mapping[str, Any]) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # the second: nested too deeply
        return False
    valid: bool = jsonschema.Draft202012Validator(schema).is_valid(value)
    return valid


def until_valid(
    generate: Callable[[Sequence[Prompt], Sequence[Sampling]], list[Completion]],
    prompts: Sequence[Prompt],
    samplings: Sequence[Sampling],
) -> list[Completion]:
    """Completions of the required form, from at most `TRIES` tries each; those that never fit are marked `invalid`.

    Args:
        generate: completes prompts without looking at the form.
    """
    for sampling in set_of_forms(samplings):
        check_form(sampling)
    completions = generate(prompts, samplings)
    for attempt in range(1, TRIES):
        wrong = [i for i, c in enumerate(completions) if not fits(c.text, samplings[i])]
        if not wrong:
            return completions
        again = generate([prompts[i] for i in wrong], [_another(samplings[i], attempt) for i in wrong])
        for i, completion in zip(wrong, again, strict=True):
            completions[i] = after(completions[i], completion)
    return [checked(c, s) for c, s in zip(completions, samplings, strict=True)]


def set_of_forms(samplings: Sequence[Sampling]) -> list[Sampling]:
    """One of each different constrained sampling object."""
    return list({id(sampling): sampling for sampling in samplings if sampling.constrained}.values())


def checked(completion: Completion, sampling: Sampling) -> Completion:
    """The completion, marked `invalid` where its text has not the form."""
    return completion if fits(completion.text, sampling) else replace(completion, finish_reason="invalid")


def after(rejected: Completion, completion: Completion) -> Completion:
    """The completion, with the tokens that the rejected try before it has cost."""
    return replace(
        completion,
        discarded_prompt_tokens=rejected.discarded_prompt_tokens + rejected.prompt_tokens,
        discarded_completion_tokens=rejected.discarded_completion_tokens + rejected.completion_tokens,
    )


def _another(sampling: Sampling, attempt: int) -> Sampling:
    """The sampling of a later try: at temperature 1 or more, from a seed that no first try has."""
    seed = sampling.seed + attempt * 1_000_003  # a prime beyond the seeds that people give
    return replace(sampling, temperature=max(1.0, sampling.temperature), seed=seed)
