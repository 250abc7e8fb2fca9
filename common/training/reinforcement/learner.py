"""From a batch of episodes to updates of the policy (and of its critic): PPO and GRPO, one code path."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from common.training.reinforcement.advantages import Estimator, grpo, ppo, token_rewards
from common.training.reinforcement.episodes import Episode, Tokens, sampled_log_probs
from common.training.reinforcement.forward import (
    Batch,
    Critic,
    Reference,
    check_layout,
    collate,
    micro_batches,
    score,
)
from common.training.reinforcement.layouts import LAYOUTS, Layout, Row
from common.training.reinforcement.losses import KL, clipped, policy_loss, token_weights, value_loss
from common.training.reinforcement.settings import Reinforcement
from common.training.supervised import Optimization, build_optimizer

FARTHEST = 20.0  # log-ratio of a token in `approx_kl`, at most


@dataclass(frozen=True)
class Measured:
    """What the models say of each generated token before the updates, [N] each; None where nobody asks."""

    old: Tensor
    entropy: Tensor
    reference: Tensor | None
    values: Tensor | None


class Learner:
    """A policy under training, with its optimizer, reference and critic.

    Args:
        model: a transformers language model, trained in place; with PEFT's layers in it, they alone. Dropout stays off.
        estimator: of advantages; None for what the settings name.
        layout: of episodes as rows; None for what the settings name.

    Attributes:
        parts: what training changes, for a checkpoint.

    Raises:
        UserError: the layout is not for this model.
    """

    def __init__(
        self,
        model: Any,
        settings: Reinforcement,
        estimator: Estimator | None = None,
        layout: Layout | None = None,
    ) -> None:
        check_layout(model, settings.layout)
        self.model, self.settings = model.eval(), settings
        self.layout = layout or LAYOUTS[settings.layout]
        with_critic = settings.algorithm == "ppo"
        own = ppo(settings.gamma, settings.lam, settings.whitened) if with_critic else None
        self.estimate = estimator or own or grpo(settings.grouping, settings.scale)
        self.reference = Reference(model) if settings.kl != "none" else None
        self.critic = Critic(model).eval() if with_critic else None
        if settings.gradient_checkpointing:
            for body in (model, *([self.critic.body] if self.critic else [])):
                body.gradient_checkpointing_enable({"use_reentrant": False})
        policy = Optimization(
            settings.lr, settings.warmup, settings.decay, settings.weight_decay, beta2=0.999, clip=settings.max_norm
        )
        self.rates = {
            "policy": policy,
            "critic": replace(policy, lr=settings.critic_lr, warmup=settings.critic_warmup),
        }
        self.trained: dict[str, Any] = {"policy": model} | ({"critic": self.critic} if self.critic else {})
        self.optimizers = {name: build_optimizer(part, self.rates[name]) for name, part in self.trained.items()}

    @property
    def parts(self) -> dict[str, Any]:
        weights = {name: TrainedWeights(part) for name, part in self.trained.items()}
        return {**weights, **{f"{name}_optimizer": optimizer for name, optimizer in self.optimizers.items()}}

    def update(self, episodes: Sequence[Episode], step: int) -> dict[str, float]:
        """Learn from the episodes of a step; gives what happened, as means over trained tokens.

        Raises:
            ValueError: no episode has a turn.
            FloatingPointError: a loss is not finite; the weights are those before that update.
        """
        settings = self.settings
        rows = self.layout(episodes)
        if not rows:
            raise ValueError(f"no episode of step {step} has a turn")
        tokens = Tokens.of(episodes)
        measured = self.measure(rows, len(tokens.episode))
        rewards = token_rewards(episodes)
        if measured.reference is not None and settings.kl == "reward":
            penalty = KL[settings.kl_estimator](measured.old, measured.reference)
            rewards = rewards - settings.kl_coef * penalty * tokens.trained
        advantages, returns = self.estimate(episodes, rewards, measured.values)
        known = Known(measured, advantages.detach(), returns.detach())
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name].lr_at(step, settings.steps)
        updates = [
            self._mini_batch(chosen, tokens, known, step)
            for epoch in range(settings.epochs)
            for chosen in self._mini_batches(rows, tokens, (step, epoch))
        ]
        self._training(False)  # rollouts sample from this model with a cache, which recomputation goes without
        figures = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        return {
            **self._before(episodes, tokens, measured),
            **figures,
            "lr": self.rates["policy"].lr_at(step, settings.steps),
        }

    def measure(self, rows: Sequence[Row], count: int) -> Measured:
        """Log-probabilities, entropies and values of `count` generated tokens under the models as they are."""
        found = {name: torch.zeros(count) for name in ("old", "entropy", "reference", "values")}
        self._training(False)
        with torch.no_grad():
            for chosen in micro_batches(rows, self.settings.micro_tokens):
                batch = collate(chosen, self.model.device)
                with self._precision():
                    scored = score(self.model, batch, self.settings.temperature)
                    found["old"][batch.tokens] = scored.log_probs.cpu()
                    found["entropy"][batch.tokens] = scored.entropy.cpu()
                    if self.reference:
                        reference = self.reference.log_probs(batch, self.settings.temperature)
                        found["reference"][batch.tokens] = reference.cpu()
                    if self.critic:
                        found["values"][batch.tokens] = self.critic(batch).cpu()
        return Measured(
            found["old"],
            found["entropy"],
            found["reference"] if self.reference else None,
            found["values"] if self.critic else None,
        )

    def _mini_batches(self, rows: Sequence[Row], tokens: Tokens, key: tuple[int, int]) -> Iterator[list[Row]]:
        """Rows of each update of a pass, in an order drawn by seed, step and pass."""
        if self.settings.unit == "turn":
            unit = list(range(len(rows)))
        else:
            unit = [int(tokens.episode[row.tokens[0]]) for row in rows]
        units = np.array(sorted(set(unit)))
        np.random.default_rng([self.settings.seed, *key]).shuffle(units)
        for part in np.array_split(units, min(self.settings.mini_batches, len(units))):
            yield [row for row, own in zip(rows, unit, strict=True) if own in set(part.tolist())]

    def _mini_batch(self, rows: Sequence[Row], tokens: Tokens, known: "Known", step: int) -> dict[str, float]:
        """One update; loss, share of clipped tokens, distance to the policy before the updates, gradient norms."""
        settings, device = self.settings, self.model.device
        index = torch.from_numpy(np.concatenate([row.tokens for row in rows]))
        weights = torch.zeros(len(tokens.episode))
        weights[index] = token_weights(tokens.take(index), settings.mean)
        self._training(True)
        sums: dict[str, float] = {}
        for chosen in micro_batches(rows, settings.micro_tokens):
            batch = collate(chosen, device)
            with self._precision():
                losses = self._losses(batch, weights[batch.tokens].to(device), known.at(batch.tokens, device))
            for name in self.trained:
                torch.autograd.backward(losses[name])
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        norms = {}
        for name, optimizer in self.optimizers.items():
            if not math.isfinite(sums[name]):
                raise FloatingPointError(f"the loss of the {name} is {sums[name]} at step {step}")
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            norms[name] = float(torch.nn.utils.clip_grad_norm_(trained, self.rates[name].clip))
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        figures = {"loss": sums["policy"], "grad_norm": norms["policy"]}
        figures |= {name: sums[name] for name in ("clipped", "approx_kl")}
        return figures | ({"value_loss": sums["critic"]} if self.critic else {})

    def _losses(self, batch: Batch, weights: Tensor, known: "Known") -> dict[str, Tensor]:
        """What `policy` and `critic` minimise, `clipped` tokens and `approx_kl`: parts of the mini-batch's sums.

        clipped: the share of them.
        approx_kl: KL(policy before the updates ‖ policy now), by k3; 0 in a first update. A token counts as at most
            e^FARTHEST times as likely as before, so that one alone does not overflow.
        """
        settings, before = self.settings, known.before
        scored = score(self.model, batch, settings.temperature)
        bounds = (settings.clip_low, settings.clip_high)
        loss = policy_loss(scored.log_probs, before.old, known.advantages, *bounds, settings.dual_clip)
        if before.reference is not None and settings.kl == "loss":
            loss = loss + settings.kl_coef * KL[settings.kl_estimator](scored.log_probs, before.reference)
        if settings.entropy_coef:
            loss = loss - settings.entropy_coef * scored.entropy
        outside = clipped(scored.log_probs, before.old, known.advantages, *bounds)
        losses = {"policy": (weights * loss).sum(), "clipped": (weights * outside).sum()}
        now = scored.log_probs.detach()
        losses["approx_kl"] = (weights * KL["k3"](torch.maximum(before.old, now - FARTHEST), now)).sum()
        if self.critic and before.values is not None:
            error = value_loss(self.critic(batch), before.values, known.returns, settings.value_clip)
            losses["critic"] = (weights * error).sum()
        return losses

    def _before(self, episodes: Sequence[Episode], tokens: Tokens, measured: Measured) -> dict[str, float]:
        """What the models said before the updates, as means over trained tokens."""
        weights = token_weights(tokens)
        figures = {"entropy": float((weights * measured.entropy).sum())}
        if measured.reference is not None:
            distance = KL["k3"](measured.old, measured.reference)
            figures["kl"] = float((weights * distance).sum())
        sampled = sampled_log_probs(episodes)
        if sampled is not None and self.settings.temperature == 1:
            figures["gap"] = float((weights * (measured.old - sampled).abs()).sum())
        return figures

    def _training(self, on: bool) -> None:
        """Layers recompute activations in training mode alone; what they hold, dropout too, stays in evaluation."""
        if self.settings.gradient_checkpointing:
            for part in self.trained.values():
                for module in part.modules():
                    if isinstance(module, GradientCheckpointingLayer):
                        module.training = on

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.settings.autocast)


@dataclass(frozen=True)
class Known:
    """What an update takes as given, [N] each."""

    before: Measured
    advantages: Tensor
    returns: Tensor

    def at(self, index: Tensor, device: torch.device) -> "Known":
        """Of the tokens of `index`."""

        def pick(vector: Tensor | None) -> Tensor | None:
            return None if vector is None else vector[index].to(device)

        before = self.before
        old, entropy = before.old[index].to(device), before.entropy[index].to(device)
        return Known(
            Measured(old, entropy, pick(before.reference), pick(before.values)),
            self.advantages[index].to(device),
            self.returns[index].to(device),
        )


class TrainedWeights:
    """The parameters of a module that are trained, as a part of a loop: of a model with adapters, these alone."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.module.named_parameters() if p.requires_grad}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state[name])
