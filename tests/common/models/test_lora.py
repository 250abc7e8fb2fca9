"""Adapters put into a model, and its weights with what they add; against PEFT's own merge."""

import copy
from typing import Any

import pytest
import torch

from common.models.lora import adapter_layers, whole_weights, with_adapters

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_weights_are_those_of_the_merged_model(family: str, dtype: torch.dtype, toy: Any) -> None:
    model = toy(family)[0].to(dtype)
    plain = copy.deepcopy(model.state_dict())
    adapted = with_adapters(model, 2, 4.0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    found = dict(whole_weights(model))
    assert found.keys() == plain.keys()
    assert {value.dtype for value in found.values()} == {dtype}
    changed = {name for name, value in found.items() if not torch.equal(value, plain[name])}
    assert len(changed) == len(adapter_layers(model)) > 0
    for name, value in adapted.merge_and_unload().state_dict().items():
        assert torch.equal(found[name], value)


def test_what_is_added_is_the_product_of_both_matrices_by_alpha_over_rank(toy: Any) -> None:
    model = toy("llama")[0]
    name, layer = next((name, part) for name, part in model.named_modules() if name.endswith("q_proj"))
    before = layer.weight.detach().clone()
    with_adapters(model, 2, 6.0)
    layer = model.get_submodule(name)
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(second)
    found = dict(whole_weights(model))[f"{name}.weight"]
    torch.testing.assert_close(found, before + 3.0 * second @ first)


def test_embeddings_of_tokens_are_refused(toy: Any) -> None:
    model = toy("llama")[0]
    with_adapters(model, 2, 4.0, tokens=[1, 2])
    with pytest.raises(ValueError, match="not that of TrainableTokensLayer"):
        list(whole_weights(model))


def test_a_model_without_adapters_gives_its_own_tensors(toy: Any) -> None:
    model = toy("llama")[0]
    assert not adapter_layers(model)
    assert {name: value.data_ptr() for name, value in whole_weights(model)} == {
        name: value.data_ptr() for name, value in model.state_dict().items()
    }


def test_adapters_alone_are_trained_and_add_nothing_at_first(toy: Any) -> None:
    model, ids = toy("llama")[0], torch.arange(6)[None]
    before = model(ids).logits
    linear = {name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)} - {"lm_head"}
    with_adapters(model, 2, 4.0)
    assert torch.equal(model(ids).logits, before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{name}.lora_{side}.default.weight" for name in linear for side in "AB"}
