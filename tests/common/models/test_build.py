"""Models from settings: each backend gets its values, and what it cannot honour is refused."""

import importlib.util

import pytest

from common.experiments.errors import UserError
from common.models.build import MAKERS, build
from common.models.language_model import Sampling
from common.models.meter import Meter
from common.models.response_cache import entries
from common.models.settings import BACKENDS, LanguageModelSettings
from common.models.toy import toy_checkpoint
from tests.common.models.test_openai_lm import Server


def test_transformers_with_a_meter_and_kept_responses(tmp_path):
    folder = toy_checkpoint("llama", tmp_path / "toy")
    meter = Meter()
    settings = LanguageModelSettings(name=str(folder), dtype="bfloat16", batch_size=2)
    lm = build(settings, meter=meter, responses=tmp_path / "kept")
    assert (lm.name, lm.backend.split()[:2], lm.context) == ("toy", ["transformers", "bfloat16"], 512)
    for _ in range(2):
        lm.generate(["a", "b"], Sampling(max_tokens=3), purpose="answer")
    assert meter.usage["answer"].requests == 4
    assert entries(tmp_path / "kept")[0].responses == 2


def test_a_server(tmp_path):
    server = Server()
    lm = build(LanguageModelSettings(name="m", backend="openai", url=server.url, context=77, retries=0))
    assert (lm.name, lm.context, lm.backend) == ("m", 77, "openai server")
    with pytest.raises(UserError, match="cannot be cached"):
        build(LanguageModelSettings(name="m", backend="openai", url=server.url), responses=tmp_path)
    server.http.shutdown()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "m", "backend": "transfromers"}, "did you mean 'transformers'"),
        ({"name": "m", "backend": "openai"}, "needs the server's `url`"),
        ({"name": "m", "url": "http://localhost"}, "backend transformers has no setting 'url'"),
        ({"name": "m", "backend": "vllm", "batch_size": 3}, "backend vllm has no setting 'batch_size'"),
        ({"name": "m", "backend": "openai", "url": "x", "dtype": "bfloat16"}, "openai has no setting 'dtype'"),
    ],
)
def test_mistakes_are_one_line(values, message):
    with pytest.raises(UserError, match=message):
        build(LanguageModelSettings(**values))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_way_to_it_is_named():
    with pytest.raises(UserError, match="`make vllm`"):
        build(LanguageModelSettings(name="m", backend="vllm"))


def test_settings_of_backends_exist():
    known = set(LanguageModelSettings.__dataclass_fields__)
    assert all(has <= known for has in BACKENDS.values())
    assert MAKERS.keys() == BACKENDS.keys()
