"""The HTTP backend against a real `vllm serve`: conformance, and servers that lack the model, are slow, or die."""

import os
import signal
import threading
import time

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.openai_lm import OpenAILM
from common.models.settings import SHIPPED
from common.models.transformers_lm import TransformersLM
from tests.common.models.conformance import CHECKS, NOISE, agrees_on_microlm
from tests.common.models.trained import ANSWERS, question, trained_checkpoint
from tests.integration.serving import VLLM, served

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not VLLM.exists(), reason="no vLLM: `make vllm` was not run, or failed"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL, process and folder of the model."""
    folder = trained_checkpoint("lfm2")
    with served(folder, tmp_path_factory.mktemp("server") / "log") as (url, process):
        yield url, process, folder


@pytest.fixture(scope="module")
def models(server):
    url, _, folder = server
    lm = OpenAILM(url, "model")
    yield lm, TransformersLM.load(str(folder))
    lm.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(models, check):
    check(*models, NOISE["float32"])


def test_a_server_of_vllm_is_known_and_says_its_context(models):
    lm, reference = models
    assert lm.vllm
    assert (lm.name, lm.context, lm.backend) == ("model", reference.context, "vllm server")


def test_the_protocol_alone_is_enough(models, server):
    """As if the server were not vLLM's: no ids, echoed scores, forms by trying again; the same texts and numbers."""
    lm, reference = OpenAILM(server[0], "model"), models[1]
    lm.vllm = False
    sampling = Sampling(max_tokens=48, log_probs=True)
    prompts = [*ANSWERS, *map(question, ANSWERS)]
    for one, other in zip(lm.generate(prompts, sampling), reference.generate(prompts, sampling), strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.log_probs == pytest.approx(other.log_probs, abs=NOISE["float32"])
    pairs = list(ANSWERS), list(ANSWERS.values())
    for one, other in zip(lm.score(*pairs), reference.score(*pairs), strict=True):
        assert one.total == pytest.approx(other.total, abs=0.05)
        assert one.prompt_tokens == other.prompt_tokens
    [found] = lm.generate(["Write JSON."], Sampling(max_tokens=48, regex=r" \{.*\}"))
    assert (found.text, found.finish_reason) == (' {"a": 1, "b": "x"}', "stop")
    with pytest.raises(UserError, match="scores strings"):
        lm.score([question("a")], ["b"])
    with pytest.raises(UserError, match="no top_k"):
        lm.generate(["a"], Sampling(top_k=3))
    lm.close()


def test_microlm_agrees(tmp_path):
    with served(SHIPPED["microlm"], tmp_path / "log", context=1024) as (url, _):
        lm = OpenAILM(url, "model")
        assert lm.context == 1024
        agrees_on_microlm(lm, TransformersLM.load(str(SHIPPED["microlm"])))
        lm.close()


def test_an_unknown_model_names_the_nearest(server):
    with pytest.raises(UserError, match=r"has no model 'modle'; did you mean 'model'\?"):
        OpenAILM(server[0], "modle")


def test_a_slow_server_is_given_up(server):
    """Stopped in its tracks: it accepts connections and answers none."""
    url, process, _ = server
    lm = OpenAILM(url, "model", timeout=1.0, retries=1)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(UserError, match="gave no answer in 1 s: raise `timeout`"):
            lm.generate(["a"], Sampling(max_tokens=4))
        assert time.monotonic() - begin < 10  # two tries and a pause
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert lm.generate(["Count to five."], Sampling(max_tokens=4))[0].text == " 1, "
    lm.close()


def test_a_server_killed_in_the_middle_is_reported(tmp_path):
    with served(trained_checkpoint("llama"), tmp_path / "log") as (url, process):
        lm = OpenAILM(url, "model", retries=1)
        kill = threading.Timer(1.0, os.killpg, (process.pid, signal.SIGKILL))
        kill.start()
        with pytest.raises(UserError, match=f"no server answers at {url}: start one"):
            for seed in range(1000):
                lm.generate(["a"] * 64, Sampling(max_tokens=400, temperature=2.0, seed=seed))
        kill.join()
        with pytest.raises(UserError, match="no server answers"):
            OpenAILM(url, "model")
