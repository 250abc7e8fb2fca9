"""Responses of language models, kept on disk: a request that was answered once is not computed again.

    lm = CachedLM(lm, default_folder())

One JSON file per answer, under a folder per model; its name is a hash of the model's name, revision and backend, the
prompt and the sampling (or the continuation). A file is written whole and renamed, so that processes and machines may
share the folder: two that answer the same request at once both write the same. `entries` shows what is kept, `clear`
drops it.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.experiments.errors import UserError, nearest
from common.files import user_cache, write_atomically
from common.models.language_model import (
    Completion,
    LanguageModel,
    Prompt,
    Sampling,
    Score,
    check_pairs,
    per_prompt,
    rendered,
)

A = TypeVar("A", Completion, Score)
FORMAT = 1  # of the files; another number leaves the old ones behind


def default_folder() -> Path:
    """`$REPRO_CACHE/responses`, else ~/.cache/repro/responses."""
    return user_cache("responses")


class CachedLM:
    """A language model that answers from `folder` what it can, and keeps there what it had to compute.

    Raises:
        UserError: the model has no revision (a server): nobody could tell old answers from those of another model.
            From its methods: the folder cannot be read or written, or holds a damaged file.
    """

    def __init__(self, lm: LanguageModel, folder: Path) -> None:
        if not lm.revision:
            raise UserError(f"responses of '{lm.name}' cannot be cached: give its `revision`, or do without the cache")
        self.lm = lm
        self.name, self.revision, self.backend = lm.name, lm.revision, lm.backend
        self.context, self.kv_bytes_per_token = lm.context, lm.kv_bytes_per_token
        self.folder = folder.expanduser() / _folder_name(lm)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`. Equal requests of one call are computed once."""
        samplings = per_prompt(prompts, sampling)
        keys = [self._key("generate", p, asdict(s)) for p, s in zip(prompts, samplings, strict=True)]

        def compute(places: Sequence[int]) -> list[Completion]:
            return self.lm.generate([prompts[i] for i in places], [samplings[i] for i in places], purpose)

        return self._answers(keys, compute, _completion)

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        """Log-probability of each token of each continuation; see `LanguageModel.score`."""
        check_pairs(prompts, continuations)
        keys = [self._key("score", p, c) for p, c in zip(prompts, continuations, strict=True)]

        def compute(places: Sequence[int]) -> list[Score]:
            return self.lm.score([prompts[i] for i in places], [continuations[i] for i in places], purpose)

        return self._answers(keys, compute, _score)

    def _key(self, call: str, prompt: Prompt, rest: Any) -> str:
        whole = json.dumps(
            [FORMAT, call, self.name, self.revision, self.backend, rendered(prompt), rest], sort_keys=True
        )
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()

    def _answers(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[int]], list[A]],
        read: Callable[[Mapping[str, Any]], A],
    ) -> list[A]:
        found: dict[str, A] = {}
        missing: dict[str, int] = {}
        for place, key in enumerate(keys):
            if key not in found and key not in missing:
                entry = self._read(key)
                if entry is None:
                    missing[key] = place
                else:
                    found[key] = read(entry)
        if missing:
            for key, answer in zip(missing, compute(list(missing.values())), strict=True):
                found[key] = answer
                self._write(key, asdict(answer))
        return [found[key] for key in keys]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> Mapping[str, Any] | None:
        path = self._path(key)
        try:
            entry: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"response cache: cannot read {path}: {error.strerror or error}") from None
        except ValueError as error:
            raise UserError(f"cached response {path} is damaged: delete it") from error
        return entry

    def _write(self, key: str, entry: Mapping[str, Any]) -> None:
        try:
            write_atomically(self._path(key), json.dumps(entry), durable=False)
        except OSError as error:
            raise UserError(
                f"response cache: cannot write {self.folder}: {error.strerror or error}; "
                "set REPRO_CACHE to a folder that can be written"
            ) from None


@dataclass(frozen=True)
class Kept:
    """What is kept of one model.

    Attributes:
        model: name, revision and backend.
        responses: how many.
        bytes: on disk.
    """

    model: str
    responses: int
    bytes: int


def entries(folder: Path) -> list[Kept]:
    """What is kept of each model; none where nothing was ever kept."""
    kept = []
    for model in sorted(_models(folder)):
        sizes = [path.stat().st_size for path in (folder.expanduser() / model).glob("*/*.json")]
        kept.append(Kept(model, len(sizes), sum(sizes)))
    return kept


def clear(folder: Path, model: str | None = None) -> int:
    """Drop the responses of one model (as `entries` names it), or all; how many there were.

    Raises:
        UserError: nothing is kept of that model.
    """
    known = {kept.model: kept.responses for kept in entries(folder)}
    if model is not None and model not in known:
        raise UserError(f"no responses of '{model}' are kept in {folder}{nearest(model, known)}")
    doomed = list(known) if model is None else [model]
    for name in doomed:
        shutil.rmtree(folder.expanduser() / name)
    return sum(known[name] for name in doomed)


def _models(folder: Path) -> list[str]:
    root = folder.expanduser()
    return [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []


def _folder_name(lm: LanguageModel) -> str:
    """A folder name that people can read: for looking, not for identity, which is the key's."""
    return re.sub(r"[^\w.@-]+", "_", f"{lm.name}@{lm.revision[:24]}@{lm.backend}")


def _completion(entry: Mapping[str, Any]) -> Completion:
    lists = {name: None if entry[name] is None else tuple(entry[name]) for name in ("token_ids", "log_probs")}
    return Completion(**{**entry, **lists})


def _score(entry: Mapping[str, Any]) -> Score:
    return Score(tuple(entry["log_probs"]), entry["prompt_tokens"])
