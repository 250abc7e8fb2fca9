"""The training loop: loss against a naive one, invariance to micro-batches, resumption to the bit."""

import itertools
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM

from common.training.supervised import (
    Batch,
    Example,
    Optimization,
    build_optimizer,
    collate,
    fit,
    in_order,
    weighted_loss,
)


def tiny_model(seed: int = 0) -> Lfm2ForCausalLM:
    torch.manual_seed(seed)
    config = Lfm2Config(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False,
    )  # fmt: skip
    return Lfm2ForCausalLM(config)


def examples(seed: int, count: int = 6) -> list[Example]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 12, count)
    return [Example(rng.integers(1, 50, n), rng.choice([0.0, 0.5, 1.0], n).astype(np.float32)) for n in lengths]


def dropping_model() -> LlamaForCausalLM:
    """A model with dropout: every step draws."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1,
            attention_dropout=0.3, attn_implementation="eager",
        )
    )  # fmt: skip


class Steps:
    """Six random sequences a step; `stop_at` interrupts as Ctrl-C would."""

    def __init__(self, micro_tokens: int = 1000, stop_at: int = -1) -> None:
        self.micro_tokens, self.stop_at = micro_tokens, stop_at

    def step(self, index: int) -> list[Batch]:
        if index == self.stop_at:
            raise KeyboardInterrupt
        return collate(examples(index), 0, self.micro_tokens)

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


def trained(
    data: Steps, steps: int = 6, folder: Path | None = None, muon: bool = False, **options: object
) -> dict[str, torch.Tensor]:
    model = tiny_model()
    fit(model, data, steps, Optimization(lr=0.01, warmup=2, muon=muon), folder, **options)  # type: ignore[arg-type]
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_loss_is_the_weighted_sum_over_a_naive_loop() -> None:
    model, batch = tiny_model(), collate(examples(1), 0, 1000)[0]
    with torch.no_grad():
        logits = model(input_ids=batch.ids).logits.log_softmax(-1)
    naive = sum(
        -float(batch.weights[b, t]) * float(logits[b, t - 1, batch.ids[b, t]])
        for b in range(len(batch.ids))
        for t in range(1, batch.ids.shape[1])
    )
    assert_close(weighted_loss(model, batch).item(), naive, rtol=1e-5, atol=1e-5)


def test_collate_keeps_every_sequence_once_within_the_limit() -> None:
    wanted = examples(2, 20)
    batches = collate(wanted, 0, 30)
    assert all(batch.ids.numel() <= 30 for batch in batches)
    rows = sorted(row[row != 0].tolist() for batch in batches for row in batch.ids)
    assert rows == sorted(example.ids.tolist() for example in wanted)
    assert all(float(batch.weights[batch.ids == 0].sum()) == 0 for batch in batches)


def test_a_sequence_longer_than_the_limit_stands_alone() -> None:
    long = Example(np.ones(40, dtype=np.int64), np.ones(40, dtype=np.float32))
    assert [batch.ids.shape for batch in collate([long, *examples(0, 2)], 0, 30)][-1] == (1, 40)


def test_ids_and_weights_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ids \(3,\) and weights \(2,\)"):
        Example(np.ones(3, dtype=np.int64), np.ones(2, dtype=np.float32))


def test_learning_rate_warms_up_holds_and_decays() -> None:
    optimization = Optimization(lr=1.0, warmup=10, decay=0.5)
    rates = [optimization.lr_at(step, 100) for step in range(100)]
    assert_close(rates[:10], [(step + 1) / 10 for step in range(10)])
    assert rates[10:50] == [1.0] * 40
    assert_close(rates[50:], [(100 - step) / 50 for step in range(50, 100)])
    assert min(rates) > 0


def test_micro_batches_do_not_change_the_update() -> None:
    whole, split = trained(Steps(1000), 3), trained(Steps(12), 3)
    for name in whole:
        assert_close(whole[name], split[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("muon", [False, True])
def test_an_interrupted_run_resumes_to_the_bit(tmp_path: Path, muon: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(Steps(stop_at=4), folder=tmp_path, muon=muon, save_every=0.0)
    resumed, straight = trained(Steps(), folder=tmp_path, muon=muon), trained(Steps(), muon=muon)
    for name in straight:
        assert torch.equal(resumed[name], straight[name]), name


@pytest.mark.parametrize("muon", [False, True])
def test_every_parameter_is_trained_once_and_only_vectors_do_not_decay(muon: bool) -> None:
    model = tiny_model()
    groups = build_optimizer(model, Optimization(muon=muon)).param_groups
    named = {id(p): name for name, p in model.named_parameters()}
    found = [[named[id(p)] for p in group["params"]] for group in groups]
    assert sorted(itertools.chain(*found)) == sorted(named.values())
    assert {p.dim() for group in groups for p in group["params"] if not group["weight_decay"]} == {1}
    if muon:  # inner matrices first; tables and kernels are AdamW's
        assert found[1] == ["model.embed_tokens.weight", "model.layers.0.conv.conv.weight"]
    with pytest.raises(ValueError, match="sharded"):
        fit(model, Steps(), 1, Optimization(muon=True), sharded=True)


class Stop(Exception):
    pass


def test_dropout_is_drawn_by_seed_and_step_so_that_an_interruption_does_not_show(tmp_path: Path) -> None:
    def run(folder: Path | None = None, seed: int = 0, stop_at: int = -1) -> dict[str, torch.Tensor]:
        def on_step(step: int, figures: dict[str, float]) -> None:
            if step == stop_at:
                raise Stop

        model = dropping_model()
        torch.manual_seed(stop_at + 7)  # the state of the caller's generator has no say
        state = torch.get_rng_state()
        optimization = Optimization(lr=0.01, warmup=2)
        fit(model, Steps(12), 6, optimization, folder, seed=seed, save_every=0.0, on_step=on_step)
        assert torch.equal(torch.get_rng_state(), state)
        return dict(model.state_dict())

    with pytest.raises(Stop):
        run(tmp_path, stop_at=3)
    resumed, straight, other = run(tmp_path), run(), run(seed=1)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert not all(torch.equal(other[name], straight[name]) for name in straight)


def test_tokens_and_seconds_go_on_after_an_interruption(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    def slowly(step: int, figures: dict[str, float]) -> None:
        seen.append(figures)
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        trained(Steps(stop_at=4), folder=tmp_path, save_every=0.0, on_step=slowly)
    trained(Steps(), folder=tmp_path, on_step=slowly)
    lengths = [sum(len(example.ids) for example in examples(step)) for step in range(6)]
    assert [figures["tokens"] for figures in seen] == np.cumsum(lengths).tolist()
    seconds = [figures["seconds"] for figures in seen]
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(seconds))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="at step 0"):
        fit(model, Steps(), 2, Optimization(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = trained(Steps(), folder=tmp_path)
    again = trained(Steps(stop_at=0), folder=tmp_path)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trained(Steps(), steps=2, folder=tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        trained(Steps(), steps=3, folder=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(model, Steps(), 2, Optimization(), on_step=lambda step, figures: None)


def test_figures_of_a_step() -> None:
    seen: list[dict[str, float]] = []
    fit(tiny_model(), Steps(), 2, Optimization(), on_step=lambda step, figures: seen.append(figures))
    assert 3.5 < seen[0]["loss"] < 4.3  # ln 50 = 3.91, fresh weights
