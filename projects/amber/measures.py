"""What is measured on answered questions: answers by the paper's metrics, steps by world truth, and what they cost."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.evaluators import answers
from common.models.meter import Usage
from projects.amber.data import Asked, QuestionSet, Search

LONG_FORM = {"asqa"}  # sets with several answers, all wanted
EASIEST, MULTI_HOP = "squad", ("2wiki", "hotpotqa", "musique")
REFERENCE = "vanilla_rag"  # gains are over its answers to the same questions

Record = Mapping[str, Any]  # one answered question: `answer`, and where a memory was kept `rounds`


def score(questions: QuestionSet, records: Sequence[Record]) -> list[answers.Scored]:
    """Accuracy by containment and F1; of a long-form set str-em and str-hit."""
    metrics = ("str_em", "str_hit") if questions.name in LONG_FORM else ("contains", "f1")
    items = [answers.Item(a.id, r["answer"], a.golds) for a, r in zip(questions.questions, records, strict=True)]
    return answers.score(items, metrics)


def answer_metrics(by_set: Mapping[str, Sequence[answers.Scored]]) -> dict[str, float]:
    """Means over questions, then over sets: `acc` and `f1` of short-form sets, `mean` of acc or str-em of all sets."""
    found: dict[str, list[float]] = {}
    for scored in by_set.values():
        for metric, shown in (("contains", "acc"), ("f1", "f1"), ("str_em", "str_em"), ("str_hit", "str_hit")):
            if metric in scored[0].scores:
                value = _mean(answers.values(scored, metric))
                found.setdefault(shown, []).append(value)
                if metric in ("contains", "str_em"):
                    found.setdefault("mean", []).append(value)
    return {name: _mean(values) for name, values in found.items()}


def gains(
    by_set: Mapping[str, Sequence[answers.Scored]], reference: Mapping[str, Sequence[answers.Scored]]
) -> dict[str, float]:
    """What the accuracy (str-em) of sets is above the reference's; where there are sets of both kinds, how much more of
    that is on those of several hops than on the easiest (C2)."""
    lead = {name: _mean(_main(scored)) - _mean(_main(reference[name])) for name, scored in by_set.items()}
    found = {"gain": _mean(list(lead.values()))}
    hard = [lead[name] for name in MULTI_HOP if name in lead]
    if hard and EASIEST in lead:
        found |= {"gain_multi": _mean(hard), "gain_easy": lead[EASIEST], "gain_gap": _mean(hard) - lead[EASIEST]}
    return found


def _main(scored: Sequence[answers.Scored]) -> list[float]:
    return answers.values(scored, "str_em" if "str_em" in scored[0].scores else "contains")


def costs(usage: Mapping[str, Usage], questions: int) -> dict[str, float]:
    """Calls, tokens and seconds of language models for a question."""
    total = sum(usage.values(), Usage())
    return {
        "calls": total.requests / questions,
        "tokens": (total.tokens_in + total.tokens_out) / questions,
        "seconds": total.seconds / questions,
    }


def step_metrics(asked: Sequence[Asked], records: Sequence[Record]) -> dict[str, float]:
    """How the steps of Amber's loop did, by world truth; what did not occur, or has no truth, is left out.

    - `draft_right`: drafts that hold exactly what was held and what the filtered text adds to it; `repaired`: wrong
      drafts after which the memory is right; `broken`: right drafts after which it is not; `changed`: refined texts
      that are not the draft.
    - `judge_precision`, `judge_recall` of "sufficient"; `rounds`; `repeated`: queries that had been asked.
    - the chunk level in the loop: `filter_quality`.
    """
    drafts: list[tuple[bool, bool, bool]] = []
    judged: list[tuple[bool, bool]] = []
    relevant: list[bool] = []
    kept: list[bool] = []
    for question, record in zip(asked, records, strict=True):
        known = all(hop.note for hop in question.hops) and bool(question.hops)
        for step in record["rounds"]:
            evidence = {name for hop in question.hops for name in hop.passages}
            relevant += [name in evidence for name in step["retrieved"]]
            kept += [name in step["kept"] for name in step["retrieved"]]
            if not known:
                continue
            before, after = step["before"].splitlines(), set(step["after"].splitlines())
            if "draft" in step:
                truth = {*before, *question.learnt(before, step["text"])}
                refined = step["refined"] or step["draft"]
                drafts.append((set(step["draft"].splitlines()) == truth, after == truth, refined != step["draft"]))
            if "sufficient" in step:
                judged.append((step["sufficient"], {hop.note for hop in question.hops} <= after))
    found = {
        "rounds": _mean([len(record["rounds"]) for record in records]),
        "repeated": _mean([record["repeated"] for record in records]),
    }
    found |= filter_quality(relevant, kept) if any(question.hops for question in asked) else {}
    for name, values in (
        ("draft_right", [draft for draft, _, _ in drafts]),
        ("repaired", [after for draft, after, _ in drafts if not draft]),
        ("broken", [not after for draft, after, _ in drafts if draft]),
        ("changed", [changed for _, _, changed in drafts]),
        ("judge_precision", [truth for said, truth in judged if said]),
        ("judge_recall", [said for said, truth in judged if truth]),
    ):
        if values:
            found[name] = _mean(values)
    return found


def filter_quality(relevant: Sequence[bool], kept: Sequence[bool]) -> dict[str, float]:
    """Accuracy of the chunk level, share of irrelevant passages removed, recall of relevant ones.

    A share of nothing is left out.
    """
    pairs = list(zip(relevant, kept, strict=True))
    negatives, positives = [k for r, k in pairs if not r], [k for r, k in pairs if r]
    found = {"chunk_accuracy": sum(r == k for r, k in pairs) / len(pairs)} if pairs else {}
    if negatives:
        found["eliminated"] = sum(not k for k in negatives) / len(negatives)
    if positives:
        found["chunk_recall"] = sum(positives) / len(positives)
    return found


def recalls(sets: Iterable[tuple[QuestionSet, Search]], k: int) -> dict[str, float]:
    """Recall@k of the first hop by the question; of later hops of chains by the question, and by the right query."""
    first: list[bool] = []
    blind: list[bool] = []
    right: list[bool] = []
    for questions, search in sets:
        for asked in questions.questions:
            if not asked.hops:
                continue
            found = [{p.id for p in row} for row in search([asked.text, *(h.query for h in asked.hops)], k)]
            first.append(bool(found[0] & asked.hops[0].passages))
            if asked.chain:
                blind += [bool(found[0] & hop.passages) for hop in asked.hops[1:]]
                right += [bool(row & hop.passages) for row, hop in zip(found[2:], asked.hops[1:], strict=True)]
    named = (("recall_first", first), ("recall_blind", blind), ("recall_right", right))
    return {name: _mean(values) for name, values in named if values}


def _mean(values: Sequence[float | bool]) -> float:
    return sum(values) / len(values)
