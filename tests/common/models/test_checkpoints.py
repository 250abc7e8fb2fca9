"""The registry and its memory needs: published counts, closed forms, what transformers builds, measured tensors."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, BertModel

from common.experiments.errors import UserError
from common.models.checkpoints import CHECKPOINTS, find
from common.models.footprint import (
    OVERHEAD,
    Shape,
    cache_bytes,
    inference_bytes,
    lora_parameters,
    parameters,
    reinforcement_bytes,
    training_bytes,
)
from common.models.lora import with_adapters
from common.models.toy import TOYS, configuration
from common.training.reinforcement.learner import Learner
from common.training.reinforcement.settings import Reinforcement
from tests.common.training.reinforcement.acting import random_episodes

# Exact counts that public records state: the hub's counts of safetensors, or total_size of a bfloat16 index by two.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-7B-Instruct": 15_231_233_024 // 2,
    "Qwen/Qwen2.5-14B-Instruct": 29_540_067_328 // 2,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-32B": 65_524_246_528 // 2,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Meta-Llama-3-8B": 16_060_522_496 // 2,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "openai-community/gpt2-xl": 1_557_611_200,
    "EleutherAI/gpt-j-6b": 6_050_882_784,
    "google-t5/t5-base": 222_903_552,
    "google/flan-t5-base": 247_577_856,
    "google/flan-t5-xl": 2_849_757_184,
    "LiquidAI/LFM2-350M": 354_483_968,
    "LiquidAI/LFM2-1.2B": 1_170_340_608,
}
SHAPES = {checkpoint.shape: checkpoint.id for checkpoint in CHECKPOINTS.values()}


def test_the_closed_form_gives_the_published_counts():
    assert {name: parameters(find(name).shape) for name in PUBLISHED} == PUBLISHED
    assert all(parameters(checkpoint.shape) == checkpoint.parameters for checkpoint in CHECKPOINTS.values())


def numel(shape: Shape, **sizes: int | None) -> int:
    """Parameters of the model that transformers builds, on the meta device: no memory is taken."""
    shape = replace(shape, **sizes)
    with torch.device("meta"):
        if shape.family == "bert":
            config = BertConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=shape.feed_forward,
                max_position_embeddings=shape.positions,
            )
            model: nn.Module = BertModel(config)
        else:
            auto = AutoModelForSeq2SeqLM if shape.family == "t5" else AutoModelForCausalLM
            model = auto.from_config(configuration(shape))
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPES.values())
def test_the_closed_form_gives_what_transformers_builds(shape):
    """Depth one and two decide every depth, since layers (LFM2: of one kind) are alike."""
    if shape.attention_layers is None:
        one, two = numel(shape, layers=1), numel(shape, layers=2)
        count = one + (shape.layers - 1) * (two - one)
    else:
        one, two = numel(shape, layers=1, attention_layers=0), numel(shape, layers=2, attention_layers=0)
        attending = numel(shape, layers=1, attention_layers=1) - one
        count = one + (shape.layers - 1) * (two - one) + shape.attention_layers * attending
    if shape.family == "t5" and not shape.tied:
        count += shape.vocabulary * shape.width  # transformers 5 ties every T5; Flan's files hold an output matrix
    assert count == parameters(shape)


def measured_cache(shape: Shape, batch: int, tokens: int) -> int:
    """Bytes of the float tensors that a forward pass of a random model leaves in its cache."""
    auto = AutoModelForSeq2SeqLM if shape.family == "t5" else AutoModelForCausalLM
    model = auto.from_config(configuration(shape)).eval()
    ids = torch.randint(0, shape.vocabulary, (batch, tokens))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if shape.family == "t5" else {})
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    tensors: dict[int, torch.Tensor] = {}

    def collect(value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[id(value)] = value
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            collect(list(value.values()))
        elif type(value).__module__ == "transformers.cache_utils":
            collect(vars(value))

    collect(cache)
    return sum(tensor.nbytes for tensor in tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize("family", TOYS)
def test_the_cache_is_what_a_model_keeps(family):
    shape = replace(TOYS[family], window=None)
    for batch, tokens in ((1, 7), (3, 64)):
        assert cache_bytes(shape, "float32", batch, tokens) == measured_cache(shape, batch, tokens)


def test_a_window_bounds_the_cache():
    shape = TOYS["mistral"]
    assert shape.window == 48
    one_token = cache_bytes(shape, "float32", batch=3, context=1)
    assert cache_bytes(shape, "float32", 3, 40) == 40 * one_token == measured_cache(shape, 3, 40)
    assert cache_bytes(shape, "float32", 3, 64) == 48 * one_token == measured_cache(shape, 3, 64) + one_token


def test_closed_forms_of_a_published_model():
    llama = find("meta-llama/Meta-Llama-3-8B").shape
    assert cache_bytes(llama, "bfloat16", batch=1, context=8192) == 2**30  # 128 KiB a token
    assert inference_bytes(llama, "bfloat16", 1, 8192) == 2 * 8_030_261_248 + 2**30 + OVERHEAD
    assert inference_bytes(llama, "float32", 2, 8192) == 4 * 8_030_261_248 + 4 * 2**30 + OVERHEAD
    assert training_bytes(llama, "adamw_float32") == training_bytes(llama, "adamw_mixed") == 16 * 8_030_261_248
    adapters = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3)  # q and o, k and v, feed-forward
    assert lora_parameters(llama, rank=16) == adapters
    assert training_bytes(llama, "lora", rank=16) == 2 * 8_030_261_248 + 16 * adapters


def test_adamw_keeps_four_numbers_a_parameter():
    """Weights, gradients and the optimiser's moments of a real step, counted."""
    shape = TOYS["llama"]
    model = AutoModelForCausalLM.from_config(configuration(shape))
    optimiser = torch.optim.AdamW(model.parameters())
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    moments = [value for state in optimiser.state.values() for value in state.values() if value.ndim]
    held = [tensor for weight in model.parameters() for tensor in (weight, weight.grad)] + moments
    assert sum(tensor.nbytes for tensor in held) == training_bytes(shape, "adamw_float32")


@pytest.mark.parametrize("rank", [0, 3])
def test_reinforcement_keeps_a_policy_a_critic_and_a_reference(rank):
    """What a learner holds after a real update, counted, with a gradient for each weight that is trained."""
    shape = replace(TOYS["llama"], tied=True)
    model = AutoModelForCausalLM.from_config(configuration(shape))
    if rank:
        with_adapters(model.bfloat16(), rank, 32)
    learner = Learner(model, Reinforcement(algorithm="ppo", kl="reward", kl_coef=0.1, lr=1e-3, lora_rank=rank))
    learner.update(random_episodes(1), 0)
    parts = (*learner.trained.values(), learner.reference.model)
    weights = {id(p): p for part in parts for p in part.parameters()}.values()
    gradients = [p for p in weights if p.requires_grad]
    states = [state for optimizer in learner.optimizers.values() for state in optimizer.state.values()]
    moments = [value for state in states for value in state.values() if value.ndim]
    held = sum(tensor.nbytes for tensor in (*weights, *gradients, *moments))
    head = 16 * (shape.width + 1)  # of the critic, alone not in the formula
    assert held - head == reinforcement_bytes(shape, critic=True, reference=True, rank=rank)


def test_closed_forms_of_reinforcement():
    llama = find("meta-llama/Meta-Llama-3-8B").shape
    weights, adapters = 8_030_261_248, lora_parameters(llama, rank=8)
    assert reinforcement_bytes(llama, critic=False, reference=False) == 16 * weights
    assert reinforcement_bytes(llama, critic=False, reference=True) == 20 * weights
    for reference in (False, True):  # that of an adapted policy takes no room
        assert reinforcement_bytes(llama, True, reference, rank=8) == 2 * (2 * weights + 16 * adapters)


@pytest.mark.parametrize("family", TOYS)
def test_adapters_are_counted_on_every_linear_layer_but_the_output(family):
    shape = TOYS[family]
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    model = auto.from_config(configuration(shape))
    with_adapters(model, 4, 32)
    assert lora_parameters(shape, 4) == sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def test_the_registry_is_consistent():
    for name, checkpoint in CHECKPOINTS.items():
        assert name == checkpoint.id and name.count("/") == 1 and checkpoint.licence
        assert checkpoint.revision is None or len(checkpoint.revision) == 40
        assert set(checkpoint.unverified) <= set(vars(checkpoint))
        assert ("unknown" in checkpoint.licence) <= ("licence" in checkpoint.unverified)
    assert find("google-t5/t5-base").bytes == 4 * 222_903_552
    assert find("Qwen/Qwen2.5-7B").bytes == 15_231_233_024


def test_what_the_dossiers_and_configs_name_is_registered():
    for name in (
        "Qwen/Qwen2-7B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct", "facebook/contriever-msmarco",  # amber
        "google/flan-t5-xl", "meta-llama/Llama-2-7b-hf", "distilbert/distilgpt2", "openai-community/gpt2-large",  # cmt
        "google-t5/t5-large", "castorini/doc2query-t5-large-msmarco", "Qwen/Qwen2.5-14B-Instruct",  # dsi_pp, mem1
        "Mem-Lab/Qwen2.5-7B-RL-RAG-Q2-EM-Release", "intfloat/e5-base-v2", "YuWangX/Memalpha-4B", "Qwen/Qwen3-32B",
        "mistralai/Mistral-7B-v0.1", "EleutherAI/gpt-j-6b", "openai-community/gpt2-xl",  # wise
    ):  # fmt: skip
        assert find(name)


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown checkpoint 'google-t5/t5-bse'; did you mean 'google-t5/t5-base'\?"):
        find("google-t5/t5-bse")
    with pytest.raises(ValueError, match="no parameter count for family 'mamba'"):
        parameters(replace(TOYS["llama"], family="mamba"))


def test_cached_and_how_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    llama = find("meta-llama/Llama-2-7b-hf")
    assert not llama.cached()
    command, _, condition = llama.how_to_get().partition(" (")
    assert command == f"hf download meta-llama/Llama-2-7b-hf --revision {llama.revision}"
    assert condition.startswith("gated")
    assert "pickled" in find("facebook/contriever-msmarco").how_to_get()
    (tmp_path / "models--meta-llama--Llama-2-7b-hf" / "snapshots" / "abc").mkdir(parents=True)
    assert llama.cached()
