"""Values and rules that all backends share, and structured output by trying again."""

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Completion, Sampling, Score, rendered, request_seed, stop_at, well_formed
from common.models.structured import TRIES, fits, until_valid


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"temperature": 2.5}, r"temperature must be in \[0, 2\], not 2.5"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], not 0.0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"stop": "x"}, "stop must be a tuple of strings"),
        ({"stop": ("x", "")}, "none empty"),
        ({"regex": "a", "json_schema": {}}, "exclude each other"),
    ],
)
def test_a_mistaken_sampling_is_one_line(values, message):
    with pytest.raises(UserError, match=message):
        Sampling(**values)


def slow_stop(text, stop):
    """Character by character, as the definition has it."""
    for end in range(1, len(text) + 1):
        complete = [len(s) for s in stop if text[:end].endswith(s)]
        if complete:
            return end - max(complete)
    return None


def test_the_stop_that_is_complete_first_counts_and_of_those_the_longest():
    from itertools import product

    for text in map("".join, product("ab", repeat=6)):
        for stop in (("aa",), ("b", "ab"), ("ba", "bba", "aaa"), ("abab", "b")):
            assert stop_at(text, stop, len(text)) == slow_stop(text, stop), (text, stop)


def test_only_new_characters_can_complete_a_stop():
    assert stop_at("xyz", ("yz",), 1) == 1
    assert stop_at("xyzz", ("yz",), 1) is None
    assert stop_at("xyz", (), 3) is None


def test_prompts_are_told_apart_and_equal_ones_are_not():
    chat = [{"role": "user", "content": "a"}]
    different = ["a", "b", chat, [{"role": "system", "content": "a"}], [*chat, *chat], [], ""]
    assert len({rendered(p) for p in different}) == len(different)
    assert rendered(chat) == rendered(({"content": "a", "role": "user"},))
    assert request_seed(1, chat) == request_seed(1, tuple(chat))
    seeds = {request_seed(seed, prompt) for seed in range(100) for prompt in ("a", "b")}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_lone_surrogates_become_question_marks_and_all_else_stays():
    assert well_formed("a\ud800b") == "a?b"
    assert well_formed("é🙂\x00今") == "é🙂\x00今"


def test_the_total_of_a_score_is_its_sum():
    assert Score((-1.0, -2.0), 3).total == -3.0
    assert Score((), 3).total == 0.0


def completion(text):
    return Completion(text, None, None, "stop", 10, len(text))


def test_tries_end_with_the_first_that_fits_and_leave_the_others_alone():
    calls = []

    def generate(prompts, samplings):
        calls.append((list(prompts), list(samplings)))
        return [completion("no" if prompt == "hard" and len(calls) < 3 else "yes") for prompt in prompts]

    sampling = Sampling(regex="yes", seed=4)
    found = until_valid(generate, ["easy", "hard"], [sampling] * 2)
    assert [c.text for c in found] == ["yes", "yes"]
    assert [prompts for prompts, _ in calls] == [["easy", "hard"], ["hard"], ["hard"]]
    assert found[0] == completion("yes")
    assert (found[1].discarded_prompt_tokens, found[1].discarded_completion_tokens) == (20, 4)
    assert calls[0][1] == [sampling] * 2
    assert len({one.seed for _, samplings in calls for one in samplings}) == 3


def test_what_never_fits_is_marked_after_the_last_try():
    calls = []

    def generate(prompts, samplings):
        calls.append(len(prompts))
        return [completion("no") for _ in prompts]

    [found] = until_valid(generate, ["a"], [Sampling(json_schema={"type": "object"})])
    assert (found.text, found.finish_reason) == ("no", "invalid")
    assert calls == [1] * TRIES


def test_free_text_is_generated_once():
    calls = []

    def generate(prompts, samplings):
        calls.append(len(prompts))
        return [completion("anything") for _ in prompts]

    assert until_valid(generate, ["a", "b"], [Sampling()] * 2) == [completion("anything")] * 2
    assert calls == [2]


def test_the_whole_text_must_have_the_form():
    digits = Sampling(regex=r"\d+")
    assert fits("42", digits)
    assert not fits("42 ", digits)
    schema = Sampling(json_schema={"type": "object", "required": ["a"]})
    assert fits(' {"a": 1}\n', schema)
    assert not fits('{"b": 1}', schema)
    assert not fits('{"a": 1} and more', schema)
    assert not fits("", schema)
    assert not fits("[" * 100_000, schema)
    assert fits("anything", Sampling())
