"""Toy checkpoints of every family load and generate as downloaded ones do: save, load, tokenizer, chat template."""

import hashlib

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from common.models.footprint import Shape, parameters
from common.models.language_model import Sampling
from common.models.toy import CONTEXT, TOYS, byte_tokenizer, configuration, toy_checkpoint
from common.models.transformers_lm import TransformersLM

TEXT = "Ada\tmet <|end|> Bø at 10°C\n\n  雪 🙂 \x00"
TOKENS = 60  # beyond the toy Mistral's window of 48
PROMPTS = ["hello there", "a", "What is the capital of Norway? " * 3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: toy_checkpoint(family, tmp_path_factory.mktemp(family)) for family in TOYS}


def load(folder, family):
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("family", TOYS)
def test_a_checkpoint_is_safetensors_alone_and_has_the_parameters_of_its_shape(folders, family):
    names = {path.name for path in folders[family].iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert all(name.endswith((".json", ".jinja", ".safetensors")) for name in names)
    with safe_open(folders[family] / "model.safetensors", "pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    assert sum(torch.Size(size).numel() for size in sizes) == parameters(TOYS[family])


@pytest.mark.parametrize("family", TOYS)
def test_it_loads_whole_and_computes_what_was_saved(folders, family):
    model = load(folders[family], family)
    assert model.config.model_type == family
    ids = torch.arange(40)[None]
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})
    with torch.no_grad():
        logits = model(**inputs).logits
        again = load(folders[family], family)(**inputs).logits
    assert logits.shape == (1, 40, TOYS[family].vocabulary) and torch.isfinite(logits).all()
    assert torch.equal(logits, again)
    assert logits.std() > 0.5  # not the uniform distribution of a fresh small initialisation


@pytest.mark.parametrize("family", [family for family in TOYS if family != "t5"])
def test_the_past_alone_decides(folders, family):
    """Changing the last token leaves all earlier logits, and steps with a cache give what one pass gives."""
    model = load(folders[family], family)
    ids = torch.randint(0, 256, (1, 60), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % 256
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=changed).logits[:, :-1], whole[:, :-1])
        prompt = model(input_ids=ids[:, :50], use_cache=True)
        steps, cache = [prompt.logits], prompt.past_key_values
        for position in range(50, 60):
            step = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            steps, cache = [*steps, step.logits], step.past_key_values
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", TOYS)
def test_greedy_decoding_is_the_same_alone_and_in_a_padded_batch(folders, family):
    model, tokenizer = load(folders[family], family), AutoTokenizer.from_pretrained(folders[family])
    options = {"max_new_tokens": 10, "do_sample": False}

    def generate(prompts):
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        inputs.pop("token_type_ids", None)
        out = model.generate(**inputs, **options)
        return out if family == "t5" else out[:, inputs["input_ids"].shape[1] :]

    alone = [generate([prompt])[0] for prompt in PROMPTS]
    for one, row in zip(alone, generate(PROMPTS), strict=True):
        assert torch.equal(one, row[: len(one)])
    assert len({tuple(one.tolist()) for one in alone}) == len(PROMPTS)  # the prompt matters
    assert max(len(set(one.tolist())) for one in alone) > 3  # and decoding does not stand still


@pytest.mark.parametrize("family", [family for family in TOYS if family != "t5"])
def test_our_backend_decodes_and_scores_it_as_transformers_does(folders, family):
    lm = TransformersLM.load(str(folders[family]), device="cpu")
    found = lm.generate(PROMPTS, Sampling(max_tokens=TOKENS, log_probs=True))
    for prompt, completion in zip(PROMPTS, found, strict=True):
        prompt_ids = lm.tokenizer(prompt)["input_ids"]
        ids = list(completion.token_ids)
        with torch.no_grad():
            logits = load(folders[family], family)(input_ids=torch.tensor([prompt_ids + ids])).logits[0]
        expected = torch.log_softmax(logits[len(prompt_ids) - 1 : -1], -1)
        assert expected.argmax(-1).tolist() == ids
        assert len(ids) == TOKENS or ids[-1] == lm.tokenizer.eos_token_id
        chosen = expected.gather(1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.log_probs), chosen, atol=1e-4, rtol=0)
    whole = "hello there"
    [score] = lm.score([PROMPTS[1]], [whole])
    ids = lm.tokenizer(PROMPTS[1] + whole)["input_ids"]
    with torch.no_grad():
        expected = torch.log_softmax(load(folders[family], family)(input_ids=torch.tensor([ids])).logits[0, :-1], -1)
    chosen = expected.gather(1, torch.tensor(ids)[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(score.log_probs), chosen[-len(whole) :], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", TOYS)
def test_its_tokenizer_reads_any_text_and_has_a_chat_template(folders, family):
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    ids = tokenizer(TEXT)["input_ids"]
    assert tokenizer.decode(ids) == TEXT
    assert len(ids) == len(TEXT.replace("<|end|>", "").encode()) + 1
    assert max(ids) < TOYS[family].vocabulary
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    assert tokenizer.apply_chat_template(chat, tokenize=False) + "<|assistant|>" == text
    assert tokenizer.model_max_length == CONTEXT
    config = load(folders[family], family).config
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_the_seed_decides_every_byte(tmp_path):
    def digest(name, seed):
        folder = toy_checkpoint("qwen3", tmp_path / name, seed)
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert digest("a", 0) == digest("b", 0) != digest("c", 1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone


def test_unknown_families_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no toy of family 'mamba'; known: gpt2"):
        toy_checkpoint("mamba", tmp_path)
    with pytest.raises(ValueError, match="no configuration for family 'bert'"):
        configuration(Shape("bert", 1, 64, 2, 2, 32, 96, 320, True))
    assert len(byte_tokenizer()) == 256 + 7
