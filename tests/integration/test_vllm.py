"""vLLM in process (CPU build): the conformance suite against transformers on the same checkpoint.

Runs with the interpreter of .venv-vllm, as `make test-integration` does.
"""

import importlib.util

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs the environment of `make vllm`", allow_module_level=True)

import gc

from common.models.language_model import Sampling
from common.models.settings import SHIPPED
from common.models.transformers_lm import TransformersLM
from common.models.vllm_lm import VllmLM
from tests.common.models.conformance import CHECKS, NOISE, agrees_on_microlm, log_probs_agree, scores_agree
from tests.common.models.trained import ANSWERS, trained_checkpoint

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["lfm2", "llama"])
def models(request):
    folder = str(trained_checkpoint(request.param))
    lm = VllmLM.load(folder)
    yield lm, TransformersLM.load(folder)
    del lm
    gc.collect()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(models, check):
    check(*models, NOISE["float32"])


@pytest.mark.parametrize("family", ["lfm2", "llama"])
def test_bfloat16_agrees_within_its_noise(family):
    folder = str(trained_checkpoint(family))
    lm, reference = VllmLM.load(folder, dtype="bfloat16"), TransformersLM.load(folder, dtype="bfloat16")
    for check in (log_probs_agree, scores_agree):
        check(lm, reference, NOISE["bfloat16"])
    greedy = Sampling(max_tokens=48)
    assert [c.text for c in lm.generate(list(ANSWERS), greedy)] == list(ANSWERS.values())


def test_microlm_agrees():
    lm, reference = VllmLM.load(str(SHIPPED["microlm"])), TransformersLM.load(str(SHIPPED["microlm"]))
    agrees_on_microlm(lm, reference)


def test_names_and_sizes_are_those_of_transformers(models):
    lm, reference = models
    assert (lm.name, lm.revision, lm.context) == (reference.name, reference.revision, reference.context)
    assert lm.kv_bytes_per_token == reference.kv_bytes_per_token
    assert lm.backend == "vllm float32"
