"""The HTTP backend against a real `vllm serve`: conformance, and servers that lack the model, are slow, or die."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling
from common.models.openai_lm import OpenAILM
from common.models.serving import KEY, start, vllm_program
from common.models.settings import SHIPPED, LanguageModelSettings
from common.models.transformers_lm import TransformersLM
from tests.common.models.conformance import CHECKS, NOISE, agrees_on_microlm
from tests.common.models.trained import ANSWERS, question, trained_checkpoint

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(vllm_program() is None, reason="no vLLM: `make vllm` was not run, or failed"),
]


@contextmanager
def serving(folder, context=0):
    """URL, process and model of a server."""
    server = start(LanguageModelSettings(str(folder), backend="served", context=context))
    try:
        yield server.url, server.process, str(folder)
    finally:
        server.end()


@pytest.fixture(scope="module")
def server():
    with serving(trained_checkpoint("lfm2")) as started:
        yield started


def connect(server, **options):
    url, _, model = server
    return OpenAILM(url, model, key_variable=KEY, **options)


@pytest.fixture(scope="module")
def models(server):
    lm = connect(server)
    yield lm, TransformersLM.load(server[2])
    lm.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(models, check):
    check(*models, NOISE["float32"])


def test_a_server_of_vllm_is_known_and_says_its_context(models, server):
    lm, reference = models
    assert lm.vllm
    assert (lm.name, lm.context, lm.backend) == (server[2], reference.context, "vllm server")


def test_the_protocol_alone_is_enough(models, server):
    """As if the server were not vLLM's: no ids, echoed scores, forms by trying again; the same texts and numbers."""
    lm, reference = connect(server), models[1]
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


def test_microlm_agrees():
    with serving(SHIPPED["microlm"], context=1024) as server:
        lm = connect(server)
        assert lm.context == 1024
        agrees_on_microlm(lm, TransformersLM.load(str(SHIPPED["microlm"])))
        lm.close()


def test_an_unknown_model_names_the_nearest(server):
    url, _, model = server
    with pytest.raises(UserError, match=f"has no model '{model}s'; did you mean '{model}'"):
        OpenAILM(url, f"{model}s", key_variable=KEY)


def test_a_slow_server_is_given_up(server):
    """Stopped in its tracks: it accepts connections and answers none."""
    process, lm = server[1], connect(server, timeout=1.0, retries=1)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(UserError, match="gave no answer in 1 s: raise `timeout`"):
            lm.generate(["a"], Sampling(max_tokens=4))
        assert time.monotonic() - begin < 60  # two tries and a pause, not the 240 s of the default
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert lm.generate(["Count to five."], Sampling(max_tokens=4))[0].text == " 1, "
    lm.close()


def test_a_server_killed_in_the_middle_is_reported():
    with serving(trained_checkpoint("llama")) as server:
        (url, process, _), lm = server, connect(server, retries=1)
        kill = threading.Timer(1.0, os.killpg, (process.pid, signal.SIGKILL))
        kill.start()
        with pytest.raises(UserError, match=f"no server answers at {url}: start one"):
            for seed in range(1000):
                lm.generate(["a"] * 64, Sampling(max_tokens=400, temperature=2.0, seed=seed))
        kill.join()
        with pytest.raises(UserError, match="no server answers"):
            connect(server)
