"""A second look: what a fast retriever found, put into the order of a slower judge.

The judge is any function from a query and passages to one score each:

    RerankedRetriever(BM25(), cross_encoder("cross-encoder/ms-marco-MiniLM-L6-v2"))    # Nogueira & Cho 2019
    RerankedRetriever(BM25(), query_likelihood(lm))          # log p(query | passage), Sachan et al. 2022 (UPR)
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from common.experiments.errors import UserError
from common.models.hub import snapshot, without_bars
from common.models.language_model import LanguageModel
from common.retrievers.passage_ids import PassageIds
from common.retrievers.retriever import Hits, Retriever, check_search, no_hits
from common.retrievers.storage import read_about, read_strings, saving, write_strings

Judge = Callable[[str, Sequence[str]], ArrayLike]


class RerankedRetriever:
    """A `Retriever` whose hits are the best `depth` of another, by the judge's scores; it keeps the passages.

    Args:
        retriever: the fast one; empty.
        judge: scores, larger is better; NaN is an error.
        depth: how many hits are judged for each query (at least k).

    Raises:
        ValueError: the retriever is not empty, or `depth` is below 1; in a search, the judge does not give one number,
            not NaN, for each passage.
    """

    def __init__(self, retriever: Retriever, judge: Judge, depth: int = 50) -> None:
        if len(retriever):
            raise ValueError("the retriever must be empty: a judge needs the passages, which it does not give back")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.retriever, self.judge, self.depth = retriever, judge, depth
        self._ids = PassageIds()
        self._passages: Sequence[str] = []

    @property
    def ids(self) -> list[str]:
        return self._ids.living()

    def __len__(self) -> int:
        return len(self._ids)

    def build(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        try:
            self.retriever.build(ids, passages)
        except BaseException:
            if not len(self.retriever):  # a hybrid that failed midway
                self._ids, self._passages = PassageIds(), []
            raise
        self._ids = PassageIds()
        self._ids.append(ids)
        self._passages = list(passages)

    def add(self, ids: Sequence[str], passages: Sequence[str]) -> None:
        self._ids.check(ids, passages)
        self.retriever.add(ids, passages)
        self._ids.append(ids)
        self._passages = self._passages if isinstance(self._passages, list) else list(self._passages)
        self._passages.extend(passages)

    def delete(self, ids: Sequence[str]) -> None:
        self._ids.remove(ids)
        self.retriever.delete(ids)
        if 2 * len(self._ids) < self._ids.rows:
            self._passages = [self._passages[row] for row in self._ids.compact().tolist()]

    def search(self, queries: Sequence[str], k: int) -> Hits:
        check_search(queries, k)
        hits = no_hits(len(queries), min(k, len(self)))
        if not hits.ids.size:
            return hits
        found = self.retriever.search(queries, max(self.depth, k)).rankings()
        for i, (query, ranking) in enumerate(zip(queries, found, strict=True)):
            rows = sorted(self._ids.row(name) for name in ranking)
            if not rows:
                continue
            scores = np.asarray(self.judge(query, [self._passages[row] for row in rows]), np.float32)
            if scores.shape != (len(rows),) or np.isnan(scores).any():
                raise ValueError(f"the judge must give {len(rows)} numbers, one a passage, not {scores!r}")
            best = np.argsort(-scores, kind="stable")[:k]
            hits.ids[i, : len(best)] = self._ids.named(np.array(rows)[best])
            hits.scores[i, : len(best)] = scores[best]
        return hits

    def save(self, folder: Path) -> None:
        with saving(folder, {"kind": "reranked", "depth": self.depth}) as fresh:
            self._ids.save(fresh)
            write_strings(fresh, "passages", self._passages)
            self.retriever.save(fresh / "retriever")

    @classmethod
    def load(cls, folder: Path, retriever: Retriever, judge: Judge) -> "RerankedRetriever":
        """What `save` wrote, passages mapped from disk; `retriever` was loaded from its folder `retriever`."""
        loaded = cls.__new__(cls)
        loaded.retriever, loaded.judge, loaded.depth = retriever, judge, read_about(folder)["depth"]
        loaded._ids = PassageIds.load(folder)
        loaded._passages = read_strings(folder, "passages")
        return loaded


def cross_encoder(name: str, revision: str | None = None, device: str | None = None, batch: int = 32) -> Judge:
    """A sentence-transformers cross-encoder as a judge: reads query and passage together.

    Args:
        name: a folder, or an id on the Hugging Face hub that this machine has already.

    Raises:
        UserError: it is not on this machine, has no safetensors, or gives more than one score a pair.
    """
    folder = Path(name) if os.path.isdir(name) else snapshot(name, revision)
    if not any(folder.rglob("*.safetensors")):
        raise UserError(f"cross-encoder '{name}' has no safetensors in {folder} and pickled weights are never read")
    from sentence_transformers import CrossEncoder

    options: dict[str, Any] = {"use_safetensors": True, "dtype": "float32"}
    with without_bars():
        model = CrossEncoder(str(folder), device=device, local_files_only=True, model_kwargs=options)
    if model.num_labels != 1:
        raise UserError(f"cross-encoder '{name}' gives {model.num_labels} scores a pair; a judge needs one")

    def judge(query: str, passages: Sequence[str]) -> ArrayLike:
        pairs = [(query, passage) for passage in passages]
        scores: ArrayLike = model.predict(pairs, batch_size=batch, show_progress_bar=False)
        return scores

    return judge


QUESTION_OF = "Passage: {passage}\nPlease write a question based on this passage.\nQuestion:"


def query_likelihood(lm: LanguageModel, prompt: str = QUESTION_OF) -> Judge:
    """Mean log-probability, in nats a token, that a language model gives to the query after the passage.

    Args:
        prompt: holds `{passage}`; the query follows after a space.

    Raises:
        ValueError: `prompt` does not hold `{passage}` once.
    """
    if prompt.count("{passage}") != 1:
        raise ValueError("the prompt must hold {passage} once")

    def judge(query: str, passages: Sequence[str]) -> ArrayLike:
        prompts = [prompt.replace("{passage}", passage) for passage in passages]
        scores = lm.score(prompts, [f" {query}"] * len(prompts), purpose="rerank")
        return [score.total / max(1, len(score.log_probs)) for score in scores]

    return judge
