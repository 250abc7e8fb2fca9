"""Language models from their settings: a builder for each backend.

lm = build(LanguageModelSettings(name="microlm"))
lm = build(LanguageModelSettings(backend="served", name="Qwen/Qwen2.5-7B-Instruct"))
lm = build(LanguageModelSettings(backend="openai", name="Qwen/Qwen2.5-7B-Instruct", url="http://localhost:8000/v1"))
"""

from collections.abc import Callable
from pathlib import Path

from common.experiments.errors import UserError
from common.models import serving
from common.models.hub import located
from common.models.language_model import LanguageModel
from common.models.meter import Meter, Metered
from common.models.openai_lm import OpenAILM
from common.models.response_cache import CachedLM
from common.models.settings import LanguageModelSettings, place
from common.models.transformers_lm import TransformersLM
from common.models.vllm_lm import VllmLM


def build(
    settings: LanguageModelSettings, *, meter: Meter | None = None, responses: Path | None = None
) -> LanguageModel:
    """The model of these settings.

    Args:
        meter: counts what is spent on it, cached responses included.
        responses: folder in which to keep responses.

    Raises:
        UserError: the model is not there.
    """
    lm = MAKERS[settings.backend](settings)
    if responses is not None:
        lm = CachedLM(lm, responses)
    return lm if meter is None else Metered(lm, meter)


def _transformers(s: LanguageModelSettings) -> LanguageModel:
    device = s.device or None
    return TransformersLM.load(place(s.name), s.revision or None, dtype=s.dtype, device=device, batch_size=s.batch_size)


def _vllm(s: LanguageModelSettings) -> LanguageModel:
    context, memory = s.context or None, s.memory or None
    return VllmLM.load(place(s.name), s.revision or None, dtype=s.dtype, context=context, memory=memory, gpus=s.gpus)


def _served(s: LanguageModelSettings) -> LanguageModel:
    _, _, commit = located(place(s.name), s.revision or None)
    return OpenAILM(
        serving.url_of(s),
        s.name,
        commit,
        key_variable=serving.KEY,
        timeout=s.timeout,
        retries=s.retries,
        concurrency=s.concurrency,
    )


def _openai(s: LanguageModelSettings) -> LanguageModel:
    if not s.url:
        raise UserError(f"backend openai needs the server's `url`, for example http://localhost:8000/v1 for '{s.name}'")
    return OpenAILM(
        s.url,
        s.name,
        s.revision,
        key_variable=s.key_variable,
        timeout=s.timeout,
        retries=s.retries,
        concurrency=s.concurrency,
        context=s.context,
    )


MAKERS: dict[str, Callable[[LanguageModelSettings], LanguageModel]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "served": _served,
    "openai": _openai,
}
