"""How good an answer is: EM, F1, containment, ROUGE and list metrics, each in the exact variant that a paper uses.

    em("The Orun.", ["Orun"])                                          # 1.0: a metric is a function
    scored = score([Item("q1", "It is Orun", (("Orun",),))], ["em", "f1"])
    estimate(scored, "f1"); compare(scored, other, "f1")               # intervals and tests over items

Two shapes of gold. Metrics of `ANSWER_METRICS` take the accepted strings of one answer and give the best over them;
those of `LIST_METRICS` take several wanted answers, each with its accepted strings. Every value lies in [0, 1], except
the sums `em_sum` and `f1_sum`. Names are those of configs and result files; a variant differs from its neighbour in the
one thing its docstring says.

"Normalised" is the rule of SQuAD (Rajpurkar et al., 2016): lower case, without ASCII punctuation, without the words a,
an, the, single spaces; in this order, so that "U.S." is "us" and "the-rapist" is "therapist".
"""

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.evaluators.statistics import Estimate, interval, paired_items
from common.experiments.errors import UserError, nearest

AnswerMetric = Callable[[str, Sequence[str]], float]
ListMetric = Callable[[str, Sequence[Sequence[str]]], float]

SEPARATOR = ";"  # between the answers of a list: MEM1's format, and the text world's
REFUSALS = ("no information available", "not mentioned")  # what LoCoMo's script takes for "unanswerable"

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ARTICLES_AND = re.compile(r"\b(a|an|the|and)\b")
_PAUSES = str.maketrans(dict.fromkeys(".,!?", " "))


def normalise(text: str) -> str:
    """SQuAD's normal form, see the top."""
    return _normalise(text, _ARTICLES)


def em(prediction: str, golds: Sequence[str]) -> float:
    """1 if the normalised prediction equals a normalised gold. SQuAD; HotpotQA, 2Wiki, MuSiQue and MEM1 agree."""
    return _best(lambda p, g: float(p == g), normalise, prediction, golds)


def em_prefix(prediction: str, golds: Sequence[str]) -> float:
    """1 if the normalised prediction *begins with* the characters of a normalised gold: "Parisian cafe" for "Paris".

    EM as MAC's evaluation computes it (jihoontack/MAC, utils.py, the prediction cut to the gold's length), which CMT's
    comparison seems to inherit. At least `em`. A gold without a word begins an empty prediction alone; there, any.
    """
    return _best(lambda p, g: float(p.startswith(g) if g else not p), normalise, prediction, golds)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """F1 of the multisets of normalised words; 0 without a common word. SQuAD 1.1, MAC, DeepNote, MEM1 (rewards)."""
    return _best(_f1, lambda text: normalise(text).split(), prediction, golds)


def f1_empty(prediction: str, golds: Sequence[str]) -> float:
    """As `f1`, but 1 when both have no words: SQuAD 2.0 and MuSiQue (metrics/answer.py), for unanswerable questions."""
    return _best(
        lambda p, g: 1.0 if not p and not g else _f1(p, g), lambda text: normalise(text).split(), prediction, golds
    )


def f1_yes_no(prediction: str, golds: Sequence[str]) -> float:
    """As `f1`, but yes, no and "noanswer" earn nothing by overlap. HotpotQA and 2WikiMultihopQA, official scripts."""
    closed = (["yes"], ["no"], ["noanswer"])
    return _best(
        lambda p, g: 0.0 if p != g and (p in closed or g in closed) else _f1(p, g),
        lambda text: normalise(text).split(),
        prediction,
        golds,
    )


def f1_stemmed(prediction: str, golds: Sequence[str]) -> float:
    """F1 of the multisets of Porter stems, the word "and" dropped like an article. LoCoMo (task_eval/evaluation.py)."""
    return _best(_f1, _stems, prediction, golds)


def f1_stemmed_list(prediction: str, golds: Sequence[str]) -> float:
    """Mean over the gold's comma-separated parts of the best `f1_stemmed` of any part of the prediction.

    LoCoMo's score of multi-hop questions (category 1). It does not punish surplus parts in the prediction.
    """
    return _best(_parts_f1, lambda text: [_stems(part) for part in text.split(",")], prediction, golds)


def f1_set(prediction: str, golds: Sequence[str]) -> float:
    """F1 of the *sets* of lower-cased words, only `. , ! ?` removed, articles kept.

    A-MEM's evaluation (utils.py), which Mem0's follows; on LoCoMo it is the F1 of many later papers, though LoCoMo's
    own is `f1_stemmed`.
    """
    return _best(_f1, lambda text: sorted(set(text.lower().translate(_PAUSES).split())), prediction, golds)


def contains(prediction: str, golds: Sequence[str]) -> float:
    """1 if a gold, lower-cased, is a substring of the lower-cased prediction: accuracy of DeepNote and Amber.

    No other normalisation. Long predictions inflate it: report an F1 beside it. An empty gold (a question without an
    answer) is found in an empty prediction alone, as `em` has it, and not in every text, as a plain search has it.
    """
    return _best(_found, str.lower, prediction, golds)


def contains_first(prediction: str, golds: Sequence[str]) -> float:
    """`contains` of the first gold only: SubEM of Mem-alpha on SQuAD and HotpotQA."""
    return contains(prediction, golds[:1])


def contains_normalised(prediction: str, golds: Sequence[str]) -> float:
    """1 if a normalised gold is a substring of the normalised prediction: SubEM of RULER sets, ASQA's presence test.

    A gold without a word is found as in `contains`: in a prediction without one.
    """
    return _best(_found, normalise, prediction, golds)


def rouge_1(prediction: str, golds: Sequence[str]) -> float:
    """F-measure of common words: ROUGE-1 (Lin 2004) of google-research's `rouge-score`, with its Porter stemmer."""
    return _rouge("rouge1", prediction, golds)


def rouge_2(prediction: str, golds: Sequence[str]) -> float:
    """F-measure of common word pairs: ROUGE-2, as `rouge_1`."""
    return _rouge("rouge2", prediction, golds)


def rouge_l(prediction: str, golds: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words: ROUGE-L, as `rouge_1`; A-MEM's setting."""
    return _rouge("rougeL", prediction, golds)


def str_em(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """Share of the wanted answers that `contains_normalised` finds: STR-EM of ASQA (Stelmakh et al., 2022)."""
    return _mean([contains_normalised(prediction, golds) for golds in _checked(parts)])


def str_hit(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """1 if `str_em` finds every wanted answer: STR-EM-HIT of ALCE, str-hit of DeepNote and Amber."""
    return float(str_em(prediction, parts) == 1)


def contains_share(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """Share of the wanted answers that `contains` finds: keyword hits of Mem-alpha (BookSum, InfBench; PerLTQA)."""
    return _mean([contains(prediction, golds) for golds in _checked(parts)])


def em_sum(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """Number of answers that are right in their place, in [0, n]; 0 when there are not exactly n. EM of MEM1 (§4).

    The prediction holds its answers in order, separated by `;`.
    """
    return _in_order(em, prediction, parts)


def f1_sum(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """Sum of `f1` over the answers in their places, in [0, n]; 0 when there are not exactly n. F1 of MEM1 (§4)."""
    return _in_order(f1, prediction, parts)


def em_each(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """`em_sum` / n: MEM1's EM for one objective, comparable between numbers of objectives."""
    return em_sum(prediction, parts) / len(parts)


def f1_each(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """`f1_sum` / n: MEM1's F1 for one objective."""
    return f1_sum(prediction, parts) / len(parts)


def set_f1(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """F1 of a list in any order: precision over its distinct answers, recall over the wanted ones, each by `em`.

    As for QAMPARI (Amouyal et al., 2023); answers of the prediction are separated by `;`, and those without a word do
    not count.
    """
    distinct = {normalise(answer): answer for answer in prediction.split(SEPARATOR)}
    answers = [answer for normal, answer in distinct.items() if normal]
    right = sum(any(em(answer, golds) for golds in parts) for answer in answers)
    found = sum(any(em(answer, golds) for answer in answers) for golds in _checked(parts))
    if not right:
        return 0.0
    precision, recall = right / len(answers), found / len(parts)
    return 2 * precision * recall / (precision + recall)


def set_em(prediction: str, parts: Sequence[Sequence[str]]) -> float:
    """1 if the list has all wanted answers, in any order, and no other."""
    return float(set_f1(prediction, parts) == 1)


ANSWER_METRICS: dict[str, AnswerMetric] = {
    "em": em,
    "em_prefix": em_prefix,
    "f1": f1,
    "f1_empty": f1_empty,
    "f1_yes_no": f1_yes_no,
    "f1_stemmed": f1_stemmed,
    "f1_stemmed_list": f1_stemmed_list,
    "f1_set": f1_set,
    "contains": contains,
    "contains_first": contains_first,
    "contains_normalised": contains_normalised,
    "rouge_1": rouge_1,
    "rouge_2": rouge_2,
    "rouge_l": rouge_l,
}
LIST_METRICS: dict[str, ListMetric] = {
    "str_em": str_em,
    "str_hit": str_hit,
    "contains_share": contains_share,
    "em_sum": em_sum,
    "f1_sum": f1_sum,
    "em_each": em_each,
    "f1_each": f1_each,
    "set_f1": set_f1,
    "set_em": set_em,
}


def locomo_score(prediction: str, answer: str, category: int) -> float:
    """LoCoMo's official score of one question (task_eval/evaluation.py), in [0, 1].

    Args:
        answer: gold as the data set has it; of category 3 only what stands before the first `;` counts.
        category: 1 multi-hop (`f1_stemmed_list`), 2 temporal, 3 open-domain, 4 single-hop (`f1_stemmed`), 5 adversarial
            (1 if the prediction holds one of `REFUSALS`; `answer` is not looked at).

    Raises:
        ValueError: another category.
    """
    match category:
        case 1:
            return f1_stemmed_list(prediction, [answer])
        case 2 | 4:
            return f1_stemmed(prediction, [answer])
        case 3:
            return f1_stemmed(prediction, [answer.split(";")[0]])
        case 5:
            return float(any(refusal in prediction.lower() for refusal in REFUSALS))
    raise ValueError(f"LoCoMo has categories 1 to 5, not {category}")


@dataclass(frozen=True)
class Item:
    """A question's prediction and what it should have been.

    Attributes:
        id: names the question; two methods are compared on equal ids.
        golds: the wanted answers, each with its accepted strings; one for an ordinary question.
    """

    id: str
    prediction: str
    golds: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Scored:
    """An item with its values by metric."""

    id: str
    prediction: str
    golds: tuple[tuple[str, ...], ...]
    scores: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """For `Context.save_items`: one JSON object."""
        return asdict(self)


def score(items: Sequence[Item], metrics: Collection[str]) -> list[Scored]:
    """Every item under every metric, in the order given.

    Args:
        metrics: keys of `ANSWER_METRICS` (the item has one wanted answer) or `LIST_METRICS`.

    Raises:
        UserError: an unknown metric.
        ValueError: two items of one id; an item without a gold, or with several under a metric of one answer.
    """
    for name in metrics:
        if name not in ANSWER_METRICS and name not in LIST_METRICS:
            raise UserError(f"no answer metric '{name}'{nearest(name, [*ANSWER_METRICS, *LIST_METRICS])}")
    repeated = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(f"items share the id '{repeated[0]}'")
    return [
        Scored(item.id, item.prediction, item.golds, {name: _value(name, item) for name in metrics}) for item in items
    ]


def values(scored: Sequence[Scored], metric: str) -> list[float]:
    """One value an item, for the functions of `statistics`."""
    return [item.scores[metric] for item in scored]


def estimate(scored: Sequence[Scored], metric: str) -> Estimate:
    """Mean over items with its bootstrap interval."""
    return interval(values(scored, metric), skewed=True)


def compare(a: Sequence[Scored], b: Sequence[Scored], metric: str) -> Estimate:
    """Mean of a - b over the questions, its bootstrap interval and the p of a sign-flip test (`paired_items`).

    Raises:
        ValueError: not the same questions.
    """
    others = {item.id: item for item in b}
    if len(a) != len(b) or {item.id for item in a} != others.keys():
        raise ValueError(f"{len(a)} and {len(b)} items that are not of the same questions")
    return paired_items(values(a, metric), values([others[item.id] for item in a], metric))


def _value(name: str, item: Item) -> float:
    if name in LIST_METRICS:
        return LIST_METRICS[name](item.prediction, item.golds)
    if len(item.golds) != 1:
        raise ValueError(f"'{name}' is of one wanted answer, item '{item.id}' has {len(item.golds)}: use a list metric")
    return ANSWER_METRICS[name](item.prediction, item.golds[0])


def _normalise(text: str, words: re.Pattern[str]) -> str:
    return " ".join(words.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _best(
    compare: Callable[[Any, Any], float], prepare: Callable[[str], Any], prediction: str, golds: Sequence[str]
) -> float:
    """Largest of `compare(prediction, gold)`, both prepared."""
    if isinstance(golds, str) or not golds:
        raise ValueError(f"golds must be at least one string in a sequence, not {golds!r}")
    prepared = prepare(prediction)
    return max(compare(prepared, prepare(gold)) for gold in golds)


def _found(prediction: str, gold: str) -> float:
    """1 if the gold is a substring; a blank one, if the prediction is blank."""
    return float(gold in prediction if gold.strip() else not prediction.strip())


def _f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """2 PR / (P + R) of two multisets, that is 2 |common| / (|prediction| + |gold|); 0 without a common element."""
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold)) if common else 0.0


def _parts_f1(prediction: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    return _mean([max(_f1(part, wanted) for part in prediction) for wanted in gold])


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in _normalise(text, _ARTICLES_AND).split()]


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    stem: str = _stemmer().stem(word)
    return stem


@functools.cache
def _stemmer() -> Any:
    from nltk.stem import PorterStemmer

    return PorterStemmer()


def _rouge(kind: str, prediction: str, golds: Sequence[str]) -> float:
    return _best(lambda p, g: _rouge_scorer(kind).score(g, p)[kind].fmeasure, str, prediction, golds)


@functools.cache
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=True)


def _in_order(metric: AnswerMetric, prediction: str, parts: Sequence[Sequence[str]]) -> float:
    answers = prediction.split(SEPARATOR)
    if len(answers) != len(_checked(parts)):
        return 0.0
    return sum(metric(answer, golds) for answer, golds in zip(answers, parts, strict=True))


def _checked(parts: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    if isinstance(parts, str) or not parts:
        raise ValueError(f"parts must be at least one sequence of accepted strings, not {parts!r}")
    return parts


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
