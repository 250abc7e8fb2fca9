"""Both compressors against a loop written by hand; padding; a function of the text alone; what is trained."""

import pytest
import torch
from torch.testing import assert_close

from common.experiments.errors import UserError
from common.models.compressor import Compressor, EncoderDecoder, appended, fresh_t5, keep_first, pretrained_t5
from common.models.frozen import FrozenLM
from common.models.toy import toy_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = [[5, 6, 7, 8, 9], [11], [12, 13, 14]]


def made(toy, family="llama", seed=0):
    torch.manual_seed(seed)
    lm = FrozenLM(*toy(family))
    compressor = Compressor(lm, {"document": 3, "question": 2}, rank=4, alpha=8.0)
    with torch.no_grad():
        for parameter in lm.adapter_parameters:  # LoRA's B is zero at first
            parameter.normal_(std=0.1)
    return lm, compressor


def test_soft_tokens_follow_the_last_token_and_padding_follows_them():
    vectors = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [0.0], [0.0]]])
    result, at = appended(vectors, torch.tensor([3, 1]), torch.tensor([[7.0], [8.0]]))
    assert result[..., 0].tolist() == [[1, 2, 3, 7, 8], [4, 7, 8, 0, 0]]
    assert at.tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize("family", ["gpt2", "lfm2", "llama"])
def test_a_text_is_compressed_alike_alone_in_a_batch_and_in_another_order(toy, family):
    _, compressor = made(toy, family)
    together = compressor(ROWS, "document")
    assert together.shape == (3, 3, 64)
    for i, row in enumerate(ROWS):
        assert_close(compressor([row], "document")[0], together[i], rtol=1e-4, atol=1e-5)
    assert_close(compressor(ROWS[::-1], "document"), together.flip(0), rtol=1e-4, atol=1e-5)
    longer = compressor([*ROWS, [5] * 40], "document")
    assert_close(longer[:3], together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora_lm", "encdec"])
def test_the_first_soft_tokens_alone_give_the_first_states(toy, kind):
    _, compressor = made(toy) if kind == "lora_lm" else made_t5(toy)
    whole = compressor(ROWS, "document")
    keep_first(compressor.soft, 2)
    assert_close(compressor(ROWS, "document"), whole[:, :2], rtol=1e-4, atol=1e-5)  # soft tokens see those before them
    assert [len(soft) for soft in compressor.soft.values()] == [2, 2]


def test_states_and_gradients_equal_those_of_weights_to_which_the_products_were_added_by_hand(toy):
    """y = x (W + α/r B A)ᵀ, text by text without padding, in a plain copy of the model."""
    lm, compressor = made(toy)
    target = torch.randn(3, 3, 64)
    states = compressor(ROWS, "document")
    (states * target).sum().backward()

    copy, _ = toy("llama")
    low_rank = [(name, p) for name, p in lm.model.named_parameters() if "lora_" in name]
    factors = {name: p.detach().clone().requires_grad_(True) for name, p in low_rank}
    soft = compressor.soft["document"].detach().clone().requires_grad_(True)
    weights = {}
    for name, weight in copy.named_parameters():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A.default.weight" in factors:
            product = factors[f"{stem}.lora_B.default.weight"] @ factors[f"{stem}.lora_A.default.weight"]
            weight = weight.detach() + 8.0 / 4 * product
        weights[name] = weight
    assert len(factors) == 2 * 7 * 2  # q, k, v, o and three of the feed-forward layer, in two layers
    by_hand = []
    for row in ROWS:
        vectors = torch.cat([copy.get_input_embeddings()(torch.tensor([row])).detach(), soft[None]], 1)
        inputs = {"inputs_embeds": vectors, "output_hidden_states": True, "use_cache": False}
        by_hand.append(torch.func.functional_call(copy, weights, kwargs=inputs).hidden_states[-1][:, -3:])
    hand = torch.cat(by_hand)
    assert_close(states, hand, rtol=1e-4, atol=1e-4)
    (hand * target).sum().backward()
    for name, parameter in low_rank:
        assert_close(parameter.grad, factors[name].grad, rtol=1e-3, atol=1e-3)
    assert_close(compressor.soft["document"].grad, soft.grad, rtol=1e-3, atol=1e-3)

    with lm.adapters():
        logits = lm.logits(states)
    expected = torch.func.functional_call(copy, weights, kwargs={"inputs_embeds": hand, "use_cache": False}).logits
    assert_close(logits, expected, rtol=1e-3, atol=1e-3)


def test_its_parameters_are_adapters_and_soft_tokens_and_roles_have_their_own(toy):
    lm, compressor = made(toy, "lfm2")
    names = dict(compressor.named_parameters())
    assert len(names) == len(lm.adapter_parameters) + 2
    assert compressor(ROWS, "question").shape == (3, 2, 64)
    compressor(ROWS, "question").sum().backward()
    assert compressor.soft["document"].grad is None and compressor.soft["question"].grad is not None
    lm.check()
    with pytest.raises(ValueError, match="adapters already"):
        lm.add_adapters(2, 2.0)


# --- encoder-decoder ----------------------------------------------------------------------------------------------


def made_t5(toy, seed=0):
    torch.manual_seed(seed)
    lm = FrozenLM(*toy("llama"))
    return lm, EncoderDecoder(lm, fresh_t5(lm, 32, 2, 2, 48), {"document": 3, "question": 2})


def test_a_t5_compresses_a_text_alike_alone_in_a_batch_and_in_another_order(toy):
    _, compressor = made_t5(toy)
    together = compressor(ROWS, "document")
    assert together.shape == (3, 3, 64) and compressor(ROWS, "question").shape == (3, 2, 64)
    for i, row in enumerate(ROWS):
        assert_close(compressor([row], "document")[0], together[i], rtol=1e-4, atol=1e-5)
    assert_close(compressor(ROWS[::-1], "document"), together.flip(0), rtol=1e-4, atol=1e-5)
    assert_close(compressor([*ROWS, [5] * 40], "document")[:3], together, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(compressor([[5, 6, 7, 8, 10]], "document")[0], together[0], atol=1e-3)
    assert torch.equal(compressor.train()(ROWS, "document"), together)  # no dropout


def test_its_states_are_those_of_encoder_and_decoder_called_one_after_the_other(toy):
    _, compressor = made_t5(toy)
    for i, row in enumerate(ROWS):
        encoded = compressor.t5.encoder(input_ids=torch.tensor([row])).last_hidden_state
        soft = compressor.soft["document"][None]
        decoded = compressor.t5.decoder(inputs_embeds=soft, encoder_hidden_states=encoded, use_cache=False)
        expected = compressor.out(decoded.last_hidden_state)[0]
        assert_close(compressor(ROWS, "document")[i], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_of_the_t5_its_soft_tokens_and_nothing_of_the_language_model(toy):
    lm, compressor = made_t5(toy)
    compressor(ROWS, "document").pow(2).sum().backward()
    untouched = {name for name, p in compressor.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert untouched == {"soft.question"}
    assert all(p.grad is None for p in lm.model.parameters()) and not lm.adapter_parameters
    lm.check()


def test_a_pretrained_t5_reads_the_text_in_its_own_tokens(toy, tmp_path):
    lm = FrozenLM(*toy("llama"))
    t5, tokenizer = pretrained_t5(str(toy_checkpoint("t5", tmp_path / "t5")))
    compressor = EncoderDecoder(lm, t5, {"document": 3}, tokenizer)
    texts = ["Ada lives in Oslo.", "Bo"]
    rows = [[lm.tokenizer.bos_token_id, *lm.tokenizer(text).input_ids] for text in texts]
    seen = []
    t5.encoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    assert compressor(rows, "document").shape == (2, 3, 64)
    assert seen[0][0].tolist() == tokenizer(texts[0]).input_ids
    assert t5.config.dropout_rate == 0 and t5.dtype == torch.float32
    with pytest.raises(UserError, match=r"is no T5 \(llama\)"):
        pretrained_t5(str(toy_checkpoint("llama", tmp_path / "llama")))
