"""Which language model: plain values for a paper's `Settings`; `build.py` makes the model.

`configs/lm` holds such values by name, for a paper whose `Settings` have `lm: LanguageModelSettings`: a table takes one
by `- /lm: microlm` in its defaults, its paper scale another by `override /lm: qwen2_5_7b_instruct`, a user any by
`lm=...` on the command line. `/lm@settings.judge: ...` puts one elsewhere.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from common.experiments.errors import UserError, nearest

_MICROLM = Path(__file__).parent / "microlm"
SHIPPED = {"microlm": _MICROLM / "weights", "microlm-facts": _MICROLM / "fact_weights"}  # they come with this project


def place(name: str) -> str:
    """Where a shipped model lies; any other name as it is."""
    return str(SHIPPED[name]) if name in SHIPPED else name


_ALL = {"name", "backend", "revision"}
BACKENDS = {  # the settings that each has
    "transformers": _ALL | {"dtype", "device", "batch_size"},
    "vllm": _ALL | {"dtype", "context", "memory", "gpus"},
    "served": _ALL | {"dtype", "context", "memory", "gpus", "timeout", "retries", "concurrency"},
    "openai": _ALL | {"url", "key_variable", "timeout", "retries", "concurrency", "context"},
}


@dataclass(frozen=True)
class LanguageModelSettings:
    """One language model.

    Attributes:
        backend: a key of `BACKENDS`.
        name: of a shipped model (a key of SHIPPED), `owner/name` on the hub, a path, or what a server calls its model.
        revision: commit, branch or tag on the hub; of a server's model, what you know it to be. Empty: as it is here.
        dtype: float32, bfloat16 or float16; a server decides for itself.
        device: torch's word for it; empty takes a GPU where there is one. transformers only.
        batch_size: most sequences decoded at once. transformers only.
        context: most tokens of prompt and completion; 0 is what the model or the server says. Not transformers.
        memory: for keys and values, in GB; 0 leaves it to vLLM. vllm and served only.
        gpus: over how many the model is split. vllm and served only.
        url: of the protocol's root, `http://host:port/v1`. openai only.
        key_variable: environment variable with the key. openai only.
        timeout: seconds that one try of one request may take. served and openai only.
        retries: tries after the first. served and openai only.
        concurrency: most requests under way at once. served and openai only.
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

    def __post_init__(self) -> None:
        """UserError for an unknown backend, or a setting that the backend does not have."""
        if self.backend not in BACKENDS:
            raise UserError(f"unknown backend '{self.backend}'{nearest(self.backend, BACKENDS)}")
        for field in fields(self):
            if field.name not in BACKENDS[self.backend] and getattr(self, field.name) != field.default:
                raise UserError(f"backend {self.backend} has no setting '{field.name}'")

    def of(self, name: str) -> "LanguageModelSettings":
        """The same for the model `name`; a trained copy, in a folder, has no revision."""
        return self if name == self.name else replace(self, name=name, revision="")
