"""Document identifiers of DSI (Tay et al., NeurIPS 2022; arXiv:2202.06991): atomic, naive string, semantic.

A docid is a tuple of symbols 0..S-1; symbol s is output token `special.first + s`. An atomic docid is one symbol of
its own and has no end; string docids share their digits and end with EOS. Only identifiers issued so far are ranked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from transformers import T5ForConditionalGeneration

from projects.dsi_pp.seq2seq import IGNORED, seq2seq_logits
from projects.dsi_pp.settings import DocidChoice

Symbols = tuple[int, ...]


@dataclass(frozen=True)
class Special:
    """Output tokens that identifiers need: `first` is that of symbol 0, `eos` ends a string docid, `pad` follows it."""

    first: int
    eos: int
    pad: int


@dataclass(frozen=True)
class Docids:
    """Identifiers of all documents, by document number.

    Attributes:
        symbols: one tuple per document, all different.
        count: number of output tokens S.
        atomic: one token per document, no EOS.
    """

    symbols: tuple[Symbols, ...]
    count: int
    atomic: bool
    special: Special

    def tokens(self, document: int) -> list[int]:
        """Output tokens of a document's identifier, EOS included."""
        found = [self.special.first + symbol for symbol in self.symbols[document]]
        return found if self.atomic else [*found, self.special.eos]

    def labels(self) -> Tensor:
        """Targets of all documents, padded with IGNORED, int64 [N, T]."""
        rows = [self.tokens(document) for document in range(len(self.symbols))]
        width = max(map(len, rows))
        return torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])

    def unissued(self, issued: int) -> Tensor:
        """Tokens that the loss must mask while only the first `issued` documents exist, int64 [M].

        Atomic rows of future documents would otherwise be trained as negatives (trap 3). Digits are shared, so for
        string docids nothing is masked; the trie keeps future identifiers out of the ranking.
        """
        return (
            torch.arange(self.special.first + issued, self.special.first + self.count)
            if self.atomic
            else torch.arange(0)
        )


# --- issuing ------------------------------------------------------------------------------------------------------


def issue(choice: DocidChoice, texts: Sequence[str], first: int, seed: int, special: Special) -> Docids:
    """Identifiers for documents in order of arrival; the first `first` of them are D_0."""
    symbols, count = KINDS[choice.kind](choice, texts, first, seed)
    return Docids(tuple(symbols), count, choice.kind == "atomic", special)


def atomic(choice: DocidChoice, texts: Sequence[str], first: int, seed: int) -> tuple[list[Symbols], int]:
    """One new output token per document, numbered by arrival."""
    return [(number,) for number in range(len(texts))], len(texts)


def naive(choice: DocidChoice, texts: Sequence[str], first: int, seed: int) -> tuple[list[Symbols], int]:
    """The digits of an arbitrary integer; shuffled, because consecutive integers leak the corpus (trap 8)."""
    numbers = np.random.default_rng([seed, 4]).permutation(len(texts))
    return [_digits(int(number), 10) for number in numbers], 10


def semantic(choice: DocidChoice, texts: Sequence[str], first: int, seed: int) -> tuple[list[Symbols], int]:
    """The path in a hierarchical k-means tree over D_0, then the position in the leaf.

    A later document is routed down the tree to the nearest centres and appended to its leaf, so no identifier changes.
    Embeddings are TF-IDF with SVD fitted on D_0 (Deviation 5: DSI uses BERT).
    """
    vectors = embed(texts, first, seed)
    tree = Tree(vectors[:first], list(range(first)), choice, seed)
    paths = [tree.path(vector) for vector in vectors]
    taken: dict[Symbols, int] = {}
    symbols = []
    for path in paths:
        position = taken.get(path, 0)
        taken[path] = position + 1
        symbols.append((*path, *_digits(position, choice.branching)))
    return symbols, choice.branching  # all different: no path is the prefix of another, so path and position separate


def embed(texts: Sequence[str], first: int, seed: int, size: int = 32) -> NDArray[np.float64]:
    """TF-IDF reduced by SVD, both fitted on the first documents only, unit length, [N, K]."""
    tfidf = TfidfVectorizer(sublinear_tf=True).fit(texts[:first])
    sparse = tfidf.transform(texts)
    svd = TruncatedSVD(min(size, first - 1, sparse.shape[1] - 1), random_state=seed).fit(sparse[:first])
    vectors = svd.transform(sparse)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors)


class Tree:
    """Hierarchical k-means: nodes with more than `leaf` documents split into `branching` children."""

    def __init__(self, vectors: NDArray[np.float64], members: list[int], choice: DocidChoice, seed: int) -> None:
        self.centres: NDArray[np.float64] | None = None
        self.children: list[Tree] = []
        groups = self._split(vectors, members, choice, seed)
        if len(groups) > 1:
            self.centres = np.stack([vectors[group].mean(axis=0) for group in groups])
            self.children = [Tree(vectors, group, choice, seed) for group in groups]

    @staticmethod
    def _split(vectors: NDArray[np.float64], members: list[int], choice: DocidChoice, seed: int) -> list[list[int]]:
        if len(members) <= choice.leaf:
            return [members]
        labels = KMeans(choice.branching, n_init=1, random_state=seed).fit_predict(vectors[members])
        groups = [
            [member for member, label in zip(members, labels, strict=True) if label == k]
            for k in range(choice.branching)
        ]
        return [group for group in groups if group]

    def path(self, vector: NDArray[np.float64]) -> Symbols:
        """Child numbers from the root to the leaf whose centres are nearest to a vector [D]."""
        if self.centres is None:
            return ()
        child = int(((self.centres - vector) ** 2).sum(axis=1).argmin())
        return (child, *self.children[child].path(vector))


def _digits(number: int, base: int) -> Symbols:
    higher, digit = divmod(number, base)
    return (*_digits(higher, base), digit) if higher else (digit,)


KINDS = {"atomic": atomic, "naive": naive, "semantic": semantic}


# --- ranking ------------------------------------------------------------------------------------------------------


def allowed_tokens(docids: Docids, issued: int) -> Callable[[int, Tensor], list[int]]:
    """Trie over the issued identifiers, in the form `generate(prefix_allowed_tokens_fn=...)` wants.

    Prefixes begin with the decoder's start token. After EOS, or off the trie, only padding may follow.
    """
    children: dict[Symbols, set[int]] = {}
    for document in range(issued):
        tokens = docids.tokens(document)
        for length in range(len(tokens)):
            children.setdefault(tuple(tokens[:length]), set()).add(tokens[length])
    table = {prefix: sorted(tokens) for prefix, tokens in children.items()}

    def allowed(batch: int, prefix: Tensor) -> list[int]:
        return table.get(tuple(prefix.tolist()[1:]), [docids.special.pad])

    return allowed


@torch.no_grad()
def rank(
    model: T5ForConditionalGeneration, inputs: Tensor, docids: Docids, issued: int, k: int, beams: int
) -> list[list[int]]:
    """The best document numbers for each input, best first, at most k, without repetition.

    Args:
        inputs: int64 [B, L], padded with `docids.special.pad`.
        issued: only the first `issued` documents compete.
        beams: beam width for string docids, >= k; 1 is greedy. Atomic docids need one softmax and no search.
    """
    if docids.atomic:
        logits = seq2seq_logits(model, inputs, torch.zeros_like(inputs[:, :1]))[:, 0]  # [B, V]
        known = logits[:, docids.special.first : docids.special.first + issued]  # [B, issued]
        return known.topk(min(k, issued)).indices.tolist()
    return _beam(model, inputs, docids, issued, k, beams)


def _beam(
    model: T5ForConditionalGeneration, inputs: Tensor, docids: Docids, issued: int, k: int, beams: int
) -> list[list[int]]:
    """Beam search along the trie; hypotheses compare by log p(docid | input), without length penalty."""
    names = {tuple(docids.tokens(document)): document for document in range(issued)}
    output = model.generate(
        input_ids=inputs,
        attention_mask=inputs.ne(docids.special.pad),
        num_beams=beams,
        num_return_sequences=min(k, beams),
        max_new_tokens=max(map(len, names)),
        length_penalty=0.0,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed_tokens(docids, issued),
        bos_token_id=None,
        eos_token_id=docids.special.eos,
        pad_token_id=docids.special.pad,
    )
    rankings: list[list[int]] = []
    for hypotheses in output.view(len(inputs), -1, output.shape[1]).tolist():
        found = (names.get(_until_eos(tokens[1:], docids.special.eos)) for tokens in hypotheses)
        rankings.append(list(dict.fromkeys(document for document in found if document is not None)))
    return rankings


def _until_eos(tokens: list[int], eos: int) -> Symbols:
    return tuple(tokens[: tokens.index(eos) + 1]) if eos in tokens else ()
