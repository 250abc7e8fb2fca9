"""A search environment over a corpus: several questions at once, a budget of turns, a gold sequence of queries."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.data.text_world.questions import Question, make_question, solve
from common.data.text_world.relations import RELATIONS
from common.data.text_world.text import Passage
from common.data.text_world.world import World

QUERY = "{s} {key}"
SEPARATOR = "; "

WORDS = (QUERY, SEPARATOR)

Retrieve = Callable[[str], list[Passage]]
_TOKEN = re.compile(r"\w+")


def lexical_search(passages: Sequence[Passage], k: int = 3) -> Retrieve:
    """The `k` best passages for a query by the words that they share, rare words first (BM25, k1 = 1.2, b = 0.75).

    Titles count as text. Passages that share no word are left out; of equal ones the earlier comes first.

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    counts = [Counter(_TOKEN.findall(f"{passage.title} {passage.text}".lower())) for passage in passages]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / max(1, len(lengths))
    index: dict[str, list[int]] = {}
    for number, count in enumerate(counts):
        for word in count:
            index.setdefault(word, []).append(number)

    def search(query: str) -> list[Passage]:
        scores: dict[int, float] = {}
        for word in dict.fromkeys(_TOKEN.findall(query.lower())):
            found = index.get(word, [])
            rarity = math.log(1 + (len(passages) - len(found) + 0.5) / (len(found) + 0.5))
            for number in found:
                times = counts[number][word]
                score = times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths[number] / mean))
                scores[number] = scores.get(number, 0.0) + rarity * score
        best = sorted(scores, key=lambda number: (-scores[number], number))[:k]
        return [passages[number] for number in best]

    return search


def gold_places(question: Question, passages: Sequence[Passage]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each fact of the evidence, where it is stated: (number of the passage, number of the sentence) pairs."""
    places: dict[object, list[tuple[int, int]]] = {fact: [] for fact in question.evidence}
    for i, passage in enumerate(passages):
        for j, sentence in enumerate(passage.sentences):
            for fact in sentence.facts:
                if fact in places:
                    places[fact].append((i, j))
    return tuple(tuple(places[fact]) for fact in question.evidence)


def oracle_queries(question: Question) -> list[str]:
    """One query for each fact of a chain, in order: the entity reached so far and what to look up about it.

    ValueError: the question is not of kind `hop`.
    """
    if question.kind != "hop":
        raise ValueError(f"oracle queries exist for questions of kind 'hop', not '{question.kind}'")
    queries = []
    entity = question.query.entities[0]
    for fact in question.evidence:
        queries.append(QUERY.format(s=entity, key=RELATIONS[fact.relation].key))
        entity = fact.from_side(entity)
    return queries


@dataclass(frozen=True)
class Episode:
    """Questions to be answered together.

    Attributes:
        queries: the gold sequence: with the environment's own retriever each brings the fact that it asks for.
        turns: budget of searches and the answer together.
    """

    questions: tuple[Question, ...]
    queries: tuple[str, ...]
    turns: int

    @property
    def text(self) -> str:
        return " ".join(question.text for question in self.questions)

    @property
    def answer(self) -> str:
        """The gold answers in order, `a; b; c`."""
        return SEPARATOR.join(question.answer for question in self.questions)


def make_episode(
    rng: random.Random,
    world: World,
    retrieve: Retrieve,
    count: int,
    hops: Sequence[int] = (1, 2),
    turns: int | None = None,
) -> Episode:
    """`count` questions about distinct entities, each of which the gold queries answer.

    Args:
        world: what the corpus behind `retrieve` states.
        hops: numbers of hops to draw from, each 1 to 4.
        turns: budget; None: 2 * count + 2, or more where the gold queries need more.

    Raises:
        ValueError: count below 1, no hops, a budget that the gold queries exceed, or 200 draws and 20 for each question
            found too few: the world is too small, or the retriever does not bring the facts.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if not hops:
        raise ValueError("hops must name at least one number")
    questions: dict[str, Question] = {}
    for _ in range(200 + 20 * count):
        question = make_question(rng, world, "hop", rng.choice(hops))
        if question and question.query.entities[0] not in questions and _reachable(question, retrieve):
            questions[question.query.entities[0]] = question
        if len(questions) == count:
            break
    else:
        raise ValueError(f"count must be at most {len(questions)} here, not {count}: no more questions were found")
    queries = tuple(query for question in questions.values() for query in oracle_queries(question))
    needed = len(queries) + 1
    if turns is not None and turns < needed:
        raise ValueError(f"turns must be at least {needed}, for {len(queries)} queries and the answer, not {turns}")
    return Episode(tuple(questions.values()), queries, turns or max(2 * count + 2, needed))


def _reachable(question: Question, retrieve: Retrieve) -> bool:
    """Whether each gold query brings its fact, and all that they bring answers the question rightly."""
    brought = [retrieve(query) for query in oracle_queries(question)]
    if not all(
        any(fact in passage.facts for passage in passages)
        for fact, passages in zip(question.evidence, brought, strict=True)
    ):
        return False
    sentences = [sentence for passages in brought for passage in passages for sentence in passage.sentences]
    shown = [fact for sentence in sentences for fact in sentence.facts]
    return solve(question.query, shown) == question.answers


def check(answer: str, episode: Episode) -> tuple[bool, ...]:
    """Which parts of an answer `a; b; c` are right; none when it has not as many parts as there are questions.

    Case, surrounding spaces and a full stop at the end do not matter.
    """
    parts = [_plain(part) for part in answer.split(SEPARATOR.strip())]
    if len(parts) != len(episode.questions):
        return (False,) * len(episode.questions)
    return tuple(part == _plain(q.answer) for part, q in zip(parts, episode.questions, strict=True))


def _plain(text: str) -> str:
    return text.strip().rstrip(".").strip().casefold()


class SearchEnvironment:
    """An episode under way: search until the answer is given or the turns are used up.

    Attributes:
        turns_left: searches and answer that remain.
        done: no turn remains, or the answer was given.
    """

    def __init__(self, episode: Episode, retrieve: Retrieve) -> None:
        self.episode = episode
        self.retrieve = retrieve
        self.turns_left = episode.turns
        self.done = False

    def search(self, query: str) -> list[Passage]:
        """Passages for a query; costs a turn. RuntimeError when the episode is over."""
        self._turn()
        return self.retrieve(query)

    def answer(self, text: str) -> tuple[bool, ...]:
        """Ends the episode: which questions are answered rightly (`check`). RuntimeError when it was over."""
        self._turn()
        self.done = True
        return check(text, self.episode)

    def _turn(self) -> None:
        if self.done:
            raise RuntimeError("the episode is over")
        self.turns_left -= 1
        self.done = not self.turns_left
