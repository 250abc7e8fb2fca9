"""Rollouts by vLLM (CPU build), updates by transformers, weights handed over before each step.

Runs with the interpreter of .venv-vllm, as `make test-integration` does.
"""

import importlib.util

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs the environment of `make vllm`", allow_module_level=True)

import gc
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.experiments.context import Context
from common.models.language_model import Sampling
from common.models.microlm.demonstrations import Teaching
from common.models.settings import LanguageModelSettings
from common.models.toy import toy_checkpoint
from common.training.reinforcement.sampler import sampler
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import CURVE, train
from projects.mem1 import run as mem1
from projects.mem1.settings import Learning, Questions, Rules, Settings
from projects.mem_alpha import run as mem_alpha
from projects.mem_alpha import settings as alpha
from tests.common.training.reinforcement.acting import WriteLow

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
LARGE = Reinforcement(steps=3, lr=0.1, warmup=1)  # steps that change what the model says


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return toy_checkpoint("qwen2", tmp_path_factory.mktemp("qwen2"))


def test_vllm_samples_from_the_weights_of_each_step_and_from_old_ones_where_nobody_hands_them_over(qwen):
    model = AutoModelForCausalLM.from_pretrained(qwen, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    lm, sync = sampler(model, tokenizer, LanguageModelSettings(str(qwen), "vllm"))
    first = lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids
    gaps = {}
    for name, hand_over in (("handed", sync), ("kept", lambda: None)):
        lines = []
        train(
            model,
            lm,
            tokenizer,
            WriteLow(2, 4),
            LARGE,
            sync=hand_over,
            on_step=lambda line, _, to=lines: to.append(line),
        )
        gaps[name] = [line["gap"] for line in lines]  # nats between sampled and trained log-probabilities
    assert max(gaps["handed"]) < 1e-3
    assert min(gaps["kept"][1:]) > 0.1
    sync()
    assert lm.generate(["a:"], Sampling(max_tokens=8))[0].token_ids != first  # nothing of the old weights is cached
    del lm
    gc.collect()


def test_two_steps_of_mem1_as_at_paper_scale_on_a_qwen_of_toy_width(qwen, tmp_path):
    """PPO with a critic, penalty in the reward and recomputed activations, on questions of one's own."""
    mirror = tmp_path / "data" / "mem1"
    mirror.mkdir(parents=True)
    facts = [(f"T{i}", f"Who made T{i}?", f"P{i}") for i in range(8)]
    questions = [json.dumps({"id": name, "question": text, "answers": [gold]}) for name, text, gold in facts]
    passages = [json.dumps({"id": name, "title": name, "text": f"{gold} made {name}."}) for name, _, gold in facts]
    for file, lines in (("train.jsonl", questions), ("test.jsonl", questions), ("passages.jsonl", passages)):
        (mirror / file).write_text("\n".join(lines) + "\n")
    core = Reinforcement(
        "ppo", steps=2, mini_batches=2, kl="reward", kl_estimator="k1_positive", kl_coef=0.001, entropy_coef=0.001,
        gradient_checkpointing=True,
    )  # fmt: skip
    settings = Settings(
        questions=Questions(source="jsonl", folder="mem1", objectives=2, count=2, characters=60),
        rules=Rules(turns="paper", turn_tokens=16),
        lm=LanguageModelSettings(str(qwen), "vllm"),
        taught=Teaching(0, {}),
        rl=Learning(tasks=4, core=core),
    )
    result = mem1.run(settings, Context(seed=0, folder=tmp_path / "cell", data=tmp_path / "data"))
    assert result.metrics["gap"] < 1e-3
    assert result.metrics["turns"] >= 1


def test_two_steps_of_mem_alpha_as_at_paper_scale_on_a_qwen_of_toy_width(tmp_path):
    """GRPO over all chunk-actions of an instance, calls in JSON, another model reads and judges, own streams."""
    models = {}
    for name, seed in (("writer", 0), ("reader", 1)):
        folder = models[name] = toy_checkpoint("qwen3", tmp_path / name, seed)
        for file, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
            stored = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(stored | {key: 8192}))  # the prompts are long in bytes
    mirror = tmp_path / "data" / "mem_alpha"
    mirror.mkdir(parents=True)
    stream = {
        "family": "ttl", "dataset": "trec_c", "metric": "label",
        "chunks": ["blue rope -> label 1", "red tin -> label 2"],
        "questions": [{"question": "label of rope", "answers": [["1"]]}],
    }  # fmt: skip
    lines = "".join(json.dumps(stream | {"id": name}) + "\n" for name in "ab")
    for name in ("train", "validation"):
        (mirror / f"{name}.jsonl").write_text(lines)
    core = Reinforcement("grpo", steps=2, mini_batches=2, unit="turn", grouping="instance", dual_clip=3.0)
    settings = alpha.Settings(
        arm="rl",
        streams=alpha.Streams("jsonl", "mem_alpha"),
        rules=alpha.Rules(dialect="json", prompt_tokens=6144, reader_tokens=6144, turn_tokens=16, answer_tokens=8),
        writer=LanguageModelSettings(str(models["writer"]), "vllm"),
        reader=LanguageModelSettings(str(models["reader"]), device="cpu"),
        warm=alpha.WarmStart(0),
        reading=alpha.ReaderTraining(0),
        rl=alpha.Learning(instances=1, rollouts=2, chunks=2, validity="reader", core=core),
    )
    metrics = mem_alpha.run(settings, Context(seed=0, folder=tmp_path / "cell", data=tmp_path / "data")).metrics
    assert 0 <= metrics["r1_end"] <= 1
    [curve] = (tmp_path / "cell" / "artifacts").glob(f"policy-*/{CURVE}")
    lines = [json.loads(line) for line in curve.read_text().splitlines()]
    assert len(lines) == 2 and max(line["gap"] for line in lines) < 1e-3
