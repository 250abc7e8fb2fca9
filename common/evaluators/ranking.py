"""Ranking metrics."""

from collections.abc import Sequence


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
