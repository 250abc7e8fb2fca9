"""A specialised MicroLM is an ordinary checkpoint: vLLM loads it and answers as transformers does.

Runs with the interpreter of .venv-vllm, as `make test-integration` does.
"""

import importlib.util

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs the environment of `make vllm`", allow_module_level=True)

import gc

from common.models.build import build
from common.models.language_model import Sampling
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.facts import fact_set
from common.models.microlm.specialise import specialise
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from tests.common.models.microlm.toy_paper import EQUAL, held_out, taught

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def texts(folder, prompts, most):
    """Greedy answers of vLLM, and of transformers."""
    answers = []
    for backend in ("vllm", "transformers"):
        lm = build(LanguageModelSettings(str(folder), backend, device="cpu" if backend == "transformers" else ""))
        answers.append([done.text for done in lm.generate(prompts, Sampling(max_tokens=most))])
        del lm
        gc.collect()
    return answers


def test_a_specialised_model_answers_alike(tmp_path):
    tuning = Tuning(steps=20, step_tokens=512)
    specialise("microlm", taught(Teaching(200, EQUAL)), tuning, tmp_path, device="cpu")
    ours, expected = texts(tmp_path, [shown.prompt for shown in held_out(40)], 24)
    assert sum(a == b for a, b in zip(ours, expected, strict=True)) >= 38  # rounding may turn a near tie
    assert len(set(expected)) > 2


def test_the_fact_bearing_variant_recalls_alike():
    ours, expected = texts("microlm-facts", [known.taught[0] for known in fact_set().people[::16]], 8)
    assert sum(a == b for a, b in zip(ours, expected, strict=True)) >= 98
