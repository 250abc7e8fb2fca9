"""Language models from plain values: what `configs/lm` holds, as one dataclass, and a builder for each backend.

lm = build(LanguageModelSettings(name="microlm"))
lm = build(LanguageModelSettings(backend="openai", name="Qwen/Qwen2.5-7B-Instruct", url="http://localhost:8000/v1"))
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from common.experiments.errors import UserError, nearest
from common.models.language_model import LanguageModel
from common.models.meter import Meter, Metered
from common.models.openai_lm import OpenAILM
from common.models.response_cache import CachedLM
from common.models.transformers_lm import TransformersLM
from common.models.vllm_lm import VllmLM

SHIPPED = {"microlm": Path(__file__).parent / "microlm" / "weights"}  # names of models that come with this project


@dataclass(frozen=True)
class LanguageModelSettings:
    """One language model.

    Attributes:
        backend: a key of `BACKENDS`.
        name: of a shipped model (`microlm`), `owner/name` on the hub, a path, or what a server calls its model.
        revision: commit, branch or tag on the hub; of a server's model, what you know it to be. Empty: as it is here.
        dtype: float32, bfloat16 or float16; a server decides for itself.
        device: torch's word for it; empty takes a GPU where there is one. transformers only.
        batch_size: most sequences decoded at once. transformers only.
        context: most tokens of prompt and completion; 0 is what the model or the server says. vllm and openai only.
        memory: for keys and values, in GB; 0 leaves it to vLLM. vllm only.
        gpus: over how many the model is split. vllm only.
        url: of the protocol's root, `http://host:port/v1`. openai only, as are the rest.
        key_variable: environment variable with the key.
        timeout: seconds that one try of one request may take.
        retries: tries after the first.
        concurrency: most requests under way at once.
    """

    name: str
    backend: str = "transformers"
    revision: str = ""
    dtype: str = "float32"
    device: str = ""
    batch_size: int = 64
    context: int = 0
    memory: float = 0.0
    gpus: int = 1
    url: str = ""
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    retries: int = 4
    concurrency: int = 64


def build(
    settings: LanguageModelSettings, *, meter: Meter | None = None, responses: Path | None = None
) -> LanguageModel:
    """The model of these settings.

    Args:
        meter: counts what is spent on it, cached responses included.
        responses: folder in which to keep responses.

    Raises:
        UserError: an unknown backend; a setting that the backend does not have; or the model is not there.
    """
    if settings.backend not in BACKENDS:
        raise UserError(f"unknown backend '{settings.backend}'{nearest(settings.backend, BACKENDS)}")
    make, has = BACKENDS[settings.backend]
    for field in fields(settings):
        if field.name not in has and getattr(settings, field.name) != field.default:
            raise UserError(f"backend {settings.backend} has no setting '{field.name}'")
    lm = make(settings)
    if responses is not None:
        lm = CachedLM(lm, responses)
    return lm if meter is None else Metered(lm, meter)


def _transformers(s: LanguageModelSettings) -> LanguageModel:
    device = s.device or None
    return TransformersLM.load(
        _place(s.name), s.revision or None, dtype=s.dtype, device=device, batch_size=s.batch_size
    )


def _vllm(s: LanguageModelSettings) -> LanguageModel:
    context, memory = s.context or None, s.memory or None
    return VllmLM.load(_place(s.name), s.revision or None, dtype=s.dtype, context=context, memory=memory, gpus=s.gpus)


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


def _place(name: str) -> str:
    return str(SHIPPED[name]) if name in SHIPPED else name


_ALL = {"name", "backend", "revision"}
BACKENDS: dict[str, tuple[Callable[[LanguageModelSettings], LanguageModel], set[str]]] = {
    "transformers": (_transformers, _ALL | {"dtype", "device", "batch_size"}),
    "vllm": (_vllm, _ALL | {"dtype", "context", "memory", "gpus"}),
    "openai": (_openai, _ALL | {"url", "key_variable", "timeout", "retries", "concurrency", "context"}),
}
