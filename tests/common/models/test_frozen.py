"""The frozen model: weights that do not move, gradients that do, prefixes and padding against the plain model."""

import pytest
import torch
from torch.testing import assert_close
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

from common.models.frozen import FrozenLM, complete

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ["gpt2", "lfm2", "llama", "qwen3"]
TEXTS = ["Ada lives in Oslo.", "Bo", "Who keeps bees in Rome?"]


def frozen(toy, family="lfm2"):
    return FrozenLM(*toy(family))


def rows_of(lm, texts=TEXTS):
    return [lm.tokenizer(text).input_ids for text in texts]


def stirred(lm):
    """The model with adapters that do something."""
    lm.add_adapters(4, 8.0)
    with torch.no_grad():
        for parameter in lm.adapter_parameters:
            parameter.normal_(std=0.1)
    return lm


@pytest.mark.parametrize("family", FAMILIES)
def test_with_adapters_off_it_is_the_plain_model_to_the_bit(toy, family):
    plain, tokenizer = toy(family)
    lm = stirred(FrozenLM(*toy(family)))
    ids = lm.ids(rows_of(lm))
    expected = plain(ids).logits
    assert torch.equal(lm.logits(lm.embed(ids)), expected)
    with lm.adapters():
        assert not torch.allclose(lm.logits(lm.embed(ids)), expected, atol=1e-3)
    assert torch.equal(lm.logits(lm.embed(ids)), expected)
    assert lm.weights_hash() == lm.hash == FrozenLM(plain, tokenizer).hash


def test_a_step_trains_adapters_alone_even_when_they_were_switched_off_before_the_backward_pass(toy):
    lm = stirred(frozen(toy))
    before = [p.detach().clone() for p in lm.adapter_parameters]
    optimizer = torch.optim.SGD(lm.adapter_parameters, lr=1.0)
    ids = lm.ids(rows_of(lm))
    with lm.adapters():
        states = lm.states(lm.embed(ids))
    (states[..., 0].sum() + lm.logits(lm.embed(ids)).mean()).backward()
    optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(lm.adapter_parameters, before, strict=True))
    assert all(p.grad is None for name, p in lm.model.named_parameters() if "lora_" not in name)
    lm.check()
    with torch.no_grad():
        next(p for name, p in lm.model.named_parameters() if "lora_" not in name).view(-1)[0] += 1e-3
    with pytest.raises(RuntimeError, match="have changed"):
        lm.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_flow_through_the_frozen_model_to_a_soft_prompt_and_to_keys_and_values(toy, family):
    lm = frozen(toy, family)
    ids = lm.ids([[5, 6, 7]])
    soft = torch.randn(1, 2, lm.width, requires_grad=True)
    lm.logits(torch.cat([soft, lm.embed(ids)], 1))[0, -1, 3].backward()
    assert bool((soft.grad.abs().sum(-1) > 0).all())
    heads, size = lm.key_shape()
    pairs = [tuple(torch.randn(1, heads, 2, size, requires_grad=True) for _ in "kv") for _ in lm.attending()]
    lm.logits(lm.embed(ids), prefix=pairs)[0, -1, 3].backward()
    assert all(bool((part.grad.abs() > 0).any()) for pair in pairs for part in pair)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_the_keys_and_values_of_a_text_as_prefix_are_the_text_before(toy, family):
    lm = frozen(toy, family)
    whole = lm.ids([[5, 6, 7, 8, 9]])
    cache = lm.model(whole[:, :3], use_cache=True).past_key_values
    prefix = [(cache.layers[i].keys, cache.layers[i].values) for i in lm.attending()]
    assert_close(lm.logits(lm.embed(whole[:, 3:]), prefix=prefix), lm.model(whole).logits[:, 3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_completions_are_those_of_generate_for_each_prompt_alone(toy, family):
    lm = frozen(toy, family)
    prompts = [lm.embed(torch.tensor(row)) for row in rows_of(lm)]
    expected = []
    for row in rows_of(lm):
        out = lm.model.generate(torch.tensor([row]), max_new_tokens=6, do_sample=False, eos_token_id=lm.ends)
        expected.append(lm.tokenizer.decode(out[0, len(row) :], skip_special_tokens=True).strip())
    assert complete(lm, prompts, 6) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", ["gpt2", "lfm2"])
def test_decoding_with_a_prefix_and_padding_equals_one_by_one(toy, family):
    lm = frozen(toy, family)
    heads, size = lm.key_shape()
    torch.manual_seed(0)
    pairs = [(9 * torch.randn(3, heads, 2, size), 9 * torch.randn(3, heads, 2, size)) for _ in lm.attending()]
    prompts = [lm.embed(torch.tensor(row)) for row in rows_of(lm)]
    alone = [complete(lm, [prompts[i]], 5, [(k[[i]], v[[i]]) for k, v in pairs])[0] for i in range(3)]
    assert complete(lm, prompts, 5, pairs) == alone
    assert alone != complete(lm, prompts, 5)


def test_contrast_is_the_guidance_of_transformers(toy):
    """(1 + α) z - α z' is classifier-free guidance of scale 1 + α, whose log-softmax shifts each side by a constant."""
    lm = frozen(toy, "llama")
    rows, others = rows_of(lm), rows_of(lm, ["Ada", "Where does Bo live?", "Bees"])
    expected = []
    for row, other in zip(rows, others, strict=True):
        guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, lm.model, torch.tensor([other]), use_cache=False)
        ids = torch.tensor([row])
        for step in range(5):
            seen = ids if step else ids[:, -1:]
            token = guidance(seen, lm.model(ids).logits[:, -1].float()).argmax(-1)
            if int(token) in lm.ends:
                break
            ids = torch.cat([ids, token[:, None]], 1)
        expected.append(lm.tokenizer.decode(ids[0, len(row) :], skip_special_tokens=True).strip())
    vectors, against = ([lm.embed(torch.tensor(row)) for row in part] for part in (rows, others))
    assert complete(lm, vectors, 5, against=against, alpha=0.5) == expected
    assert complete(lm, vectors, 5, against=against, alpha=0.0) != expected
    with pytest.raises(ValueError, match="0 prompts against 3"):
        complete(lm, vectors, 5, alpha=0.5)
