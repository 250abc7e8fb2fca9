"""What rollouts are sampled from; vLLM itself is in tests/integration/test_reinforcement_vllm.py."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.lora import with_adapters
from common.models.settings import LanguageModelSettings
from common.models.vllm_lm import VllmLM
from common.training.reinforcement.sampler import sampler

VLLM = LanguageModelSettings("a model", "vllm")


def test_transformers_samples_from_the_trained_weights_themselves(toy: Any) -> None:
    model, tokenizer = toy("llama")
    lm, sync = sampler(model, tokenizer, LanguageModelSettings("a model", batch_size=2))
    before = lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids
    model.lm_head.weight.data = -model.lm_head.weight.data
    sync()
    assert lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids != before


def test_vllm_is_given_weights_without_layers_of_adapters(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = toy("llama")
    plain, given = model.state_dict().keys(), {}
    with_adapters(model, 2, 4.0)

    class Engine(VllmLM):
        def __init__(self) -> None:
            pass

        def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
            given.update(weights)

    monkeypatch.setattr("common.training.reinforcement.sampler.build", lambda speaker: Engine())
    _, sync = sampler(model, tokenizer, VLLM)
    sync()
    assert given.keys() == plain


def test_what_cannot_be_given_weights_is_refused_before_anything_is_loaded(toy: Any) -> None:
    model, tokenizer = toy("llama")
    with pytest.raises(UserError, match="not openai: a server keeps its weights"):
        sampler(model, tokenizer, replace(VLLM, backend="openai"))
    with pytest.raises(UserError, match="one GPU, not 2"):
        sampler(model, tokenizer, replace(VLLM, gpus=2))
