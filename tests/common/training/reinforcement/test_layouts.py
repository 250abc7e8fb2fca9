"""The layouts: who sees whom, and log-probabilities against each other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from common.experiments.errors import UserError
from common.training.reinforcement.episodes import Episode, Outcome, Tokens, Turn
from common.training.reinforcement.forward import check_layout, collate, micro_batches, score
from common.training.reinforcement.layouts import LAYOUTS, Row, growing, per_turn, stitched, stitched_dup
from tests.common.training.reinforcement.acting import random_episodes


def llama(layers: int, seed: int = 0) -> Any:
    """A random model in float64, with attention that tells tokens apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()


def log_probs(model: Any, rows: list[Row], micro_tokens: int = 10_000) -> torch.Tensor:
    found = torch.full((sum(len(row.tokens) for row in rows),), torch.nan)
    with torch.no_grad():
        for chosen in micro_batches(rows, micro_tokens):
            batch = collate(chosen)
            found[batch.tokens] = score(model, batch).log_probs
    return found


def naive(model: Any, episodes: list[Episode]) -> torch.Tensor:
    """Every token by a pass of its own over exactly what it was sampled after."""
    found = []
    with torch.no_grad():
        for turn in (turn for episode in episodes for turn in episode.turns):
            for k, token in enumerate(turn.token_ids):
                logits = model(torch.tensor([turn.context + turn.token_ids[:k]])).logits[0, -1].float()
                found.append(logits.log_softmax(-1)[token])
    return torch.stack(found)


@pytest.mark.parametrize("layout", ["per_turn", "growing", "stitched_dup"])
@pytest.mark.parametrize("micro_tokens", [1, 10_000])
def test_exact_layouts_give_what_each_token_was_sampled_with(layout: str, micro_tokens: int) -> None:
    model, episodes = llama(3), random_episodes(1)
    assert_close(log_probs(model, LAYOUTS[layout](episodes), micro_tokens), naive(model, episodes), rtol=0, atol=1e-5)


def test_a_growing_row_ends_where_something_is_forgotten(toy: Any) -> None:
    model, _ = toy("lfm2")  # its convolutions read what stood before, too
    one, two = Turn((1, 2), (3, 4)), Turn((1, 2, 3, 4, 5), (6,))
    grown, forgetful = Turn((1, 2, 3, 4, 5, 6, 7), (8,)), Turn((1, 2, 3, 4, 5, 7), (8, 9))
    same = Turn((1, 2, 3, 4, 5, 7), (8,))  # not more than the turn before has: it was sampled anew
    turns = [(one, two, grown), (one, two, forgetful, same)]
    episodes = [Episode("a", each, Outcome((0.0,) * len(each))) for each in turns]
    rows = growing(episodes)
    assert [row.ids.tolist() for row in rows] == [
        [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7, 8, 9], [1, 2, 3, 4, 5, 7, 8]
    ]  # fmt: skip
    assert [row.targets.tolist() for row in rows] == [[2, 3, 5, 7], [2, 3, 5], [6, 7], [6]]
    assert_close(log_probs(model, rows), log_probs(model, per_turn(episodes)), rtol=0, atol=1e-5)


def test_duplication_is_exact_where_contexts_share_nothing_or_are_all_the_same() -> None:
    model = llama(2)
    strangers = (Turn((1, 2, 3), (4, 5)), Turn((9, 8), (7,)), Turn((9, 8), (6, 6)))
    same = (Turn((1, 2, 3), (4, 5)), Turn((1, 2, 3), (4, 7)))
    episodes = [Episode("a", strangers, Outcome((0.0,) * 3)), Episode("a", same, Outcome((0.0,) * 2))]
    assert_close(log_probs(model, stitched_dup(episodes)), naive(model, episodes), rtol=0, atol=1e-5)
    assert len(stitched_dup(episodes)[1].ids) == 2 + 2 * (1 + 2)  # the task once, but for its last token


def test_the_stitch_of_the_paper_is_an_approximation_from_the_third_turn_on() -> None:
    model = llama(3)
    episodes = [one for one in random_episodes(1, 8) if len(one.turns) == 3]
    exact, found = log_probs(model, per_turn(episodes)), log_probs(model, stitched(episodes))
    number = Tokens.of(episodes).turn % 3
    assert_close(found[number == 0], exact[number == 0], rtol=0, atol=1e-5)  # the first context is the row's beginning
    assert_close(found[number == 1], exact[number == 1], rtol=0, atol=1e-5)  # and so is the second
    assert (found - exact)[number == 2].abs().max() > 1e-2


def test_the_leak_is_through_depth_and_positions_alone() -> None:
    """One layer without positions: nothing is left to leak."""
    model = llama(1)
    model.model.rotary_emb.inv_freq.zero_()
    episodes = [one for one in random_episodes(1, 8) if len(one.turns) == 3]
    assert_close(log_probs(model, stitched(episodes)), log_probs(model, per_turn(episodes)), rtol=0, atol=1e-5)


def example() -> Episode:
    """Task of 3 tokens, answers of 3, observations of 2, three turns."""
    task, answer, observation = (1, 2, 3), (4, 5, 6), (7, 8)
    later = Turn(task + answer + observation, answer, observation=observation)
    return Episode("a", (Turn(task, answer), later, later), Outcome((0.0, 0.0, 1.0)))


def test_the_consolidated_mask_by_hand() -> None:
    [row] = stitched([example()])
    assert row.visible is not None
    assert len(row.ids) == 16 and len(row.targets) == 9
    assert row.visible.sum() == 111
    assert np.flatnonzero(row.visible[13]).tolist() == [0, 1, 2, 8, 9, 10, 11, 12, 13]
    assert np.flatnonzero(row.visible[12]).tolist() == [0, 1, 2, 8, 9, 10, 11, 12]  # an observation: not turn 0


def test_a_rule_of_ones_own_is_read_within_the_causal_order() -> None:
    [row] = stitched([example()], rule=lambda turn, part: np.ones((len(turn), len(turn)), dtype=bool))
    assert row.visible is not None and row.visible.sum() == 136


def test_rows_name_every_token_once_and_in_order() -> None:
    episodes = [*random_episodes(2), Episode("x", (), Outcome(()))]
    ids = [token for episode in episodes for turn in episode.turns for token in turn.token_ids]
    for layout in LAYOUTS.values():
        rows = layout(episodes)
        assert np.concatenate([row.tokens for row in rows]).tolist() == list(range(len(ids)))
        assert np.concatenate([row.ids[row.targets] for row in rows]).tolist() == ids


def test_stitched_rows_are_refused_where_they_would_not_be_what_they_promise(toy: Any) -> None:
    model, _ = toy("lfm2")
    with pytest.raises(UserError, match="this model has conv: take per_turn"):
        check_layout(model, "stitched_dup")
    for layout in ("per_turn", "growing", "stitched"):
        check_layout(model, layout)
    check_layout(llama(1), "stitched_dup")
    eager = llama(1)
    eager.set_attn_implementation("eager")
    with pytest.raises(UserError, match="attention by eager"):
        check_layout(eager, "stitched")


def test_a_convolution_reads_on_in_a_stitch_and_attention_keeps_to_its_mask(toy: Any) -> None:
    """The first two turns have their true left context in the row: only the third is an approximation."""
    model, _ = toy("lfm2")
    episodes = [one for one in random_episodes(1, 8) if len(one.turns) == 3]
    exact, found = log_probs(model, per_turn(episodes)), log_probs(model, stitched(episodes))
    early = Tokens.of(episodes).turn % 3 < 2
    assert_close(found[early], exact[early], rtol=0, atol=1e-4)
    assert (found - exact)[~early].abs().max() > 1e-2


def test_turns_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one sampled token"):
        Turn((1,), ())
    with pytest.raises(ValueError, match="2 sampled tokens and 1 of log_probs"):
        Turn((1,), (2, 3), (0.0,))
    with pytest.raises(ValueError, match="1 turns and 2 rewards"):
        replace(Episode("a", (Turn((1,), (2,)),), Outcome((0.0,))), outcome=Outcome((0.0, 0.0)))
