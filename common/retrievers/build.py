"""Retrievers by name, and from the folder in which one was saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError, nearest
from common.models.encoders import Encoder
from common.retrievers.analysis import ENGLISH
from common.retrievers.bm25 import BM25
from common.retrievers.dense import DenseRetriever
from common.retrievers.hybrid import HybridRetriever
from common.retrievers.lsh import LSH
from common.retrievers.rerank import Judge, RerankedRetriever
from common.retrievers.retriever import Retriever
from common.retrievers.storage import read_about
from common.retrievers.vector_index import HNSW, IVF, Exact, VectorIndex

INDEXES: dict[str, Callable[..., VectorIndex]] = {"exact": Exact, "ivf": IVF, "hnsw": HNSW, "lsh": LSH}

LEXICAL: dict[str, Callable[[], Retriever]] = {
    "bm25": BM25,
    "bm25_english": lambda: BM25(analyser=ENGLISH),
}
RETRIEVERS: dict[str, Callable[[Encoder], Retriever]] = {
    "dense": DenseRetriever,
    "ivf": lambda encoder: DenseRetriever(encoder, IVF()),
    "hnsw": lambda encoder: DenseRetriever(encoder, HNSW()),
    "lsh": lambda encoder: DenseRetriever(encoder, LSH()),
    "hybrid": lambda encoder: HybridRetriever([BM25(), DenseRetriever(encoder)]),
    "hybrid_english": lambda encoder: HybridRetriever([BM25(analyser=ENGLISH), DenseRetriever(encoder)]),
}


def build(name: str, encoder: Encoder | None = None) -> Retriever:
    """An empty retriever with the default settings of its kind: a name of `LEXICAL` or `RETRIEVERS`.

    Raises:
        UserError: no such retriever, or it needs an encoder.
    """
    if name in LEXICAL:
        return LEXICAL[name]()
    if name not in RETRIEVERS:
        raise UserError(f"unknown retriever '{name}'{nearest(name, [*LEXICAL, *RETRIEVERS])}")
    if encoder is None:
        raise UserError(f"retriever '{name}' needs an encoder, such as 'minilm'")
    return RETRIEVERS[name](encoder)


def load(folder: Path, encoder: Encoder | None = None, judge: Judge | None = None) -> Retriever:
    """The retriever that was saved in a folder, with its arrays mapped from disk.

    Args:
        encoder: the one it was made with, for dense and hybrid retrievers.
        judge: for reranked ones; the file does not know it.

    Raises:
        UserError: no retriever there, a damaged one, another encoder, or encoder or judge missing.
    """
    about = read_about(folder)
    try:
        return _loaded(folder, about, encoder, judge)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"retriever in {folder}: its files are damaged ({error!r})") from error


def _loaded(folder: Path, about: Any, encoder: Encoder | None, judge: Judge | None) -> Retriever:
    match about.get("kind"):
        case "bm25":
            return BM25.load(folder)
        case "dense":
            index = INDEXES[about["index"]](**about["settings"])
            return DenseRetriever.load(folder, _given(encoder, "encoder", folder), index)
        case "hybrid":
            parts = [load(folder / str(number), encoder, judge) for number in range(about["retrievers"])]
            return HybridRetriever(parts, about["depth"], about["smoothing"])
        case "reranked":
            inner = load(folder / "retriever", encoder, judge)
            return RerankedRetriever.load(folder, inner, _given(judge, "judge", folder))
        case kind:
            raise UserError(f"{folder} holds a '{kind}', which is no retriever")


def _given(what: Any, name: str, folder: Path) -> Any:
    if what is None:
        raise UserError(f"retriever in {folder} needs its {name}")
    return what
