"""What rollouts are sampled from: the trained weights themselves, or vLLM in this process, which is given them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common.experiments.errors import UserError
from common.models.build import build
from common.models.language_model import LanguageModel
from common.models.lora import whole_weights
from common.models.settings import LanguageModelSettings
from common.models.transformers_lm import TransformersLM
from common.models.vllm_lm import VllmLM


def sampler(model: Any, tokenizer: Any, speaker: LanguageModelSettings) -> tuple[LanguageModel, Callable[[], None]]:
    """The language model that rollouts ask, and what brings the weights of `model` to it, for `train`.

    Args:
        model: a transformers language model, to be trained; vLLM is given its weights with those of its adapters added.
        speaker: where `model` came from; its backend is that of the rollouts.

    Raises:
        UserError: a backend whose weights cannot be changed from here; vLLM is not installed, or is to take several
            GPUs.
    """
    if speaker.backend == "transformers":
        return TransformersLM(model, tokenizer, batch_size=speaker.batch_size), lambda: None
    if speaker.backend != "vllm":
        raise UserError(
            f"rollouts are sampled by backend transformers or vllm, not {speaker.backend}: a server keeps its weights"
        )
    if speaker.gpus > 1:
        raise UserError(f"rollouts by vllm in this process take one GPU, not {speaker.gpus}")
    lm = build(replace(speaker, device=""))
    assert isinstance(lm, VllmLM)
    return lm, lambda: lm.load_weights(whole_weights(model))
