"""Losses and gradients of GRPO updates beside those of TRL's trainer on the same batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from torch import Tensor

from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.training.reinforcement.advantages import grpo, token_rewards
from common.training.reinforcement.episodes import Episode, Outcome, Tokens, Turn
from common.training.reinforcement.learner import Learner
from common.training.reinforcement.settings import Reinforcement

TOKENIZER = microlm_tokenizer()
REWARDS = (1.0, 0.0, 0.25, 0.5, 0.5, 0.0)
TRL = {"token": "bnpo", "episode": "grpo"}  # our name of a mean over tokens -> TRL's of the loss


def episodes() -> list[Episode]:
    """Two groups of three rollouts of one turn, of different lengths."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 2000, (count,), generator=generator).tolist())

    prompts = {"a": ids(5), "b": ids(9)}
    found = []
    for number, reward in enumerate(REWARDS):
        group = "ab"[number // 3]
        found.append(Episode(group, (Turn(prompts[group], ids(3 + 2 * number)),), Outcome((reward,))))
    return found


def padded(rows: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """Rows [B, T] and their mask."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for b, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[b, place], mask[b, place] = row, 1
    return ids, mask


def trainer(model: Any, settings: Reinforcement, folder: Path) -> Any:
    config = trl.GRPOConfig(
        output_dir=str(folder), loss_type=TRL[settings.mean], epsilon=settings.clip_low,
        epsilon_high=settings.clip_high, temperature=settings.temperature, num_generations=3,
        use_bias_correction_kl=False, per_device_train_batch_size=6, use_cpu=True, bf16=False, report_to="none",
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "Where?"}] * 6)
    made = trl.GRPOTrainer(
        model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config, train_dataset=rows,
        processing_class=TOKENIZER,
    )  # fmt: skip
    made.beta = settings.kl_coef  # set only now: with it TRL would load a reference model by the name of this one
    return made


@torch.no_grad()
def trl_log_probs(trainer: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of the completions' tokens by TRL's own pass, [B, T]."""
    ids, mask = (torch.cat([inputs[f"prompt_{x}"], inputs[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    kept = inputs["completion_ids"].shape[1]
    found: Tensor = trainer._get_per_token_logps_and_entropies(trainer.model.eval(), ids, mask, kept)[0]
    return found


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mean", ["token", "episode"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_an_update_has_the_loss_and_the_gradient_of_trl(mean: str, temperature: float, tmp_path: Path) -> None:
    settings = Reinforcement(
        steps=10, epochs=2, mean=mean, temperature=temperature, kl="loss", kl_coef=0.1, clip_low=0.02, clip_high=0.03,
        lr=3e-3, warmup=1, max_norm=1e9,
    )  # fmt: skip
    batch = episodes()
    model = build_model(Shape("llama", width=32, layers=2, inner=32), TOKENIZER, 0)
    reference = copy.deepcopy(model)
    learner = Learner(model, settings)
    with torch.no_grad():
        for parameter in model.parameters():  # away from the reference, which `Learner` has copied
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    old = copy.deepcopy(model)

    seen: list[tuple[Any, dict[str, Tensor]]] = []  # weights and gradients of each of the two updates
    step = learner.optimizers["policy"].step
    learner.optimizers["policy"].step = lambda: seen.append((copy.deepcopy(model), gradients(model))) or step()
    figures = learner.update(batch, 1)
    assert len(seen) == 2
    assert 0 < figures["clipped"] < 1  # the second update's ratios have left the trust region here and there

    advantages = grpo()(batch, token_rewards(batch))[0]
    first = Tokens.of(batch).last.roll(1)  # the first token of each turn, whose advantage is the episode's
    prompt_ids, prompt_mask = padded([torch.tensor(e.turns[0].context) for e in batch], left=True)
    ids, mask = padded([torch.tensor(e.turns[0].token_ids) for e in batch], left=False)
    inputs = {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages[first], "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    known = {
        f"{name}_per_token_logps": trl_log_probs(trainer(weights, settings, tmp_path), inputs)
        for name, weights in (("old", old), ("ref", reference))
    }
    losses = []
    for weights, own in seen:
        weights.zero_grad()
        theirs = trainer(weights, settings, tmp_path)
        theirs.model.eval()
        loss = theirs._compute_loss(theirs.model, {**inputs, **known})
        loss.backward()
        losses.append(float(loss.detach()))
        expected = gradients(theirs.model)
        assert own.keys() == expected.keys()
        for name, gradient in own.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)
    assert figures["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4, abs=1e-6)


def test_advantages_are_those_of_trl() -> None:
    batch = episodes()
    rewards = torch.tensor(REWARDS).view(2, 3)
    expected = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    found = grpo()(batch, token_rewards(batch))[0][Tokens.of(batch).last]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)  # TRL adds 1e-4 to the deviation, we 1e-6
