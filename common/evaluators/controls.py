"""Control rows of a memory table: what the reader is shown instead of what the method under test would show it.

    setup = Setup(k=5, tokens=count, naive_rag=by_retriever(lambda: DenseRetriever(encoder)), bm25=by_retriever(BM25))
    if settings.method in CONTROLS:
        memories = shown(settings.method, cases, setup)        # one `Shown` a question, then the method's own reader

| row | the reader sees |
|---|---|
| `no_retrieval` | nothing: what the model knows or guesses |
| `full_context` | the whole corpus in its order, or its end where a window is given |
| `naive_rag` | the k passages that the table's retriever ranks first for the question as it stands |
| `bm25` | the same with BM25 |
| `oracle` | the evidence and nothing else: a ceiling for memory, not for reading |
| `shuffled` | what `naive_rag` shows to another question: as many tokens of the same kind, without the link |

A method that beats `no_retrieval` and not its own memory `shuffle`d has not used its memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.experiments.errors import UserError, nearest
from common.retrievers.retriever import Retriever


@dataclass(frozen=True)
class Case:
    """A question and all there is to know.

    Attributes:
        corpus: passages by id, in their order; one object where questions share it.
        evidence: ids of the passages that the answer follows from; none for an unanswerable question.
    """

    question: str
    corpus: Mapping[str, str]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What a reader is shown for one question.

    Attributes:
        ids, passages: of the passages, in the order shown.
        left_out: passages that the window had no room for.
    """

    ids: tuple[str, ...]
    passages: tuple[str, ...]
    left_out: int = 0


Search = Callable[[Sequence[Case], int], Sequence[Sequence[str]]]  # cases, k -> for each at most k ids, best first


@dataclass(frozen=True)
class Setup:
    """What the controls of a table share.

    Attributes:
        k: passages for `naive_rag`, `bm25` and `shuffled`.
        tokens: tokens of a passage.
        naive_rag, bm25: searches, see `by_retriever`.
        window: most tokens of `full_context`, which keeps the last passages that fit whole; None for all of them.
    """

    k: int
    tokens: Callable[[str], int]
    naive_rag: Search
    bm25: Search
    window: int | None = None


def by_retriever(make: Callable[[], Retriever]) -> Search:
    """A search that builds one retriever for each corpus, when it first meets it, and asks it for the questions."""
    built: dict[int, tuple[Mapping[str, str], Retriever]] = {}  # the corpus is kept, so that its id stays its own

    def search(cases: Sequence[Case], k: int) -> list[list[str]]:
        members: dict[int, list[int]] = {}
        for i, case in enumerate(cases):
            members.setdefault(id(case.corpus), []).append(i)
        rankings: list[list[str]] = [[] for _ in cases]
        for corpus_id, indices in members.items():
            if corpus_id not in built:
                corpus, retriever = cases[indices[0]].corpus, make()
                retriever.build(list(corpus), list(corpus.values()))
                built[corpus_id] = corpus, retriever
            found = built[corpus_id][1].search([cases[i].question for i in indices], k).rankings()
            for i, ranking in zip(indices, found, strict=True):
                rankings[i] = ranking
        return rankings

    return search


def no_retrieval(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """Nothing."""
    return [Shown((), ()) for _ in cases]


def full_context(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """Each corpus in its order; with `window`, as many of its last passages as fit."""
    return [_last_that_fit(case, setup) for case in cases]


def naive_rag(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """The first k of `setup.naive_rag`, best first."""
    return _searched(setup.naive_rag, cases, setup.k)


def bm25(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """The first k of `setup.bm25`, best first."""
    return _searched(setup.bm25, cases, setup.k)


def oracle(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """The evidence, in the order of the corpus.

    Raises:
        ValueError: evidence that is not in the corpus.
    """
    for case in cases:
        strange = set(case.evidence) - case.corpus.keys()
        if strange:
            raise ValueError(f"evidence {sorted(strange)} of '{case.question}' is not in its corpus")
    return [_show(case, [id for id in case.corpus if id in case.evidence]) for case in cases]


def shuffled(cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """`shuffle` of what `naive_rag` shows."""
    return shuffle(naive_rag(cases, setup), cases, setup.tokens)


CONTROLS: dict[str, Callable[[Sequence[Case], Setup], list[Shown]]] = {
    "no_retrieval": no_retrieval,
    "full_context": full_context,
    "naive_rag": naive_rag,
    "bm25": bm25,
    "oracle": oracle,
    "shuffled": shuffled,
}


def shown(name: str, cases: Sequence[Case], setup: Setup) -> list[Shown]:
    """What a control shows for each case. UserError: no control of that name."""
    if name not in CONTROLS:
        raise UserError(f"no control row '{name}'{nearest(name, CONTROLS)}")
    return CONTROLS[name](cases, setup)


def shuffle(memories: Sequence[Shown], cases: Sequence[Case], tokens: Callable[[str], int]) -> list[Shown]:
    """The same memories, each given to another question, for which it is of no use.

    A question never gets an equal memory, nor one with a passage of its evidence, nor, where the cases have several
    corpora, one of its own corpus. Among all such permutations it is one with the least sum of differences in tokens
    between what a question had and what it gets: the table's tokens stay the same to the last, a question's nearly.

    Args:
        memories: one for each case: of a control, or of the method under test. Evidence is known by its words: notes
            that tell it in other words are strangers only when they come from another corpus.

    Raises:
        UserError: there is no such permutation.
        ValueError: not one memory for each case.
    """
    from scipy.optimize import linear_sum_assignment

    if len(memories) != len(cases):
        raise ValueError(f"{len(memories)} memories for {len(cases)} cases")
    if not cases:
        return []
    allowed = _strangers(memories, cases)
    sizes = np.array([sum(map(tokens, memory.passages)) for memory in memories], np.float64)
    cost = np.abs(sizes[:, None] - sizes[None, :])
    _, taken = linear_sum_assignment(np.where(allowed, cost, cost.sum() + 1))
    for i, j in enumerate(taken):
        if not allowed[i, j]:
            raise UserError(
                f"cannot shuffle {len(cases)} memories: all that could go to the question '{cases[i].question}' hold "
                "its evidence, come from its own corpus, or are taken; give more questions, of more corpora"
            )
    return [memories[j] for j in taken]


def _strangers(memories: Sequence[Shown], cases: Sequence[Case]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Whether question i may get memory j, [N, N]."""
    allowed = np.ones((len(cases), len(cases)), np.bool_)
    corpora = np.array([id(case.corpus) for case in cases])
    if len(set(corpora.tolist())) > 1:
        allowed &= corpora[:, None] != corpora[None, :]
    holders: dict[str, list[int]] = {}
    equals: dict[tuple[str, ...], list[int]] = {}
    for j, memory in enumerate(memories):
        equals.setdefault(memory.passages, []).append(j)
        for passage in set(memory.passages):
            holders.setdefault(passage, []).append(j)
    for i, (case, memory) in enumerate(zip(cases, memories, strict=True)):
        allowed[i, equals[memory.passages]] = False
        for id_ in case.evidence:
            allowed[i, holders.get(case.corpus[id_], [])] = False
    return allowed


def _searched(search: Search, cases: Sequence[Case], k: int) -> list[Shown]:
    found = [_show(case, ids) for case, ids in zip(cases, search(cases, k), strict=True)]
    for case, seen in zip(cases, found, strict=True):
        if len(seen.ids) > k or len(set(seen.ids)) != len(seen.ids):
            raise ValueError(f"a search gave {list(seen.ids)} for '{case.question}', not {k} different passages")
    return found


def _show(case: Case, ids: Sequence[str]) -> Shown:
    return Shown(tuple(ids), tuple(case.corpus[id] for id in ids))


def _last_that_fit(case: Case, setup: Setup) -> Shown:
    ids = list(case.corpus)
    if setup.window is None:
        return _show(case, ids)
    room, start = setup.window, len(ids)
    while start and setup.tokens(case.corpus[ids[start - 1]]) <= room:
        start -= 1
        room -= setup.tokens(case.corpus[ids[start]])
    return replace(_show(case, ids[start:]), left_out=start)
