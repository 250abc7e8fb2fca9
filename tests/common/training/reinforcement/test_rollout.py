"""Rollouts: the tokens that were sampled, with their probabilities, whatever else is in the batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch.testing import assert_close

from common.models.language_model import Completion, Sampling, encode
from common.models.transformers_lm import TransformersLM
from common.training.reinforcement.episodes import tokens_within
from common.training.reinforcement.layouts import per_turn
from common.training.reinforcement.rollout import play, roll_out
from tests.common.training.reinforcement.acting import WriteLow, Writer
from tests.common.training.reinforcement.test_layouts import log_probs

SAMPLING = Sampling(temperature=1.0, seed=3, log_probs=True)


class Counting:
    """A language model that notes how many prompts come together."""

    def __init__(self, lm: TransformersLM) -> None:
        self.lm, self.batches = lm, []  # type: ignore[var-annotated]

    def generate(self, prompts: Sequence[Any], sampling: Any, purpose: str = "") -> list[Completion]:
        self.batches.append(len(prompts))
        return self.lm.generate(prompts, sampling, purpose)


def test_contexts_are_those_asked_and_log_probabilities_those_of_the_sampled_tokens(toy: Any) -> None:
    model, tokenizer = toy("llama")
    [*episodes] = roll_out(WriteLow(), 0, TransformersLM(model, tokenizer), tokenizer, SAMPLING)
    sampled = [value for e in episodes for turn in e.turns for value in turn.log_probs]
    assert len(sampled) == sum(e.generated for e in episodes)
    assert_close(log_probs(model, per_turn(episodes)).tolist(), sampled, rtol=0, atol=1e-4)


def test_the_second_context_holds_the_first_answer_and_nothing_older(toy: Any) -> None:
    model, tokenizer = toy("llama")
    [played] = play([Writer("a", turns=3)], TransformersLM(model, tokenizer), tokenizer, SAMPLING)
    for turn, text in zip(played.turns, played.agent.contexts, strict=True):
        assert list(turn.context) == encode(tokenizer, text)
    assert played.agent.contexts[2] == f"a:{played.turns[1].text}-2"
    assert list(played.turns[2].observation) == encode(tokenizer, "-2")


@pytest.mark.parametrize("slots", [1, 3])
def test_slots_refill_and_change_nothing_but_the_batches(toy: Any, slots: int) -> None:
    model, tokenizer = toy("llama")
    agents = [Writer("a", turns=turns) for turns in (1, 3, 2, 0, 2)]
    lm = Counting(TransformersLM(model, tokenizer))
    found = play(agents, lm, tokenizer, SAMPLING, slots)  # type: ignore[arg-type]
    together = [Writer("a", turns=agent.turns) for agent in agents]
    straight = play(together, TransformersLM(model, tokenizer), tokenizer, SAMPLING)
    for one, other in zip(found, straight, strict=True):
        assert [turn.token_ids for turn in one.turns] == [turn.token_ids for turn in other.turns]
    assert lm.batches == {1: [1] * 8, 3: [3, 3, 2]}[slots]


def test_rollouts_of_one_prompt_differ_and_return_under_the_same_seed(toy: Any) -> None:
    model, tokenizer = toy("llama")
    lm = TransformersLM(model, tokenizer)

    def drawn(seed: int) -> list[tuple[int, ...]]:
        agents = [Writer("same", turns=1) for _ in range(4)]
        played = play(agents, lm, tokenizer, replace(SAMPLING, seed=seed))
        return [one.turns[0].token_ids for one in played]

    assert len(set(drawn(1))) == 4
    assert drawn(1) == drawn(1) != drawn(2)


def test_a_mask_says_which_tokens_are_trained(toy: Any) -> None:
    model, tokenizer = toy("llama")
    episodes = roll_out(
        WriteLow(1, 1), 0, TransformersLM(model, tokenizer), tokenizer, SAMPLING,
        mask=lambda turn: tokens_within(tokenizer, turn, lambda text: [(0, 2)]),
    )  # fmt: skip
    turn = episodes[0].turns[0]
    assert turn.trained is not None and any(turn.trained) and not all(turn.trained)


def test_tokens_are_found_by_the_characters_that_they_write(toy: Any) -> None:
    _, tokenizer = toy("llama")
    [played] = play([Writer("a", turns=1)], Speaking("a<m>é</m>b"), tokenizer, SAMPLING)  # type: ignore[arg-type]

    def memory(text: str) -> list[tuple[int, int]]:
        return [(text.index("<m>") + 3, text.index("</m>"))]

    found = tokens_within(tokenizer, played.turns[0], memory)
    assert [i for i, inside in enumerate(found) if inside] == [4, 5]  # é is two bytes, a token each


class Speaking:
    """Says one text, whatever it is asked; tells its tokens, or not."""

    def __init__(self, text: str, told: bool = True) -> None:
        self.text, self.told = text, told

    def generate(self, prompts: Sequence[Any], sampling: Any, purpose: str = "") -> list[Completion]:
        from common.models.toy import byte_tokenizer

        ids = tuple(encode(byte_tokenizer(), self.text)) if self.told else None
        return [Completion(self.text, ids, None, "stop", 1, len(ids or ())) for _ in prompts]


def test_a_backend_that_tells_no_tokens_is_refused(toy: Any) -> None:
    _, tokenizer = toy("llama")
    with pytest.raises(ValueError, match="ids of sampled tokens"):
        play([Writer("a")], Speaking("b", told=False), tokenizer, SAMPLING)  # type: ignore[arg-type]


def test_an_outcome_for_each_agent_is_required(toy: Any) -> None:
    model, tokenizer = toy("llama")
    task = WriteLow(1, 2)
    task.settle = lambda agents: []  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        roll_out(task, 0, TransformersLM(model, tokenizer), tokenizer, SAMPLING)
