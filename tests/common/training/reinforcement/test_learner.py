"""Updates against a naive loop over turns and tokens, and what they must not depend on.

TRL's GRPO would be the other reference; it is an extra (`rl`) that the tests do without.
"""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from common.models.lora import with_adapters
from common.training.reinforcement.episodes import Episode, Outcome, Tokens, Turn
from common.training.reinforcement.forward import Critic, Reference, collate, score
from common.training.reinforcement.layouts import per_turn
from common.training.reinforcement.learner import Known, Learner, Measured
from common.training.reinforcement.settings import Reinforcement
from tests.common.training.reinforcement.acting import random_episodes
from tests.common.training.reinforcement.test_layouts import llama

BASE = Reinforcement(steps=10, lr=1e-2, warmup=1, max_norm=1e9, weight_decay=0.0, micro_tokens=20)


def recorded(learner: Learner, episodes: list[Episode]) -> list[tuple[Any, dict[str, torch.Tensor]]]:
    """The model before each update, and the gradient of it."""
    found = []
    optimizer = learner.optimizers["policy"]
    step = optimizer.step

    def stepping() -> None:
        gradients = {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None}
        found.append((copy.deepcopy(learner.model), gradients))
        step()

    optimizer.step = stepping  # type: ignore[assignment, method-assign]
    learner.update(episodes, 0)
    return found


def token_log_probs(model: Any, turn: Turn) -> list[torch.Tensor]:
    logits = model(torch.tensor([turn.context + turn.token_ids])).logits[0].float().log_softmax(-1)
    return [logits[len(turn.context) - 1 + k] for k in range(len(turn.token_ids))]


def naive_loss(model: Any, old: Any, reference: Any, episodes: list[Episode], s: Reinforcement) -> torch.Tensor:
    """GRPO's loss, token by token from its definition, in the notation of arXiv:2402.03300 Eq. 3."""
    total, count = torch.zeros(()), 0
    for episode in episodes:
        rewards = [other.reward for other in episodes if other.group == episode.group]
        mean = sum(rewards) / len(rewards)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
        advantage = (episode.reward - mean) / (deviation + 1e-6)
        for turn in episode.turns:
            with torch.no_grad():
                before, start = token_log_probs(old, turn), token_log_probs(reference, turn)
            of_turn = torch.zeros(())
            for k, now in enumerate(token_log_probs(model, turn)):
                token = turn.token_ids[k]
                ratio = torch.exp(now[token] - before[k][token])
                surrogate = min(ratio * advantage, ratio.clamp(1 - s.clip_low, 1 + s.clip_high) * advantage)
                if s.dual_clip and advantage < 0:
                    surrogate = max(surrogate, torch.tensor(s.dual_clip * advantage))
                kl = torch.exp(start[k][token] - now[token]) - (start[k][token] - now[token]) - 1
                entropy = -(now.exp() * now).sum()
                of_turn = of_turn - surrogate + s.kl_coef * kl - s.entropy_coef * entropy
            total = total + (of_turn / len(turn.token_ids) if s.mean == "turn" else of_turn)
            count += 1 if s.mean == "turn" else len(turn.token_ids)
    return total / count


@pytest.mark.parametrize("mean", ["token", "turn"])
@pytest.mark.parametrize("layout", ["per_turn", "stitched_dup"])
def test_gradients_of_grpo_equal_those_of_a_naive_loop(mean: str, layout: str) -> None:
    settings = replace(
        BASE, mean=mean, layout=layout, epochs=3, clip_low=0.1, clip_high=0.3, dual_clip=1.2, kl="loss", kl_coef=0.1,
        entropy_coef=0.01,
    )  # fmt: skip
    model, episodes = llama(2), random_episodes(5)
    start = copy.deepcopy(model)
    found = recorded(Learner(model, settings), episodes)
    assert len(found) == 3
    for number, (at, gradients) in enumerate(found):  # from the second on ratios differ from 1
        naive_loss(at, start, start, episodes, settings).backward()
        for name, parameter in at.named_parameters():
            assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=f"update {number}: {name}")


def test_the_third_update_meets_the_clip() -> None:
    learner = Learner(llama(2), replace(BASE, epochs=3))
    assert learner.update(random_episodes(5), 0)["clipped"] > 0.1


def test_approx_kl_is_how_far_an_update_has_moved_when_the_next_begins() -> None:
    episodes = random_episodes(5)
    first, rows, count = Learner(llama(2), BASE), per_turn(episodes), sum(e.generated for e in episodes)
    before = first.measure(rows, count).old
    assert first.update(episodes, 0)["approx_kl"] == pytest.approx(0, abs=1e-6)
    ratio = first.measure(rows, count).old - before  # in logarithms
    assert ratio.abs().max() > 0.01
    of_second = (ratio.exp() - 1 - ratio).mean()
    assert_close(
        torch.tensor(Learner(llama(2), replace(BASE, epochs=2)).update(episodes, 0)["approx_kl"]),
        of_second / 2,  # the mean over both updates
        rtol=1e-3,
        atol=1e-6,
    )


def test_approx_kl_stays_finite_where_a_token_became_far_more_likely() -> None:
    """Two tokens alike in weight, whose ratios are e^200, which no float32 holds, and e^1."""
    rows = per_turn([Episode("a", (Turn((1, 2), (3, 4)),), Outcome((1.0,)))])
    learner, batch = Learner(llama(1), BASE), collate(rows)
    now = learner.measure(rows, 2).old
    before = Measured(now - torch.tensor([200.0, 1.0]), torch.zeros(2), None, None)
    known = Known(before, torch.ones(2), torch.ones(2)).at(batch.tokens, now.device)
    found = learner._losses(batch, torch.full((2,), 0.5), known)["approx_kl"]
    assert_close(found.item(), (math.exp(20) - 1 - 20 + math.exp(1) - 1 - 1) / 2, rtol=1e-4, atol=0.0)


def updated(episodes: list[Episode], **options: Any) -> dict[str, torch.Tensor]:
    model = llama(2)
    learner = Learner(model, replace(BASE, **options))
    learner.update(episodes, 0)
    return dict(model.state_dict())


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_micro_batches_layouts_and_recomputation_do_not_change_an_update(algorithm: str) -> None:
    options: dict[str, Any] = {
        "algorithm": algorithm, "mini_batches": 2, "epochs": 2, "kl": "reward", "kl_coef": 0.1, "kl_estimator": "k1",
        "lr": 1e-3,
    }  # fmt: skip
    episodes = random_episodes(6, 6)
    whole = updated(episodes, micro_tokens=10_000, **options)
    layouts = ({"layout": name} for name in ("growing", "stitched_dup"))
    for other in ({"micro_tokens": 1}, *layouts, {"gradient_checkpointing": True}):
        found = updated(episodes, **options | other)
        for name, value in whole.items():
            assert_close(found[name], value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_an_update_under_autocast_differs_by_rounding_alone(algorithm: str) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "mini_batches": 2, "kl": "loss", "kl_coef": 0.1}
    episodes = random_episodes(6, 6)
    exact, rounded = (
        Learner(llama(2).float(), replace(BASE, autocast=on, **options)).update(episodes, 0) for on in (False, True)
    )
    assert rounded != exact
    for name in ("loss", "entropy"):
        assert_close(rounded[name], exact[name], rtol=0.05, atol=0.02)


def test_a_model_is_left_as_rollouts_want_it() -> None:
    learner = Learner(llama(2), replace(BASE, algorithm="ppo", gradient_checkpointing=True))
    learner.update(random_episodes(6, 6), 0)
    assert not any(module.training for part in learner.trained.values() for module in part.modules())


def test_recomputed_activations_are_without_dropout(toy: Any) -> None:
    model, _ = toy("gpt2")
    assert model.config.resid_pdrop > 0
    figures = Learner(model, replace(BASE, gradient_checkpointing=True)).update(random_episodes(6, 6), 0)
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-6)  # of a first update


def test_mini_batches_hold_every_unit_once_and_each_is_an_update() -> None:
    episodes = random_episodes(6, 6)
    rows, tokens = per_turn(episodes), Tokens.of(episodes)
    learner = Learner(llama(1), replace(BASE, mini_batches=4))
    parts = list(learner._mini_batches(rows, tokens, (0, 0)))
    owners = [{int(tokens.episode[row.tokens[0]]) for row in part} for part in parts]
    assert sorted(i for own in owners for i in own) == list(range(6)) and len(parts) == 4
    assert sum(map(len, parts)) == len(rows)
    by_turn = Learner(llama(1), replace(BASE, mini_batches=4, unit="turn"))
    sizes = [len(part) for part in by_turn._mini_batches(rows, tokens, (0, 0))]
    assert sum(sizes) == len(rows) and max(sizes) - min(sizes) <= 1
    assert len(recorded(by_turn, episodes)) == 4


def test_without_differences_in_reward_a_policy_without_kl_stays() -> None:
    episodes = [replace(e, outcome=Outcome((1.0,) * len(e.turns))) for e in random_episodes(7)]
    episodes = [replace(e, outcome=Outcome((*e.outcome.rewards[:-1], 4.0 - len(e.turns)))) for e in episodes]
    found = updated(episodes)
    for name, value in llama(2).state_dict().items():
        assert torch.equal(found[name], value)


def test_tokens_that_are_not_trained_pull_at_nothing() -> None:
    episodes = random_episodes(8)
    masked = [
        replace(e, turns=tuple(replace(t, trained=(True,) + (False,) * (len(t.token_ids) - 1)) for t in e.turns))
        for e in episodes
    ]
    cut = [replace(e, turns=tuple(replace(t, token_ids=t.token_ids[:1]) for t in e.turns)) for e in episodes]
    for found, expected in zip(updated(masked).values(), updated(cut).values(), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_kl_in_the_reward_of_ppo_by_hand() -> None:
    """One turn of two tokens: the penalty of each in the rewards, and the critic's values beside them."""
    model = llama(1)
    learner = Learner(model, replace(BASE, algorithm="ppo", kl="reward", kl_coef=0.5, kl_estimator="k1"))
    assert learner.reference is not None and learner.critic is not None
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.5)  # away from the reference
        torch.nn.init.normal_(learner.critic.head.weight)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    estimate = learner.estimate

    def noting(episodes: Any, rewards: torch.Tensor, values: Any) -> Any:
        seen.append((rewards, values))
        return estimate(episodes, rewards, values)

    learner.estimate = noting
    turn = Turn((5, 6), (7, 8))
    episode = Episode("a", (turn,), Outcome((2.0,)))
    with torch.no_grad():
        now, start = token_log_probs(model, turn), token_log_probs(learner.reference.model, turn)
        hidden = learner.critic.body(torch.tensor([[5, 6, 7, 8]])).last_hidden_state[0, 1:3].float()
        values = learner.critic.head.float()(hidden)[:, 0]
    distance = [float(n[token] - s[token]) for n, s, token in zip(now, start, turn.token_ids, strict=True)]
    assert min(map(abs, distance)) > 0.1
    learner.update([episode], 0)
    assert_close(seen[0][0], torch.tensor([-0.5 * distance[0], 2.0 - 0.5 * distance[1]]), rtol=1e-4, atol=1e-5)
    assert_close(seen[0][1], values, rtol=1e-4, atol=1e-5)


def test_a_critic_learns_returns() -> None:
    episodes = [
        replace(e, outcome=Outcome((0.0,) * (len(e.turns) - 1) + (i / 4,))) for i, e in enumerate(random_episodes(9))
    ]
    learner = Learner(
        llama(1), replace(BASE, algorithm="ppo", lr=0.0, critic_lr=3e-2, epochs=30, value_clip=10.0, micro_tokens=500)
    )
    first = Learner(llama(1), replace(BASE, algorithm="ppo", lr=0.0, critic_lr=0.0)).update(episodes, 0)
    learner.update(episodes, 0)
    assert learner.update(episodes, 1)["value_loss"] < 0.1 * first["value_loss"]


def test_a_critic_counts_what_stood_before_a_token_not_the_token() -> None:
    critic = Critic(llama(1)).double()
    torch.nn.init.normal_(critic.head.weight)
    one, other = ([Episode("a", (Turn((1, 2), (3, last)),), Outcome((0.0,)))] for last in (4, 5))
    with torch.no_grad():
        values = [critic.float()(collate(per_turn(episodes))) for episodes in (one, other)]
    assert torch.equal(values[0], values[1])


def test_the_reference_of_an_adapted_model_is_the_model_without_adapters() -> None:
    plain = llama(2)
    model = copy.deepcopy(plain)
    with_adapters(model, 4, 8.0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora" in name for name in trained)
    learner = Learner(model, replace(BASE, kl="loss", kl_coef=0.1, lr=0.05))
    episodes = random_episodes(1)
    learner.update(episodes, 0)
    second = learner.update(episodes, 1)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert learner.reference is not None and learner.reference.model is model  # no copy
    batch = collate(per_turn(episodes))
    with torch.no_grad():
        assert_close(learner.reference.log_probs(batch), score(plain, batch).log_probs)
        assert not torch.allclose(score(model, batch).log_probs, score(plain, batch).log_probs)
    assert second["kl"] > 0
    assert set(learner.parts["policy"].state_dict()) == trained


def test_the_critic_of_an_adapted_model_has_adapters_of_its_own_and_trains_these_and_its_head() -> None:
    model = llama(2)
    with_adapters(model, 4, 8.0)
    learner = Learner(model, replace(BASE, algorithm="ppo"))
    critic = learner.critic
    assert critic is not None
    before = {name: p.detach().clone() for name, p in critic.named_parameters()}
    own = {name for name, p in critic.named_parameters() if p.requires_grad}
    assert own == {name for name in before if "lora_" in name or name.startswith("head")}
    for step in range(3):  # the head is zero in the first, so that no gradient passes it, then what adapters add is
        learner.update(random_episodes(1), step)
    assert {name for name, p in critic.named_parameters() if not torch.equal(p, before[name])} == own
    shared = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    assert not shared & {p.data_ptr() for p in critic.parameters()}


def test_a_reference_is_not_moved_by_training() -> None:
    model, batch = llama(1), collate(per_turn(random_episodes(1)))
    reference = Reference(model)
    before = reference.log_probs(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(reference.log_probs(batch), before)


def test_temperature_is_that_of_the_rollouts() -> None:
    model, batch = llama(1), collate(per_turn(random_episodes(1)))
    with torch.no_grad():
        hot = score(model, batch, 2.0)
        model.get_output_embeddings().weight.div_(2.0)
        assert_close(score(model, batch).log_probs, hot.log_probs)
        assert_close(score(model, batch).entropy, hot.entropy)


def test_a_loss_that_is_no_number_leaves_the_weights() -> None:
    model = llama(1)
    learner = Learner(model, BASE, estimator=lambda episodes, rewards, values: (rewards / 0.0, rewards))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="loss of the policy is nan at step 3"):
        learner.update(random_episodes(1), 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_episodes_without_a_turn_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="no episode of step 2 has a turn"):
        Learner(llama(1), BASE).update([Episode("a", (), Outcome(()))], 2)
