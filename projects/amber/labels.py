"""The filter of MCF: what labels its training passages, and its training, a copy of the generator on both levels.

STRINC and CXMI are those of FilCo (Wang et al., 2023), whose code sums nothing in logarithms and takes one gold answer;
here log-probabilities are summed. How the paper joins the labels is not known: [R], the README's Deviation 4.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from common.experiments.context import Context
from common.experiments.errors import UserError, nearest
from common.models.build import build as build_lm
from common.models.language_model import LanguageModel
from common.models.microlm.demonstrations import Demonstration
from common.models.microlm.specialise import artifact_key, specialise
from projects.amber.data import SETS, QuestionSet, Search, text_world_set
from projects.amber.prompts import NONE, prompt
from projects.amber.settings import FilterTraining, Settings
from projects.amber.teachers import ask, search_of


def strinc(sentence: str, answers: Sequence[str]) -> int:
    """1 if some answer occurs in the sentence: lower case, no other normalisation (FilCo; Wang et al., 2023)."""
    return int(any(answer.lower() in sentence.lower() for answer in answers))


def cxmi(with_context: Sequence[float], without: Sequence[float]) -> float:
    """Conditional cross-mutual information of a sentence, natural log.

        CXMI(s) = log p(answer | s, q) - log p(answer | q)

    Args:
        with_context, without: log-probabilities of the answer's tokens.
    """
    return math.fsum(with_context) - math.fsum(without)


def sigmoid(x: float) -> float:
    """FilCo's last step: 0.5 is no effect."""
    return 1 / (1 + math.exp(-x))


def sentence_cxmi(
    lm: LanguageModel, questions: Sequence[str], answers: Sequence[str], sentences: Sequence[str]
) -> list[float]:
    """CXMI of each sentence for its question, under the template of `answer_passages`, without a passage and with."""
    alone = list(dict.fromkeys(zip(questions, answers, strict=True)))
    prompts = [prompt("answer_passages", passages="", question=question) for question, _ in alone]
    bare = lm.score(prompts, [answer for _, answer in alone], "cxmi")
    without = {pair: score.log_probs for pair, score in zip(alone, bare, strict=True)}
    prompts = [prompt("answer_passages", passages=s, question=q) for s, q in zip(sentences, questions, strict=True)]
    scores = lm.score(prompts, answers, "cxmi")
    return [cxmi(s.log_probs, without[q, a]) for s, q, a in zip(scores, questions, answers, strict=True)]


@dataclass(frozen=True)
class Judged:
    """A passage under a question, sentence by sentence.

    Attributes:
        strinc: one a sentence.
        cxmi: one a sentence, NaN where it was not needed.
        evidence: whether the sentence states a fact that the question rests on (at paper scale: a judge's label).
    """

    question: str
    query: str
    sentences: tuple[str, ...]
    strinc: tuple[int, ...]
    cxmi: tuple[float, ...]
    evidence: tuple[bool, ...]

    def target(self, labels: Sequence[str], margin: float) -> list[str]:
        """The useful sentences [R]: those that hold an answer, and those that are evidence; if there are none, the one
        of the highest CXMI, where that is above `margin`."""
        chosen = [
            bool(("strinc" in labels and holds) or ("evidence" in labels and states))
            for holds, states in zip(self.strinc, self.evidence, strict=True)
        ]
        if not any(chosen) and "cxmi" in labels and np.nanmax([-math.inf, *self.cxmi]) > margin:
            chosen[int(np.nanargmax(self.cxmi))] = True
        return [sentence for sentence, use in zip(self.sentences, chosen, strict=True) if use]


LABELS = ("strinc", "cxmi", "evidence")


def judged_passages(
    lm: LanguageModel, sets: Sequence[tuple[QuestionSet, Search]], k: int, labels: Sequence[str]
) -> list[Judged]:
    """What retrieval brings for each question, and for each query on the way to its answer, with the scores of MCF.

    Args:
        lm: the generator, for CXMI: of sentences in passages of which no other label says anything.

    Raises:
        UserError: an unknown label.
    """
    for label in labels:
        if label not in LABELS:
            raise UserError(f"unknown label '{label}' of the filter{nearest(label, LABELS)}")
    judged: list[Judged] = []
    scored: list[tuple[int, int]] = []
    answers: list[str] = []
    for questions, search in sets:
        pairs = [(a, q) for a in questions.questions for q in dict.fromkeys([a.text, *(h.query for h in a.hops[1:])])]
        for (asked, query), found in zip(pairs, search([query for _, query in pairs], k), strict=True):
            places = {place for hop in asked.hops for place in hop.places}
            golds = [gold for accepted in asked.golds for gold in accepted]
            for passage in found:
                sentences = questions.corpus.sentences[passage.id]
                holds = tuple(strinc(sentence, golds) for sentence in sentences)
                states = tuple((passage.id, sentence) in places for sentence in sentences)
                if "cxmi" in labels and not any(
                    ("strinc" in labels and h) or ("evidence" in labels and s)
                    for h, s in zip(holds, states, strict=True)
                ):
                    scored += [(len(judged), i) for i in range(len(sentences))]
                    answers += [asked.answer] * len(sentences)
                judged.append(Judged(asked.text, query, sentences, holds, (float("nan"),) * len(sentences), states))
    values = sentence_cxmi(
        lm, [judged[j].question for j, _ in scored], answers, [judged[j].sentences[i] for j, i in scored]
    )
    by_passage: dict[int, list[float]] = {}
    for (j, _), value in zip(scored, values, strict=True):
        by_passage.setdefault(j, []).append(value)
    return [
        Judged(j.question, j.query, j.sentences, j.strinc, tuple(by_passage.get(i, j.cxmi)), j.evidence)
        for i, j in enumerate(judged)
    ]


def filter_demonstrations(judged: Sequence[Judged], training: FilterTraining, seed: int = 0) -> list[Demonstration]:
    """Both levels, as many demonstrations of the one as of the other; half of the chunk labels are yes.

    Raises:
        ValueError: no relevant passage, or no irrelevant one.
    """
    rng = random.Random(f"filter/{seed}")
    chunks: dict[bool, list[Demonstration]] = {True: [], False: []}
    sentences: dict[bool, list[Demonstration]] = {True: [], False: []}
    for one in judged:
        target = one.target(training.labels, training.margin)
        relevant = bool(target) or ("evidence" in training.labels and any(one.evidence))
        fields = {"question": one.question, "query": one.query, "passage": " ".join(one.sentences)}
        chunks[relevant].append(ask("chunk", "yes" if relevant else "no", **fields))
        sentences[bool(target)].append(ask("sentences", " ".join(target) or NONE, **fields))
    fewest = min(len(chunks[True]), len(chunks[False]))
    if not fewest:
        raise ValueError("labels of one kind alone: the filter needs relevant and irrelevant passages")
    level = [shown for kind in chunks.values() for shown in rng.sample(kind, fewest)]
    useful, none = sentences[True], rng.sample(sentences[False], min(len(sentences[False]), len(sentences[True]) // 4))
    both = [*useful, *none]
    rng.shuffle(both)
    demonstrations = [*level, *both[: len(level)]]
    rng.shuffle(demonstrations)
    return demonstrations


def content_filter(settings: Settings, context: Context, base: str) -> str:
    """Name of the model that filters: a copy of the generator `base`, trained; or itself, where it is not to be."""
    training, revision = settings.filter, settings.lm.of(base).revision
    if not training.train:
        return base

    def make(folder: Path) -> None:
        lm = build_lm(settings.lm.of(base))
        sets = training_sets(settings, training.questions)
        judged = judged_passages(lm, sets, settings.loop.k, training.labels)
        specialise(base, filter_demonstrations(judged, training), training.tuning, folder, revision)

    key = artifact_key(base, training.tuning, training, revision)
    key |= {"world": asdict(settings.world), "k": settings.loop.k}
    return str(context.artifact("filter", key, make))


def training_sets(settings: Settings, questions: int, per_world: int = 5) -> list[tuple[QuestionSet, Search]]:
    """About `questions` questions of all sets, a few of each of as many training worlds as that takes."""
    worlds = max(1, round(questions / per_world / len(SETS)))
    found = []
    for world in range(worlds):
        for name in SETS:
            one = text_world_set(settings.world, name, "train", world, per_world)
            found.append((one, search_of(one.corpus, settings.loop)))
    return found
