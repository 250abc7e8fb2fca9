"""Agents without a model: a chat that reads and writes plain text, and completions by a script."""

from collections.abc import Sequence
from typing import Any

from common.models.language_model import Completion, Prompt
from projects.mem1.data import Task
from projects.mem1.method import Searcher
from projects.mem1.settings import Rules


class PlainChat:
    """A `Chat` without a tokenizer; contexts of more than `most` messages do not fit."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most

    def text(self, completion: Completion) -> str:
        return completion.text

    def rendered(self, read: str) -> str:
        return f"|{read}|"

    def fits(self, messages: Sequence[object], new: int) -> bool:
        return len(messages) <= self.most


class Scripted:
    """A language model that says its lines to every agent, one a call, in the tokens of a tokenizer."""

    context = 8192

    def __init__(self, tokenizer: Any, lines: Sequence[str]) -> None:
        self.tokenizer, self.lines = tokenizer, iter(lines)

    def generate(self, prompts: Sequence[Prompt], sampling: object, purpose: str = "") -> list[Completion]:
        text = next(self.lines)
        ids = tuple(self.tokenizer(text).input_ids)
        return [Completion(text, ids, None, "stop", 1, len(ids)) for _ in prompts]


def task(objectives: int = 2) -> Task:
    questions = tuple(f"Where is {i}." for i in range(objectives))
    golds = tuple((f"Place{i}",) for i in range(objectives))
    return Task("t", questions, golds, lambda query: [f"about {query}"], lambda query: [f"beside {query}"])


def searcher(objectives: int = 2, penalty: bool = False, most: int = 1000, **rules: object) -> Searcher:
    return Searcher(task(objectives), Rules(**rules), PlainChat(most), penalty)  # type: ignore[arg-type]


def say(agent: Searcher, text: str) -> None:
    agent.take(Completion(text, (1,), None, "stop", 1, 1))


def search(state: str, query: str) -> str:
    return f"<think>{state}</think><search>{query}</search>"


def answer(state: str, text: str) -> str:
    return f"<think>{state}</think><answer>{text}</answer>"
