"""Losses of single tokens by hand, and means over tokens, turns and episodes."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from common.training.reinforcement.episodes import Episode, Outcome, Tokens, Turn
from common.training.reinforcement.losses import clipped, k1, k1_positive, k3, policy_loss, token_weights, value_loss


def ratios(*values: float) -> torch.Tensor:
    return tensor(values).log()


def test_the_surrogate_of_a_token_is_clipped_where_that_makes_it_worse() -> None:
    # ratio 1.5: gain stops at 1.2; a bad token keeps its whole loss
    found = policy_loss(ratios(1.5, 1.5, 0.5, 0.5), torch.zeros(4), tensor([1.0, -1.0, 1.0, -1.0]))
    assert_close(found, tensor([-1.2, 1.5, -0.5, 0.8]))


def test_the_two_sides_of_the_clip_differ_where_asked() -> None:
    found = policy_loss(ratios(1.5, 0.5), torch.zeros(2), tensor([1.0, -1.0]), low=0.1, high=0.28)
    assert_close(found, tensor([-1.28, 0.9]))


def test_the_dual_clip_bounds_bad_tokens_alone() -> None:
    found = policy_loss(ratios(5.0, 5.0, 2.0), torch.zeros(3), tensor([-1.0, 1.0, -1.0]), dual=3.0)
    assert_close(found, tensor([3.0, -1.2, 2.0]))


def test_clipped_tokens_are_those_without_gradient() -> None:
    log_probs = ratios(1.5, 1.5, 0.5, 0.5, 1.1, 0.9).requires_grad_()
    advantages = tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    policy_loss(log_probs, torch.zeros(6), advantages).sum().backward()
    assert log_probs.grad is not None
    assert clipped(log_probs.detach(), torch.zeros(6), advantages).tolist() == (log_probs.grad == 0).tolist()
    assert clipped(log_probs.detach(), torch.zeros(6), advantages).tolist() == [True, False, False, True, False, False]


def test_on_policy_the_gradient_is_that_of_the_policy_gradient() -> None:
    log_probs, advantages = tensor([-1.0, -2.0]).requires_grad_(), tensor([0.7, -0.3])
    policy_loss(log_probs, log_probs.detach(), advantages).sum().backward()
    assert_close(log_probs.grad, -advantages)


def test_a_value_gains_nothing_beyond_the_clip() -> None:
    # old 0, clip 0.5, return 2: at 1 the clipped value 0.5 counts; at -1 the value itself; within the clip they agree
    found = value_loss(tensor([1.0, -1.0, 0.4]), torch.zeros(3), tensor([2.0, 2.0, 2.0]))
    assert_close(found, tensor([1.5**2 / 2, 3.0**2 / 2, 1.6**2 / 2]))


def test_kl_estimators_by_hand() -> None:
    log_probs, reference = tensor([-1.0, -1.0]), tensor([-1.5, -0.5])
    assert_close(k1(log_probs, reference), tensor([0.5, -0.5]))
    assert_close(k1_positive(log_probs, reference), tensor([0.5, 0.0]))
    assert_close(k3(log_probs, reference), tensor([math.exp(-0.5) - 1 + 0.5, math.exp(0.5) - 1 - 0.5]))


@pytest.mark.parametrize("estimator", [k1, k3])
def test_in_expectation_k1_and_k3_are_the_kl_divergence(estimator) -> None:  # type: ignore[no-untyped-def]
    p, q = tensor([0.7, 0.2, 0.1]), tensor([0.3, 0.3, 0.4])
    assert_close((p * estimator(p.log(), q.log())).sum(), (p * (p / q).log()).sum())


def test_vectors_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), \(1,\), \(2,\)"):
        policy_loss(torch.zeros(2), torch.zeros(1), torch.zeros(2))


def tokens(*lengths: tuple[int, ...]) -> Tokens:
    """Of episodes whose turns have these many tokens."""
    turns = [tuple(Turn((1,), (2,) * n) for n in episode) for episode in lengths]
    return Tokens.of([Episode("a", own, Outcome((0.0,) * len(own))) for own in turns])


def test_weights_of_tokens_turns_and_episodes() -> None:
    one = tokens((1, 2), (3,))
    assert_close(token_weights(one, "token"), torch.full((6,), 1 / 6))
    assert_close(token_weights(one, "turn"), tensor([1 / 3, 1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9]))
    assert_close(token_weights(one, "episode"), torch.full((6,), 1 / 6))
    assert_close(token_weights(tokens((1,), (3,)), "episode"), tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6]))


@pytest.mark.parametrize("mean", ["token", "turn", "episode"])
def test_tokens_that_are_not_trained_weigh_nothing_and_the_rest_sums_to_one(mean: str) -> None:
    turns = (Turn((1,), (2, 3), trained=(False, True)), Turn((1,), (2,), trained=(False,)), Turn((1,), (4, 5, 6)))
    weights = token_weights(Tokens.of([Episode("a", turns, Outcome((0.0,) * 3))]), mean)
    assert weights[[0, 2]].tolist() == [0, 0]
    assert_close(weights.sum(), tensor(1.0))
    part = Tokens.of([Episode("a", turns, Outcome((0.0,) * 3))]).take(tensor([1, 3]))  # a mini-batch of it
    assert_close(token_weights(part, "turn"), tensor([0.5, 0.5]))


def test_where_nothing_is_trained_all_weights_are_zero() -> None:
    turn = Turn((1,), (2, 3), trained=(False, False))
    assert token_weights(Tokens.of([Episode("a", (turn,), Outcome((1.0,)))]), "turn").tolist() == [0, 0]
