"""Advantages of generated tokens: relative to a group of rollouts (GRPO), or to a critic (GAE).

An estimator takes the episodes and per-token rewards [N] and gives per-token advantages [N]; a method with its own
(memory tokens apart, say) hands another to the trainer. Sources: GRPO (arXiv:2402.03300v3, Sec. 4.1), GAE (Schulman et
al., arXiv:1506.02438v6, Eq. 16).
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from common.training.reinforcement.episodes import Episode, Tokens

Estimator = Callable[[Sequence[Episode], Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(episodes, rewards [N], values [N] or None without a critic) -> (advantages [N], returns [N])."""


def token_rewards(episodes: Sequence[Episode]) -> Tensor:
    """The reward of each turn on its last token, 0 elsewhere, [N]."""
    tokens = Tokens.of(episodes)
    rewards = torch.zeros(len(tokens.last))
    rewards[tokens.last] = torch.tensor([reward for episode in episodes for reward in episode.outcome.rewards])
    return rewards


def group_relative(rewards: Tensor, groups: Sequence[Hashable], scale: bool = True, epsilon: float = 1e-6) -> Tensor:
    """How much better each item did than its group, [items].

        A = (r - mean) / (std + ε)        std with divisor n - 1; 0 in a group of one

    Args:
        rewards: [items]; groups: the group of each.
        scale: divide by the standard deviation; without it A = r - mean (Dr. GRPO, arXiv:2503.20783v1).

    Raises:
        ValueError: rewards and groups differ in number.
    """
    if len(rewards) != len(groups):
        raise ValueError(f"{len(rewards)} rewards and {len(groups)} groups")
    members: dict[Hashable, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault(group, []).append(item)
    advantages = torch.zeros_like(rewards)
    for items in members.values():
        own = rewards[items]
        centred = own - own.mean()
        if scale and len(items) > 1:
            centred = centred / (own.std() + epsilon)
        advantages[items] = centred
    return advantages


def grpo(grouping: str = "episode", scale: bool = True) -> Estimator:
    """GRPO: every token of an item gets the item's advantage; returns are the rewards that it was computed from.

    Args:
        grouping: `episode`: items are episodes, and those of one group are compared; `instance`: items are turns, and
            all turns of all rollouts of one group are compared; `step`: turns of one number, in one group.

    Raises:
        KeyError: another grouping.
    """
    key = GROUPINGS[grouping]

    def estimate(episodes: Sequence[Episode], rewards: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        tokens = Tokens.of(episodes)
        item = tokens.episode if grouping == "episode" else tokens.turn
        items = [range(1) if grouping == "episode" else range(len(episode.turns)) for episode in episodes]
        groups = [key(episode, t) for episode, own in zip(episodes, items, strict=True) for t in own]
        totals = rewards.new_zeros(len(groups)).index_add(0, item, rewards)
        present = torch.zeros(len(groups), dtype=torch.bool)
        present[item] = True  # an episode that was over before its first turn is no rollout
        kept = present.nonzero()[:, 0].tolist()
        advantages = torch.zeros_like(totals)
        advantages[kept] = group_relative(totals[kept], [groups[i] for i in kept], scale)
        return advantages[item], totals[item]

    return estimate


GROUPINGS: dict[str, Callable[[Episode, int], Hashable]] = {
    "episode": lambda episode, turn: episode.group,
    "instance": lambda episode, turn: episode.group,
    "step": lambda episode, turn: (episode.group, turn),
}


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float = 1.0, lam: float = 1.0) -> list[float]:
    """Generalised advantages of one episode's tokens (Eq. 16); after the last the value is 0.

        δ_k = r_k + γ V_{k+1} - V_k        A_k = δ_k + γ λ A_{k+1}

    With γ = λ = 1 the advantage is the rest of the rewards less the value.

    Raises:
        ValueError: rewards and values differ in number.
    """
    if len(rewards) != len(values):
        raise ValueError(f"{len(rewards)} rewards and {len(values)} values")
    advantages: list[float] = []
    after, ahead = 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        ahead = reward + gamma * after - value + gamma * lam * ahead
        advantages.append(ahead)
        after = value
    return advantages[::-1]


def whiten(advantages: Tensor, counted: Tensor) -> Tensor:
    """Mean 0 and variance 1 (divisor n - 1) over the counted tokens, [N]; the others by the same shift and scale."""
    own = advantages[counted]
    if len(own) < 2:
        return advantages - own.mean() if len(own) else advantages
    return (advantages - own.mean()) * (own.var() + 1e-8).rsqrt()


def ppo(gamma: float = 1.0, lam: float = 1.0, whitened: bool = True) -> Estimator:
    """GAE over the generated tokens of an episode, through its turns; returns are advantages plus values.

    The estimator raises ValueError where it is given no values.
    """

    def estimate(episodes: Sequence[Episode], rewards: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if values is None:
            raise ValueError("PPO needs the values of a critic")
        lengths = [episode.generated for episode in episodes]
        pieces = zip(torch.split(rewards, lengths), torch.split(values, lengths), strict=True)
        advantages = torch.tensor([a for r, v in pieces for a in gae(r.tolist(), v.tolist(), gamma, lam)])
        returns = advantages + values
        return whiten(advantages, Tokens.of(episodes).trained) if whitened else advantages, returns

    return estimate
