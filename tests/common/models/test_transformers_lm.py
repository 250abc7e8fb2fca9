"""The transformers backend: the conformance suite, and its batching, padding, cache and sampling against references."""

import io
import logging
import math
import re
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.experiments.errors import UserError
from common.models import transformers_lm
from common.models.kv_cache import ATTENTION, folded_attention, growing_cache
from common.models.language_model import Sampling
from common.models.toy import TOYS, toy_checkpoint
from common.models.transformers_lm import TransformersLM, draw, nucleus
from tests.common.models.conformance import CHECKS, NOISE
from tests.common.models.naive import NaiveLM
from tests.common.models.trained import ANSWERS, trained_checkpoint

FAMILIES = [family for family in TOYS if family != "t5"]
RAGGED = ["a", "Where does Ada live?", "What is this? " * 9, "今日は？", "hello there"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # toys are too small to share
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return {family: toy_checkpoint(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module", params=["lfm2", "llama"])
def trained(request):
    folder = trained_checkpoint(request.param)
    return TransformersLM.load(str(folder)), NaiveLM(folder)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(trained, check):
    check(*trained, NOISE["float32"])


def test_bfloat16_agrees_within_its_noise():
    folder = str(trained_checkpoint("lfm2"))
    wide, narrow = TransformersLM.load(folder), TransformersLM.load(folder, dtype="bfloat16")
    sampling = Sampling(max_tokens=48, log_probs=True)
    for one, other in zip(
        narrow.generate(list(ANSWERS), sampling), wide.generate(list(ANSWERS), sampling), strict=True
    ):
        assert one.token_ids == other.token_ids
        assert one.log_probs == pytest.approx(other.log_probs, abs=NOISE["bfloat16"])
    assert narrow.backend != wide.backend


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_computes_what_single_prompts_do(toys, family):
    """Left padding must not leak: not into attention, not into positions, not into the convolutions of LFM2."""
    lm = TransformersLM.load(str(toys[family]))
    sampling = Sampling(max_tokens=24, log_probs=True)
    together = lm.generate(RAGGED, sampling)
    for prompt, batched in zip(RAGGED, together, strict=True):
        [alone] = lm.generate([prompt], sampling)
        assert batched.token_ids == alone.token_ids
        assert batched.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
    scores = lm.score(RAGGED, [c.text for c in together])
    for prompt, completion, score in zip(RAGGED, together, scores, strict=True):
        [alone] = lm.score([prompt], [completion.text])
        assert score.log_probs == pytest.approx(alone.log_probs, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_is_a_loop_without_a_cache(toys, family):
    """Against the slow and obvious form: the whole text through the model for each new token."""
    lm = TransformersLM.load(str(toys[family]))
    slow = AutoModelForCausalLM.from_pretrained(toys[family], dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(toys[family])
    found = lm.generate(RAGGED, Sampling(max_tokens=70, log_probs=True))  # beyond a window of 48, and a buffer's step
    for prompt, completion in zip(RAGGED, found, strict=True):
        ids = tokenizer(prompt).input_ids
        whole = torch.tensor([[*ids, *completion.token_ids]])
        with torch.no_grad():
            log_probs = slow.eval()(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        chosen = torch.tensor(completion.token_ids)
        torch.testing.assert_close(log_probs.max(-1).indices, chosen)
        expected = log_probs.gather(-1, chosen[:, None])[:, 0].tolist()
        assert completion.log_probs == pytest.approx(expected, abs=1e-4)


def test_a_growing_cache_holds_what_the_dynamic_one_does(toys):
    from transformers import DynamicCache

    model = AutoModelForCausalLM.from_pretrained(toys["lfm2"], dtype=torch.float32)
    ids = torch.arange(40).reshape(2, 20)
    caches = growing_cache(model.config), DynamicCache(config=model.config)
    with torch.no_grad():
        for cache in caches:
            model(ids, past_key_values=cache, use_cache=True)
            for step in range(70):
                model(ids[:, step % 20, None], past_key_values=cache, use_cache=True)
            cache.reorder_cache(torch.tensor([1]))
            model(ids[1:, :1], past_key_values=cache, use_cache=True)
    grown, dynamic = (cache.layers[-1] for cache in caches)
    assert grown.get_seq_length() == dynamic.get_seq_length() == 91
    torch.testing.assert_close(grown.keys, dynamic.keys)
    torch.testing.assert_close(grown.values, dynamic.values)


def test_folded_queries_attend_as_repeated_keys_do():
    """Two groups of three heads, one new token, a mask of its own for each sequence."""
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 1, 32), torch.randn(2, 2, 9, 32), torch.randn(2, 2, 9, 32)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9], dtype=torch.bool)[:, None, None]
    found, _ = folded_attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    repeated = key.repeat_interleave(3, dim=1), value.repeat_interleave(3, dim=1)
    weights = (query @ repeated[0].mT * 0.3).masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(found, (weights @ repeated[1]).transpose(1, 2))


def test_special_tokens_are_tokens_but_no_text(toys):
    lm = TransformersLM.load(str(toys["llama"]))
    drawn = lm.generate(["a"] * 64, [Sampling(max_tokens=24, temperature=2.0, seed=seed) for seed in range(64)])
    special = set(lm.tokenizer.all_special_ids) | {lm.tokenizer.convert_tokens_to_ids("<|user|>")}
    assert any(special & set(c.token_ids[:-1]) for c in drawn)
    assert not any("<|" in c.text for c in drawn)


def test_models_keep_the_attention_that_was_asked_for(toys):
    tokenizer = AutoTokenizer.from_pretrained(toys["llama"])
    for asked, used in (("sdpa", ATTENTION), ("eager", "eager")):
        model = AutoModelForCausalLM.from_pretrained(toys["llama"], attn_implementation=asked)
        assert TransformersLM(model, tokenizer).model.config._attn_implementation == used


def test_batches_are_bounded_and_need_not_all_fit(toys):
    lm = TransformersLM.load(str(toys["llama"]), batch_size=3, batch_tokens=100)
    assert list(lm._batches([10, 60, 20, 90, 10, 10, 10])) == [[3], [1], [2, 0, 4], [5, 6]]
    assert list(lm._batches([500])) == [[0]]  # one always may
    whole = TransformersLM.load(str(toys["llama"])).generate(RAGGED, Sampling(max_tokens=8))
    assert lm.generate(RAGGED, Sampling(max_tokens=8)) == whole


def test_the_nucleus_keeps_the_fewest_likeliest():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64)
    assert nucleus(probs, 0, 0.5).tolist() == [[0, 0.5, 0, 0]]
    assert nucleus(probs, 0, 0.51).tolist() == [[0, 0.5, 0, 0.25]]
    assert nucleus(probs, 0, 1.0).tolist() == probs.tolist()
    torch.testing.assert_close(nucleus(probs, 2, 1.0), torch.tensor([[0, 2 / 3, 0, 1 / 3]], dtype=torch.float64))
    torch.testing.assert_close(nucleus(probs, 2, 0.6), torch.tensor([[0, 2 / 3, 0, 0]], dtype=torch.float64))
    assert nucleus(probs, 9, 1.0).tolist() == probs.tolist()


def test_a_draw_inverts_the_cumulative_distribution():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64).expand(5, -1)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.9, math.nextafter(1, 0)], dtype=torch.float64)
    assert draw(probs, uniform).tolist() == [1, 1, 3, 3, 3]
    assert draw(probs / 2, uniform).tolist() == [1, 1, 3, 3, 3]


def test_broken_weights_are_a_failure_and_not_a_text(toys):
    lm = TransformersLM.load(str(toys["llama"]))
    lm.model.lm_head.weight.data[3] = math.nan
    with pytest.raises(FloatingPointError):
        lm.generate(["a"], Sampling(max_tokens=2))


def test_mistakes_are_one_line(toys, tmp_path):
    for name, options, message in (
        (str(tmp_path / "absent"), {}, "no model in"),
        ("no-such-model", {}, "no-such-model"),
        ("someone/absent-model", {}, "hf download someone/absent-model"),
        (str(toys["llama"]), {"dtype": "bfloat61"}, "did you mean 'bfloat16'"),
        (str(toys["llama"].parent), {}, "no safetensors"),
    ):
        with pytest.raises(UserError, match=message) as error:
            TransformersLM.load(name, **options)
        assert len(str(error.value).splitlines()) == 1


def test_four_bits_are_asked_of_transformers_or_missed_in_one_line(toys, monkeypatch):
    folder, loaded = str(toys["llama"]), []
    plain = AutoModelForCausalLM.from_pretrained(folder)

    def from_pretrained(folder, **options):
        loaded.append(options)
        return plain

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="unknown quantization 'nf3'; did you mean 'nf4'"):
        TransformersLM.load(folder, quantize="nf3")
    with pytest.raises(UserError, match="nf4 takes an NVIDIA GPU, and there is none here"):
        TransformersLM.load(folder, quantize="nf4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(transformers_lm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        TransformersLM.load(folder, quantize="nf4")
    assert not loaded
    monkeypatch.setattr(transformers_lm, "find_spec", lambda name: name)
    assert TransformersLM.load(folder, dtype="bfloat16", quantize="nf4").model is plain  # where it was put, not moved
    config = loaded[0]["quantization_config"]
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and not config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16 and loaded[0]["device_map"] == {"": "cuda"}


def test_messages_need_a_template_that_takes_them(toys):
    lm = TransformersLM.load(str(toys["llama"]))
    lm.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserError, match="refuses these messages: no system role"):
        lm.generate([[{"role": "system", "content": "x"}]], Sampling(max_tokens=1))
    lm.tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template"):
        lm.generate([[{"role": "user", "content": "x"}]], Sampling(max_tokens=1))


def test_what_is_no_decoder_is_refused_in_one_line(tmp_path):
    from transformers import AutoModelForSeq2SeqLM, BertConfig, BertModel

    folder = toy_checkpoint("t5", tmp_path / "t5")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    with pytest.raises(UserError, match="encoder-decoder"):
        TransformersLM(model, AutoTokenizer.from_pretrained(folder))
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**shape)).save_pretrained(tmp_path / "bert")
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "model.safetensors").touch()
    for name, message in (
        ("t5", r"'t5' is an encoder-decoder \(t5\), not a decoder-only language model"),
        ("bert", r"'bert' is an encoder \(bert\), not"),
        ("unknown", "model 'unknown' has no config that transformers knows"),
    ):
        with pytest.raises(UserError, match=message) as error:
            TransformersLM.load(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_gpt_neox_which_calls_itself_no_decoder_is_one(tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    toy_checkpoint("llama", tmp_path)  # for its tokenizer
    size = len(AutoTokenizer.from_pretrained(tmp_path))
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=size, **shape)).save_pretrained(tmp_path)
    assert TransformersLM.load(str(tmp_path)).generate(["a"], Sampling(max_tokens=2))


def test_loading_is_quiet_and_other_warnings_are_heard(toys, capfd):
    """LFM2 on a CPU: no bars, no advice to install CUDA kernels; transformers' own settings stay as they were."""
    logger, heard = logging.getLogger("transformers.integrations.hub_kernels"), io.StringIO()
    handler = logging.StreamHandler(heard)
    logger.addHandler(handler)
    transformers.utils.logging.enable_progress_bar()
    try:
        transformers.utils.logging.warning_once.cache_clear()
        TransformersLM.load(str(toys["lfm2"])).generate(["a"], Sampling(max_tokens=2))
        logger.warning("another")
    finally:
        logger.removeHandler(handler)
    assert heard.getvalue() == "another\n"
    assert not re.search("Loading|causal_conv1d", capfd.readouterr().err)
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_the_revision_is_that_of_the_files(toys, tmp_path):
    first = TransformersLM.load(str(toys["llama"])).revision
    assert first == TransformersLM.load(str(toys["llama"])).revision
    other = TransformersLM.load(str(toy_checkpoint("llama", tmp_path, seed=1))).revision
    assert first.startswith("sha256:") and first != other


def test_ends_of_the_generation_config_count(toys):
    lm = TransformersLM.load(str(toys["llama"]))
    [free] = lm.generate(["a"], Sampling(max_tokens=8))
    lm.model.generation_config.eos_token_id = [258, free.token_ids[3]]
    again = TransformersLM(lm.model, lm.tokenizer)
    [ended] = again.generate(["a"], replace(Sampling(max_tokens=8), log_probs=True))
    stop = free.token_ids.index(free.token_ids[3])
    assert ended.token_ids == free.token_ids[: stop + 1]
    assert ended.finish_reason == "stop"
