"""What rollouts are sampled from; vLLM itself is in tests/integration/test_reinforcement_vllm.py."""

from dataclasses import replace
from typing import Any

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.settings import LanguageModelSettings
from common.training.reinforcement.sampler import sampler

VLLM = LanguageModelSettings("a model", "vllm")


def test_transformers_samples_from_the_trained_weights_themselves(toy: Any) -> None:
    model, tokenizer = toy("llama")
    lm, sync = sampler(model, tokenizer, LanguageModelSettings("a model", batch_size=2))
    before = lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids
    model.lm_head.weight.data = -model.lm_head.weight.data
    sync()
    assert lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids != before


def test_what_cannot_be_given_weights_is_refused_before_anything_is_loaded(toy: Any) -> None:
    model, tokenizer = toy("llama")
    with pytest.raises(UserError, match="not openai: a server keeps its weights"):
        sampler(model, tokenizer, replace(VLLM, backend="openai"))
    with pytest.raises(UserError, match="one GPU, not 2"):
        sampler(model, tokenizer, replace(VLLM, gpus=2))
