"""Ranking metrics."""

from collections.abc import Collection, Sequence


def hits_at_k(rankings: Sequence[Sequence[int]], gold: Sequence[int], k: int) -> float:
    """Share of queries whose gold document is among the first k of its ranking (Hits@k).

    Args:
        rankings: per query, document ids from best to worst, without repetition; may be shorter than k.
        gold: per query, the one relevant document.
        k: cut-off, >= 1.

    Returns:
        Fraction in [0, 1].

    Raises:
        ValueError: no queries, a different number of rankings and gold ids, k < 1, or a repeated id.
    """
    if not gold or len(rankings) != len(gold):
        raise ValueError(f"{len(rankings)} rankings for {len(gold)} gold ids")
    if k < 1:
        raise ValueError(f"k = {k}, must be at least 1")
    hits = 0
    for ranking, wanted in zip(rankings, gold, strict=True):
        head = list(ranking[:k])
        if len(set(head)) != len(head):
            raise ValueError(f"repeated id in a ranking: {head}")
        hits += wanted in head
    return hits / len(gold)


def recall_at_k(rankings: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> list[float]:
    """For each query the share of its gold passages among the first k of its ranking, in [0, 1].

    Args:
        rankings: per query, passage ids from best to worst; may be shorter than k.
        gold: per query, the relevant ids, at least one.
        k: cut-off, >= 1.

    Raises:
        ValueError: a different number of rankings and gold sets, k < 1, or a query without gold.
    """
    if len(rankings) != len(gold):
        raise ValueError(f"{len(rankings)} rankings for {len(gold)} gold sets")
    if k < 1:
        raise ValueError(f"k = {k}, must be at least 1")
    if not all(gold):
        raise ValueError("a query has no gold passage: its recall is undefined")
    wanted = [set(ids) for ids in gold]
    return [len(ids & set(ranking[:k])) / len(ids) for ranking, ids in zip(rankings, wanted, strict=True)]
