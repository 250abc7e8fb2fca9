"""Losses of policy-gradient methods as pure functions of per-token vectors [N] (see `episodes`).

    loss = (token_weights(tokens, "token") * policy_loss(log_probs, old, advantages)).sum()

Sources: PPO (Schulman et al., arXiv:1707.06347v2), GRPO (Shao et al., arXiv:2402.03300v3), dual clip (Ye et al.,
arXiv:1912.09729v3), k1 and k3 (Schulman, "Approximating KL divergence", 2020).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.training.reinforcement.episodes import Tokens


def policy_loss(
    log_probs: Tensor, old: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2, dual: float = 0.0
) -> Tensor:
    """Clipped surrogate of each token, [N]; its sum under `token_weights` is to be minimised.

        ρ = π / π_old        max(-A ρ, -A clip(ρ, 1 - low, 1 + high))        A < 0: at most -A dual

    Args:
        log_probs: under the policy that is trained, [N]; old: under the one that sampled, [N].
        dual: bound of the ratio where the advantage is negative, > 1; 0 for none.
    """
    _check(log_probs, old, advantages)
    ratio = (log_probs - old).exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))
    if dual:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual), loss)
    return loss


def clipped(log_probs: Tensor, old: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    """Which tokens have no gradient because their ratio has left the trust region, [N]; dual clip left aside."""
    ratio = (log_probs - old).exp()
    return ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float = 0.5) -> Tensor:
    """Squared error of each value, halved, [N]; a value that moved by more than `clip` gains nothing by it.

    max((V - R)², (V_old + clamp(V - V_old, ±clip) - R)²) / 2
    """
    _check(values, old, returns)
    near = old + (values - old).clamp(-clip, clip)
    return torch.maximum((values - returns) ** 2, (near - returns) ** 2) / 2


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """log π / π_ref of each token, [N]: unbiased for KL(π ‖ π_ref) over samples of π; its own gradient is not KL's.

    Args:
        log_probs: under π, [N]. reference: under π_ref, [N].
    """
    return log_probs - reference


def k1_positive(log_probs: Tensor, reference: Tensor) -> Tensor:
    """`k1` where it is positive, else 0, [N]: the penalty in the reward of MEM1's code."""
    return k1(log_probs, reference).clamp(min=0)


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """π_ref / π - 1 - log π_ref / π of each token, [N]: unbiased, never negative, of low variance. As `k1`."""
    difference = reference - log_probs
    return difference.expm1() - difference


KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k1_positive": k1_positive, "k3": k3}


def token_weights(tokens: Tokens, mean: str = "token") -> Tensor:
    """Weight of each token in the mean over those that are trained, [N]; they sum to 1, or are 0 where none is.

    Args:
        mean: `token` counts all tokens alike; `turn` the mean over each turn, then over turns; `episode` likewise.

    Raises:
        KeyError: another mean.
    """
    unit = {"token": torch.zeros_like(tokens.turn), "turn": tokens.turn, "episode": tokens.episode}[mean]
    trained = tokens.trained.float()
    _, unit = torch.unique(unit, return_inverse=True)
    size = trained.new_zeros(len(trained)).index_add(0, unit, trained)  # of each unit; more places than units
    units = (size > 0).sum().clamp(min=1)
    return trained / size[unit].clamp(min=1) / units


def _check(*vectors: Tensor) -> None:
    shapes = [tuple(vector.shape) for vector in vectors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"vectors of one length were expected, not {shapes}")
