"""Amber: one row of a table on one column at one seed. Questions of test worlds are answered, and measured.

The generator, the filter and the router are artifacts, one for all rows and seeds of a scale. So are the answers of a
method to a question set: the column of all sets, the gain over vanilla RAG, and rows that two tables share compute
nothing twice.
"""

from collections.abc import Sequence
from dataclasses import replace

from common.evaluators.answers import Scored, contains
from common.experiments.context import Context, Result
from common.models.meter import Meter, Usage
from projects.amber.answering import Records, agents_of, answers, question_set, search
from projects.amber.baselines import read
from projects.amber.data import Asked, Passage, QuestionSet, Search
from projects.amber.measures import (
    REFERENCE,
    answer_metrics,
    costs,
    filter_quality,
    gains,
    recalls,
    score,
    step_metrics,
)
from projects.amber.prompts import Agents, parse_sentences, parse_yes
from projects.amber.settings import FILTER, Loop, Settings


def run(settings: Settings, context: Context) -> Result:
    """Answer and measure.

    Raises:
        UserError: missing data or model.
    """
    if settings.method == FILTER:
        return filter_run(settings, context)
    plain = replace(settings, method=REFERENCE, loop=without_ablations(settings.loop))
    questions: dict[str, QuestionSet] = {}
    records: dict[str, Records] = {}
    scored: dict[str, list[Scored]] = {}
    reference: dict[str, list[Scored]] = {}
    usage: dict[str, Usage] = {}
    for name in settings.questions.sets:
        questions[name] = question_set(settings, context, name)
        records[name], spent = answers(settings, context, name)
        for role, one in spent.items():
            usage[role] = usage.get(role, Usage()) + one
        scored[name] = score(questions[name], records[name])
        reference[name] = score(questions[name], answers(plain, context, name)[0])
    asked = [one for part in questions.values() for one in part.questions]
    metrics = answer_metrics(scored) | gains(scored, reference) | costs(usage, len(asked))
    if settings.method == "amber":
        metrics |= step_metrics(asked, [record for part in records.values() for record in part])
    metrics |= recalls([(part, search(settings, context, part)) for part in questions.values()], settings.loop.k)
    for name, rows in scored.items():
        context.save_items(name, ({**row.row(), **r} for row, r in zip(rows, records[name], strict=True)))
    return Result(metrics, {role: one.tokens_in + one.tokens_out for role, one in usage.items()})


def without_ablations(loop: Loop) -> Loop:
    """The loop's sizes alone: what a baseline reads of it."""
    return Loop(loop.k, loop.rounds, doubt=loop.doubt, passage_characters=loop.passage_characters)


# --- the filter by itself -------------------------------------------------------------------------------------------


def filter_run(settings: Settings, context: Context) -> Result:
    """Both levels of the filter on what retrieval brings, and what filtering is worth to a reader.

    Passages are those of the question and of each right query on the way. `answer_gold`, `answer_unfiltered` and
    `answer_filtered` are accuracies of vanilla RAG's reader from the evidence sentences, from all those passages, and
    from what the filter leaves of them.
    """
    meter = Meter()
    agents = agents_of(replace(settings, method="amber"), context, meter)
    relevant: list[bool] = []
    kept: list[bool] = []
    bridges: list[bool] = []
    found: list[tuple[set[str], set[str]]] = []
    right: dict[str, list[float]] = {"answer_gold": [], "answer_unfiltered": [], "answer_filtered": []}
    for name in settings.questions.sets:
        questions = question_set(settings, context, name)
        passages = retrieved(questions.questions, search(settings, context, questions), settings.loop.k)
        fields = [
            {"question": asked.text, "query": query, "passage": passage.text}
            for asked, row in zip(questions.questions, passages, strict=True)
            for query, passage in row
        ]
        keeps = [parse_yes(text) for text in agents.ask("chunk", fields)]
        texts = [parse_sentences(text) for text in agents.ask("sentences", fields)]
        filtered, place = [], 0
        for asked, row in zip(questions.questions, passages, strict=True):
            left = []
            for _, passage in row:
                useful = {s for hop in asked.hops for name, s in hop.places if name == passage.id}
                relevant.append(bool(useful))
                kept.append(keeps[place])
                if useful:
                    sentences = questions.corpus.sentences[passage.id]
                    found.append((useful, {s for s in sentences if s in texts[place]}))
                    answer_there = any(gold.lower() in passage.text.lower() for golds in asked.golds for gold in golds)
                    if asked.chain and len(asked.hops) > 1 and not answer_there:
                        bridges.append(keeps[place])
                if keeps[place]:
                    left.append(Passage(passage.id, texts[place] or passage.text))
                place += 1
            filtered.append(left)
        gold = [[Passage(*hop.places[0]) for hop in asked.hops if hop.places] for asked in questions.questions]
        whole = [[passage for _, passage in row] for row in passages]
        for metric, shown in (("answer_gold", gold), ("answer_unfiltered", whole), ("answer_filtered", filtered)):
            right[metric] += accuracy(questions.questions, shown, agents)
    metrics = filter_quality(relevant, kept) | {name: sum(values) / len(values) for name, values in right.items()}
    metrics |= sentence_quality(found)
    if bridges:
        metrics["bridge_recall"] = sum(bridges) / len(bridges)
    return Result(metrics, {role: one.tokens_in + one.tokens_out for role, one in meter.usage.items()})


def retrieved(asked: Sequence[Asked], search: Search, k: int) -> list[list[tuple[str, Passage]]]:
    """For each question what its text and the right queries bring, each passage once, with the query that did."""
    rows = []
    for one in asked:
        queries = list(dict.fromkeys([one.text, *(hop.query for hop in one.hops[1:])]))
        first: dict[str, tuple[str, Passage]] = {}
        for query, passages in zip(queries, search(queries, k), strict=True):
            for passage in passages:
                first.setdefault(passage.id, (query, passage))
        rows.append(list(first.values()))
    return rows


def accuracy(asked: Sequence[Asked], passages: Sequence[Sequence[Passage]], agents: Agents) -> list[float]:
    """Whether each question is answered from its passages, all of its answers."""
    given = read([one.text for one in asked], passages, agents)
    return [min(contains(answer, golds) for golds in one.golds) for answer, one in zip(given, asked, strict=True)]


def sentence_quality(found: Sequence[tuple[set[str], set[str]]]) -> dict[str, float]:
    """Precision and recall of extracted sentences, over passages that have useful ones."""
    useful, taken = sum(len(u) for u, _ in found), sum(len(t) for _, t in found)
    both = sum(len(u & t) for u, t in found)
    metrics = {"sentence_recall": both / useful} if useful else {}
    return metrics | ({"sentence_precision": both / taken} if taken else {})
