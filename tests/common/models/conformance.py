"""What every backend must do: checks of a language model against a reference on the same checkpoint.

Each check takes a model and a reference on a trained toy (see `trained`): loops (`naive`) for transformers, and
`TransformersLM` in float32 for the other backends; the tests of a backend run all of `CHECKS`. `noise` is how far
log-probabilities of the two may lie apart: 1e-3 nats in float32, where only the order of sums differs (measured 4e-6),
and 0.1 in bfloat16, whose numbers have 8 bits (measured 0.03).
"""

import math
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Completion, LanguageModel, Sampling
from tests.common.models.trained import ANSWERS, question

GREEDY = Sampling(max_tokens=48)
NOISE = {"float32": 1e-3, "bfloat16": 0.1}
Check = Callable[[LanguageModel, LanguageModel, float], None]


def same_tokens(found: list[Completion], expected: list[Completion]) -> None:
    """Everything but log-probabilities is equal; token ids where both have them."""
    for one, other in zip(found, expected, strict=True):
        ids = other.token_ids if one.token_ids is not None else None
        assert replace(one, log_probs=None) == replace(other, log_probs=None, token_ids=ids)


def greedy_text_is_the_trained_answer(lm, reference, noise):
    found = lm.generate(list(ANSWERS), GREEDY)
    assert [c.text for c in found] == list(ANSWERS.values())
    assert {c.finish_reason for c in found} == {"stop"}
    same_tokens(found, reference.generate(list(ANSWERS), GREEDY))


def messages_go_through_the_chat_template(lm, reference, noise):
    chats = [question(text) for text in ANSWERS]
    found = lm.generate(chats, GREEDY)
    assert [c.text for c in found] == [answer.strip() for answer in ANSWERS.values()]
    same_tokens(found, reference.generate(chats, GREEDY))
    assert found[0].prompt_tokens == len(next(iter(ANSWERS)).encode()) + 3  # user, end, assistant


def log_probs_agree(lm, reference, noise):
    sampling = replace(GREEDY, log_probs=True)
    prompts = [*ANSWERS, *map(question, ANSWERS)]
    for one, other in zip(lm.generate(prompts, sampling), reference.generate(prompts, sampling), strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=noise)
        assert len(one.log_probs) == one.completion_tokens
    assert lm.generate(prompts[:1], GREEDY)[0].log_probs is None


def scores_agree(lm, reference, noise):
    prompts = [*ANSWERS, *map(question, ANSWERS), "Where does Ada live?"]
    continuations = [*ANSWERS.values(), *(a.strip() for a in ANSWERS.values()), ""]
    found, expected = lm.score(prompts, continuations), reference.score(prompts, continuations)
    for one, other, continuation in zip(found, expected, continuations, strict=True):
        assert len(one.log_probs) == len(continuation.encode())  # one token a byte
        assert one.log_probs == pytest.approx(other.log_probs, abs=noise)
        assert one.prompt_tokens == other.prompt_tokens


def scores_are_the_log_probs_of_generation(lm, reference, noise):
    prompt = "Where does Bo live?"
    [said] = lm.generate([prompt], replace(GREEDY, log_probs=True))
    [score] = lm.score([prompt], [said.text])
    assert score.log_probs == pytest.approx(said.log_probs[:-1], abs=noise)  # without the end token
    [wrong] = lm.score([prompt], [ANSWERS["Where does Ada live?"]])
    assert wrong.total < score.total - 5


def a_stop_string_ends_the_text_before_itself(lm, reference, noise):
    prompt = "Count to five."
    for stop, text in (
        ((", 3",), " 1, 2"),
        (("5", "2"), " 1, "),  # the first to be complete, whatever their order
        ((", 3", " 2, 3"), " 1,"),  # complete at once: the longest
        ((" ",), ""),  # at once
        (("six",), " 1, 2, 3, 4, 5"),
    ):
        sampling = replace(GREEDY, stop=stop)
        [found] = lm.generate([prompt], sampling)
        assert (found.text, found.finish_reason) == (text, "stop"), stop
        same_tokens([found], reference.generate([prompt], sampling))


def a_stop_string_of_several_bytes(lm, reference, noise):
    [found] = lm.generate(["What does Bo drink?"], replace(GREEDY, stop=("☕",)))
    assert found.text == " Café crème "
    [found] = lm.generate(["今日は？"], replace(GREEDY, stop=("降",)))
    assert found.text == " 雪が"


def length_ends_the_text(lm, reference, noise):
    [found] = lm.generate(["Count to five."], Sampling(max_tokens=4))
    assert (found.text, found.finish_reason, found.completion_tokens) == (" 1, ", "length", 4)
    [cut] = lm.generate(["今日は？"], Sampling(max_tokens=3))  # a space and two of three bytes
    assert (cut.text, cut.completion_tokens) == (" ", 3)


def empty_prompts_are_refused(lm, reference, noise):
    with pytest.raises(UserError, match="prompt 1 is empty"):
        lm.generate(["a", ""], GREEDY)
    with pytest.raises(UserError, match="prompt 0 is empty"):
        lm.score([""], ["a"])


def too_long_prompts_are_refused_and_not_cut(lm, reference, noise):
    fits = "a" * (lm.context - 8)
    [found] = lm.generate([fits], Sampling(max_tokens=8))
    assert found.prompt_tokens == lm.context - 8
    with pytest.raises(UserError) as error:
        lm.generate(["a", fits + "a"], Sampling(max_tokens=8))
    message = str(error.value)
    assert "prompt 1" in message and str(lm.context) in message and "8" in message
    assert len(message.splitlines()) == 1
    with pytest.raises(UserError, match="prompt 0"):
        lm.score(["a" * lm.context], ["b"])


def no_prompts_and_wrong_numbers(lm, reference, noise):
    assert lm.generate([], GREEDY) == []
    assert lm.score([], []) == []
    with pytest.raises(ValueError, match="one string"):
        lm.generate("a prompt", GREEDY)
    with pytest.raises(ValueError, match="2 prompts and 1 samplings"):
        lm.generate(["a", "b"], [GREEDY])
    with pytest.raises(ValueError, match="2 prompts and 1 continuations"):
        lm.score(["a", "b"], ["c"])


def a_thousand_prompts_come_back_in_order(lm, reference, noise):
    asked = random.Random(0).choices(list(ANSWERS), k=1000)
    numbers = [i % 7 for i in range(1000)]  # as many spaces before the question, for lengths of all kinds
    samplings = [replace(GREEDY, max_tokens=1 + n) for n in numbers]
    found = lm.generate(asked, samplings)
    for text, n, completion in zip(asked, numbers, found, strict=True):
        assert completion.completion_tokens == 1 + n
        assert ANSWERS[text].encode()[: 1 + n].startswith(completion.text.encode())


def unicode_survives(lm, reference, noise):
    odd = ["今日は？", "Ada 🙂 met", "e\u0301", "\x00\ttab\n", "lone \ud800 surrogate", "<|end|>"]
    same_tokens(lm.generate(odd, Sampling(max_tokens=1)), reference.generate(odd, Sampling(max_tokens=1)))
    for one, other in zip(lm.score(odd, ["é🙂"] * 6), reference.score(odd, ["é🙂"] * 6), strict=True):
        assert len(one.log_probs) == 6
        assert one.prompt_tokens == other.prompt_tokens


def a_seed_and_a_prompt_decide_the_sample(lm, reference, noise):
    """At a temperature that makes samples differ; the texts are drawn by the backend's own numbers."""
    hot = Sampling(max_tokens=24, temperature=2.0, seed=5)
    prompts = ["Ada", "Where", "What does"]
    together = lm.generate(prompts, hot)
    assert lm.generate(prompts, hot) == together
    assert lm.generate(prompts[::-1], hot)[::-1] == together
    assert [lm.generate([prompt], hot)[0] for prompt in prompts] == together
    crowd = lm.generate([*prompts, *(f"{i} dwarfs" for i in range(20))], hot)
    assert crowd[:3] == together
    assert lm.generate(["Ada"], replace(hot, seed=6)) != together[:1]
    several = lm.generate(["Ada"] * 8, [replace(hot, seed=seed) for seed in range(8)])
    assert len({c.text for c in several}) > 4
    assert several[5] == together[0]


def samples_follow_the_distribution(lm, reference, noise):
    """Frequencies of the first token against `score`: at temperature 1, at 2 (square roots of odds), and narrowed."""
    prompt, n = "Where does ", 400
    letters = [chr(i) for i in range(33, 127)]
    raw = {letter: score.total for letter, score in zip(letters, reference.score([prompt] * 94, letters), strict=True)}
    first, second, third = sorted(letters, key=lambda letter: -raw[letter])[:3]

    def draws(**options):
        return lm.generate([prompt] * n, [Sampling(max_tokens=1, seed=seed, **options) for seed in range(n)])

    plain = draws(temperature=1.0, log_probs=True)
    for letter in (first, second):
        expected = math.exp(raw[letter])
        share = sum(c.text == letter for c in plain) / n
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))
    hot = [c.text for c in draws(temperature=2.0, log_probs=True)]
    odds = math.exp((raw[third] - raw[first]) / 2)
    expected, both = odds / (1 + odds), hot.count(first) + hot.count(third)
    assert hot.count(third) / both == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / both))
    for completion in plain[:20]:  # of the model itself, whatever the sampling
        if completion.text in raw:
            assert completion.log_probs == pytest.approx([raw[completion.text]], abs=noise)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert {c.text for c in draws(temperature=2.0, **narrow)} == {first}
    two = {c.text for c in draws(temperature=2.0, top_k=2)}
    assert two == {first, second}


def a_form_is_kept_or_reported(lm, reference, noise):
    sampling = replace(GREEDY, regex=r" \{.*\}")
    [found] = lm.generate(["Write JSON."], sampling)
    assert (found.text, found.finish_reason) == (' {"a": 1, "b": "x"}', "stop")
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 3}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    [found] = lm.generate([question("Write JSON.")], replace(GREEDY, json_schema=schema))
    assert (found.text, found.finish_reason) == ('{"a": 1, "b": "x"}', "stop")
    [never] = lm.generate(["Count to five."], replace(GREEDY, max_tokens=4, regex=r"[QXZ]{40}"))  # no room for it
    assert never.finish_reason == "invalid"
    with pytest.raises(UserError, match="regex"):
        lm.generate(["a"], replace(GREEDY, regex="("))
    with pytest.raises(UserError, match="json_schema"):
        lm.generate(["a"], replace(GREEDY, json_schema={"type": "objekt"}))


def an_interrupt_stops_promptly_and_leaves_the_model_usable(lm, reference, noise):
    def interrupt(number, frame):
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    sigint = signal.signal(signal.SIGINT, signal.default_int_handler)
    endless = replace(GREEDY, max_tokens=400, temperature=2.0)
    begin = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            for seed in range(1000):
                lm.generate(["a"] * 64, replace(endless, seed=seed))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, sigint)
    assert time.monotonic() - begin < 30
    assert [c.text for c in lm.generate(list(ANSWERS), GREEDY)] == list(ANSWERS.values())


def agrees_on_microlm(lm, reference):
    """The shipped model, as plain text and as chat: greedy tokens are equal, or part at a tie of the reference."""
    text = "Ada lives in Oslo. Bo lives in Lima. Bo was born in 1960. Where does Bo live?"
    words = text.split()
    prompts = [" ".join(words[:n]) for n in range(1, len(words) + 1)]
    prompts += [question(prompt) for prompt in prompts]
    sampling = Sampling(max_tokens=32, log_probs=True)
    apart = 0
    for prompt, one, other in zip(
        prompts, lm.generate(prompts, sampling), reference.generate(prompts, sampling), strict=True
    ):
        assert one.prompt_tokens == other.prompt_tokens
        if one.token_ids == other.token_ids:
            assert one.text == other.text
            assert one.log_probs == pytest.approx(other.log_probs, abs=NOISE["float32"])
        else:
            apart += 1
            [score] = reference.score([prompt], [one.text])
            assert score.total == pytest.approx(math.fsum(other.log_probs), abs=0.1), prompt
    assert apart <= 1


CHECKS: list[Check] = [
    greedy_text_is_the_trained_answer,
    messages_go_through_the_chat_template,
    log_probs_agree,
    scores_agree,
    scores_are_the_log_probs_of_generation,
    a_stop_string_ends_the_text_before_itself,
    a_stop_string_of_several_bytes,
    length_ends_the_text,
    empty_prompts_are_refused,
    too_long_prompts_are_refused_and_not_cut,
    no_prompts_and_wrong_numbers,
    a_thousand_prompts_come_back_in_order,
    unicode_survives,
    a_seed_and_a_prompt_decide_the_sample,
    samples_follow_the_distribution,
    a_form_is_kept_or_reported,
    an_interrupt_stops_promptly_and_leaves_the_model_usable,
]
