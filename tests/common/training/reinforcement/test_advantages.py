"""Advantages by hand, against loops, and by their groups."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from common.training.reinforcement.advantages import gae, group_relative, grpo, ppo, token_rewards, whiten
from common.training.reinforcement.episodes import Episode, Outcome, Turn
from tests.common.training.reinforcement.acting import random_episodes


def test_a_group_by_hand() -> None:
    assert_close(group_relative(tensor([2.0, 1, 0, 1]), "aaaa"), tensor([1.2247, 0, -1.2247, 0]), atol=1e-4, rtol=0)
    assert_close(group_relative(tensor([2.0, 0, 0, 0]), "aaaa"), tensor([1.5, -0.5, -0.5, -0.5]), atol=1e-4, rtol=0)
    assert_close(group_relative(tensor([2.0, 0, 0, 0]), "aaaa", scale=False), tensor([1.5, -0.5, -0.5, -0.5]))


def test_groups_do_not_mix_and_a_group_of_equals_or_of_one_teaches_nothing() -> None:
    found = group_relative(tensor([1.0, 7.0, 3.0, 7.0, 5.0]), "abaxa")
    assert_close(found, tensor([-1.0, 0.0, 0.0, 0.0, 1.0]))
    assert group_relative(tensor([0.3, 0.3, 0.3]), "aaa").abs().max() == 0


def episode(group: str, *turns: tuple[int, float]) -> Episode:
    """Of turns with so many tokens and such a reward."""
    return Episode(group, tuple(Turn((1,), (2,) * n) for n, _ in turns), Outcome(tuple(r for _, r in turns)))


def test_rewards_stand_on_the_last_token_of_their_turn() -> None:
    assert token_rewards([episode("a", (2, 1.0), (1, 2.0)), episode("a", (3, 4.0))]).tolist() == [0, 1, 2, 0, 0, 4]


def test_grouping_decides_what_is_compared() -> None:
    episodes = [episode("a", (2, 1.0), (1, 2.0)), episode("a", (1, 3.0), (2, 6.0))]
    rewards = token_rewards(episodes)
    by_episode, _ = grpo("episode", scale=False)(episodes, rewards, None)  # 3 and 9
    assert_close(by_episode, tensor([-3.0, -3, -3, 3, 3, 3]))
    by_instance, returns = grpo("instance", scale=False)(episodes, rewards, None)  # 1, 2, 3, 6
    assert_close(by_instance, tensor([-2.0, -2, -1, 0, 3, 3]))
    assert_close(returns, tensor([1.0, 1, 2, 3, 6, 6]))
    by_step, _ = grpo("step", scale=False)(episodes, rewards, None)  # 1 with 3, 2 with 6
    assert_close(by_step, tensor([-1.0, -1, -2, 1, 2, 2]))


def test_instance_grouping_is_the_pooled_sample_deviation() -> None:
    episodes = [episode("a", (1, 1.0), (1, 2.0)), episode("a", (1, 3.0), (1, 6.0))]
    found, _ = grpo("instance")(episodes, token_rewards(episodes), None)
    pooled = tensor([1.0, 2, 3, 6])
    assert_close(found, (pooled - 3) / (pooled.std() + 1e-6))


def test_an_episode_without_turns_is_no_rollout_of_its_group() -> None:
    episodes = [episode("a", (1, 1.0)), episode("a"), episode("a", (1, 3.0))]
    found, _ = grpo("episode", scale=False)(episodes, token_rewards(episodes), None)
    assert_close(found, tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    ("rewards", "values", "lam", "expected"),
    [
        ([0, 0, 1], [0.5, 0.5, 0.5], 1.0, [0.5, 0.5, 0.5]),
        ([0, 0, 1], [0.5, 0.5, 0.5], 0.5, [0.125, 0.25, 0.5]),
        ([0, 0, 2], [0.2, 0.6, 1.0], 1.0, [1.8, 1.4, 1.0]),
    ],
)
def test_gae_by_hand(rewards: list[float], values: list[float], lam: float, expected: list[float]) -> None:
    assert_close(gae(rewards, values, lam=lam), expected)


def test_gae_is_the_discounted_sum_of_temporal_differences() -> None:
    rewards, values, gamma, lam = [0.3, -0.2, 0.5, 1.0], [0.1, 0.4, -0.3, 0.2], 0.9, 0.7
    delta = [r + gamma * after - v for r, v, after in zip(rewards, values, [*values[1:], 0.0], strict=True)]
    naive = [sum((gamma * lam) ** (j - k) * delta[j] for j in range(k, 4)) for k in range(4)]
    assert_close(gae(rewards, values, gamma, lam), naive)


def test_ppo_goes_through_the_turns_of_an_episode_and_not_into_the_next() -> None:
    episodes = random_episodes(3)
    rewards = token_rewards(episodes)
    values = torch.linspace(-1, 1, len(rewards))
    found, returns = ppo(0.95, 0.8, whitened=False)(episodes, rewards, values)
    done = 0
    for one in episodes:
        own = slice(done, done + one.generated)
        assert_close(found[own], tensor(gae(rewards[own].tolist(), values[own].tolist(), 0.95, 0.8)))
        done = own.stop
    assert_close(returns, found + values)
    with pytest.raises(ValueError, match="critic"):
        ppo()(episodes, rewards, None)


def test_whitening_counts_trained_tokens_alone() -> None:
    counted = tensor([True, True, False, True])
    found = whiten(tensor([1.0, 2.0, 50.0, 6.0]), counted)
    assert_close(found[counted].mean(), tensor(0.0), atol=1e-6, rtol=0)
    assert_close(found[counted].std(), tensor(1.0))
    assert_close(found[2], (tensor(50.0) - 3) / tensor([1.0, 2, 6]).std())
