"""Multi-objective tasks: n questions at once over one corpus that can be searched (Sec. 4.1 of the paper).

On the text world questions are drawn, with distinct first entities; of files, n consecutive questions of one data set
make a task, and the remainder of the division is dropped.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from common.data.own_files import read_lines
from common.data.text_world.names import Split
from common.data.text_world.questions import Question
from common.data.text_world.relations import RELATIONS, Relation
from common.data.text_world.search import Episode, Retrieve, lexical_search, make_episode
from common.data.text_world.text import Noise, Passage, Sentence, corpus
from common.data.text_world.world import Dials, World, make_world
from common.experiments.errors import UserError
from common.retrievers.retriever import Retriever
from projects.mem1.settings import Questions, TextWorld

JOINER = "; "
Search = Callable[[str], list[str]]  # query -> passages as the agent reads them
Row = TypeVar("Row")


class Asked(Protocol):
    """A task of any kind, as an agent reads it.

    Attributes:
        id: rollouts of one task share it.
        kind: `questions` or `goal`; instructions differ.
        text: what is asked.
    """

    @property
    def id(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Task:
    """Questions to be answered together.

    Attributes:
        id: rollouts of one task share it.
        golds: of each question the accepted answers.
        elsewhere: for a control: passages of other tasks, as many as `search` finds, none of which holds an answer.
        truth: what the world knows of the task, for teachers; None of files. No agent sees it.
        retrieve: the passages behind `search`, with their facts; for teachers too.
    """

    id: str
    questions: tuple[str, ...]
    golds: tuple[tuple[str, ...], ...]
    search: Search
    elsewhere: Search
    truth: Episode | None = None
    retrieve: Retrieve | None = None

    @property
    def kind(self) -> str:
        return "questions"

    @property
    def text(self) -> str:
        """All questions, joined; each ends in a question mark."""
        return JOINER.join(question.rstrip(" ?.") + "?" for question in self.questions)


class Source(Protocol):
    """Where tasks come from."""

    def tasks(self, objectives: int, count: int, seed: str) -> Sequence[Asked]:
        """Tasks of so many questions each; a function of its arguments, and fewer only where there are fewer."""
        ...


class Made(Source, Protocol):
    """A source that makes its tasks up, and can make any number."""

    def task(self, rng: random.Random, objectives: int) -> Asked:
        """One draw."""
        ...


def compose(rows: Sequence[Row], objectives: int) -> list[tuple[Row, ...]]:
    """Consecutive rows in groups of n, the remainder dropped. ValueError: n below 1."""
    if objectives < 1:
        raise ValueError(f"objectives must be at least 1, not {objectives}")
    whole = len(rows) - len(rows) % objectives
    return [tuple(rows[i : i + objectives]) for i in range(0, whole, objectives)]


def shown(title: str, text: str, characters: int) -> str:
    """A passage with its title, on one line, cut; no mark of a chat template survives in it."""
    return " ".join(f"{title}: {text}".split()).replace("<|", "< |")[:characters]


def answerless(passages: Iterable[str], golds: Sequence[Sequence[str]], count: int) -> list[str]:
    """The first `count` different passages that hold no accepted answer, whatever their case."""
    answers = [gold.lower() for accepted in golds for gold in accepted]
    kept: dict[str, None] = {}
    for passage in passages:
        if len(kept) == count:
            break
        if not any(answer in passage.lower() for answer in answers):
            kept[passage] = None
    return list(kept)


class Worlds:
    """Tasks on worlds of a split of the text world, made when they are first asked about."""

    def __init__(self, dials: TextWorld, questions: Questions, split: Split) -> None:
        self.dials, self.questions, self.split = dials, questions, split
        self._world = cache(self._made)

    def tasks(self, objectives: int, count: int, seed: str) -> list[Task]:
        return [
            self.task(random.Random(f"{self.split}/{seed}/{i}"), objectives, f"{seed}/{i}") for i in range(count)
        ]  # fmt: skip

    def task(self, rng: random.Random, objectives: int, id: str = "") -> Task:
        """One draw. UserError: the worlds are too small for so many questions."""
        number = rng.randrange(self.dials.worlds)
        try:
            world, retrieve, _ = self._world(number)
            truth = make_episode(rng, world, retrieve, objectives, self.questions.hops)
        except ValueError as error:
            raise UserError(f"the text world does not fit: {error}") from error

        def search(query: str) -> list[str]:
            return [self.said(passage) for passage in retrieve(query)]

        def elsewhere(query: str) -> list[str]:
            _, _, passages = self._world(self.dials.worlds + number)  # no task is on such a world
            rest = random.Random(query).sample(passages, len(passages))
            found = lexical_search(passages, len(passages))(f"{rest[0].title} {query}")
            return answerless(map(self.said, [*found, *rest]), golds, len(retrieve(query)))

        golds = tuple(question.answers for question in truth.questions)
        questions = tuple(asked(q) if self.dials.style == "notes" else q.text for q in truth.questions)
        return Task(id, questions, golds, search, elsewhere, truth, retrieve)

    def said(self, passage: Passage) -> str:
        """A passage as the agent reads it."""
        return shown(passage.title, passage.text, self.questions.characters)

    def _made(self, number: int) -> tuple[World, Retrieve, list[Passage]]:
        d = self.dials
        dials = Dials(
            people=d.people,
            cities=d.cities,
            companies=d.companies,
            countries=d.countries,
            look_alikes=d.look_alikes,
            density=d.density,
            changes=0.0,
        )
        world = make_world(f"mem1/{number}", self.split, dials)
        rng = random.Random(f"mem1/{self.split}/{number}")
        passages = corpus(rng, world, d.passages, (d.fewest, d.most), Noise(others=d.others, fillers=d.fillers))
        if d.style == "notes":
            passages = [noted(passage) for passage in passages]
        return world, cache(lexical_search(passages, self.questions.k)), passages


@dataclass(frozen=True)
class Files:
    """Tasks of questions in files.

    Attributes:
        rows: `{"question": text, "answers": [text, ...]}` each, in the order of the data set.
        search: of the corpus.
    """

    rows: Sequence[dict[str, Any]]
    search: Search

    def tasks(self, objectives: int, count: int, seed: str) -> list[Task]:
        """UserError: there are fewer questions than a task has."""
        groups = compose(self.rows, objectives)
        if not groups:
            raise UserError(f"{len(self.rows)} questions make no task of {objectives}")
        chosen = random.Random(seed).sample(range(len(groups)), min(count, len(groups)))
        return [self._task(f"{seed}/{i}", groups, i) for i in chosen]

    def _task(self, id: str, groups: Sequence[Sequence[dict[str, Any]]], at: int) -> Task:
        golds = tuple(tuple(row["answers"]) for row in groups[at])

        def elsewhere(query: str) -> list[str]:
            if len(groups) == 1:
                raise UserError("searches of other tasks need a second one: add questions, or take another context")
            order = random.Random(f"{id}/{query}").sample(range(len(groups)), len(groups))
            found = (p for i in order if i != at for row in groups[i] for p in self.search(row["question"]))
            return answerless(found, golds, len(self.search(query)))

        return Task(id, tuple(row["question"] for row in groups[at]), golds, self.search, elsewhere)


def asked(question: Question) -> str:
    """A question as a note: an entity and the relations that lead from it, `Kelan spouse home`."""
    return " ".join((*question.query.entities, *(RELATIONS[name].key for name in question.query.relations)))


def note(what: str, value: str) -> str:
    """A fact as a note: `Kelan home: Dertona`."""
    return f"{what}: {value}"


def told(passage: Passage, sentences: Sequence[Sentence] | None = None) -> list[tuple[str, Relation, str]]:
    """What a passage, or some of its sentences, states as a note does: of whom, what, and its value.

    Facts of the entity in its title are told from there.
    """
    found = []
    for sentence in passage.sentences if sentences is None else sentences:
        for fact in sentence.facts:
            about = passage.title if passage.title in (fact.subject, fact.object) else fact.subject
            found.append((about, RELATIONS[fact.relation], fact.from_side(about)))
    return found


def noted(passage: Passage) -> Passage:
    """A passage with its facts as notes, `Kelan home Dertona.`"""

    def text(sentence: Sentence) -> str:
        lines = [f"{note(f'{about} {relation.key}', value)}." for about, relation, value in told(passage, [sentence])]
        return " ".join(lines) or sentence.text

    return replace(passage, sentences=tuple(replace(s, text=text(s)) for s in passage.sentences))


def _word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _messages(value: Any) -> bool:
    """Turns of a chat, the last of them the user's."""
    turns = isinstance(value, list) and all(
        isinstance(turn, dict)
        and set(turn) == {"role", "content"}
        and turn["role"] in ("system", "user", "assistant")
        and isinstance(turn["content"], str)
        for turn in value
    )
    return turns and bool(value) and value[-1]["role"] == "user"


WORD = ("a text that is not empty", _word)
TEXT = ("a text", lambda value: isinstance(value, str))
WORDS = ("a list of texts", lambda value: isinstance(value, list) and bool(value) and all(map(_word, value)))
MESSAGES = ("a list of messages with role and content, the last one the user's", _messages)
QUESTION = {"question": WORD, "answers": WORDS}
FIELDS = {  # file -> key of its rows -> what stands there
    "train.jsonl": QUESTION,
    "validation.jsonl": QUESTION,
    "test.jsonl": QUESTION,
    "passages.jsonl": {"id": WORD, "title": TEXT, "text": TEXT},
    "trajectories.jsonl": {"messages": MESSAGES, "answer": WORD},
}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of one's own, its name a key of `FIELDS`. Errors: `read_lines`."""

    def row(value: Any) -> dict[str, Any]:
        for key, (what, right) in FIELDS[path.name].items():
            if not isinstance(value, dict) or key not in value or not right(value[key]):
                raise ValueError(f"{key} must be {what}")
        return dict(value)

    return read_lines(path, row)


def searching(retriever: Retriever, passages: Sequence[dict[str, Any]], questions: Questions) -> Search:
    """The search of a built retriever over `{"id", "title", "text"}` passages."""
    by_id = {row["id"]: shown(row["title"], row["text"], questions.characters) for row in passages}

    def search(query: str) -> list[str]:
        [found] = retriever.search([query], questions.k).rankings()
        return [by_id[name] for name in found]

    return search
