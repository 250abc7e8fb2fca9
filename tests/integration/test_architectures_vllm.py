"""Toy checkpoints of every family in vLLM (CPU build, in process): greedy tokens and log-probabilities as transformers.

Runs with the interpreter of .venv-vllm. T5 is left out by name: vLLM has no encoder-decoder of text.
"""

import gc
import importlib.util
import os

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs the environment of `make vllm`", allow_module_level=True)

os.environ |= {  # read when vLLM is imported: its engine in this process, a small cache, no network
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM, SamplingParams
from vllm.model_executor.models.registry import ModelRegistry

from common.models.toy import TOYS, toy_checkpoint

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

FAMILIES = [family for family in TOYS if family != "t5"]
PROMPTS = ["hello there", "a", "What is the capital of Norway? " * 3]
TOKENS = 12


def in_vllm(folder):
    """Prompt tokens, generated tokens and all log-probabilities of the next token after each, for every prompt.

    Eager mode turns vLLM's own operators on; in 0.31 its rotary operator for CPUs takes LFM2's three-dimensional
    queries for two-dimensional ones and rotates heads by the positions of other tokens, hence the exception.
    """
    operators = {"custom_ops": ["-rotary_embedding"]}
    engine = LLM(
        os.fspath(folder),
        dtype="float32",
        max_model_len=256,
        max_logprobs=-1,
        enforce_eager=True,
        compilation_config=operators,
    )
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=-1, ignore_eos=True)
    results = []
    for output in engine.generate(PROMPTS, sampling, use_tqdm=False):
        found = output.outputs[0]
        rows = [[step[token].logprob for token in sorted(step)] for step in found.logprobs]
        results.append((list(output.prompt_token_ids), list(found.token_ids), torch.tensor(rows)))
    del engine
    gc.collect()
    return results


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_computes_what_transformers_computes(family, tmp_path):
    folder = toy_checkpoint(family, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for prompt, (prompt_ids, ids, log_probs) in zip(PROMPTS, in_vllm(folder), strict=True):
        assert prompt_ids == tokenizer(prompt)["input_ids"]
        assert len(ids) == TOKENS
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
        expected = torch.log_softmax(logits.float(), -1)
        torch.testing.assert_close(log_probs, expected, atol=1e-3, rtol=0)
        assert expected.argmax(-1).tolist() == ids


def test_t5_is_left_out_because_vllm_has_none():
    assert "T5ForConditionalGeneration" not in ModelRegistry.get_supported_archs()
    assert set(TOYS) - set(FAMILIES) == {"t5"}
