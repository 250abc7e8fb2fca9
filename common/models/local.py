"""What a model in this process has beside its weights, from its settings; `build` makes the model itself."""

from typing import Any

from common.models.hub import located
from common.models.settings import LanguageModelSettings, place


def revision_of(settings: LanguageModelSettings) -> str:
    """Its commit on the hub, or the hash of its files. Errors: `located`."""
    return located(place(settings.name), settings.revision or None)[2]


def tokenizer_of(settings: LanguageModelSettings) -> Any:
    """Its tokenizer. Errors: `located`."""
    from transformers import AutoTokenizer

    folder, _, _ = located(place(settings.name), settings.revision or None)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
