"""The prompts of Amber and its baselines, whole, by role, and how each answer is read.

None of the paper's prompts is known to us (README, Deviation 1): wording and formats are ours. An answer that has not
the form that was asked for has a defined reading, stated by the parser; none raises.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from common.models.language_model import Completion, LanguageModel, Prompt, Sampling
from projects.amber.settings import Limits

PROMPTS = {
    # AMU
    "draft": (
        "Update the memory with what the text says about the question.\n"
        "Question: {question}\nMemory:\n{memory}\nText: {text}"
    ),
    "review": (
        "As the reviewer, check the draft of the memory: say what is missing, wrong or unsupported, or correct.\n"
        "Question: {question}\nMemory:\n{memory}\nText: {text}\nDraft:\n{draft}"
    ),
    "challenge": (
        "As the challenger, check the draft and its review: say what is missing, wrong or unsupported, or correct.\n"
        "Question: {question}\nMemory:\n{memory}\nText: {text}\nDraft:\n{draft}\nThe reviewer: {review}"
    ),
    "refine": (
        "As the refiner, write the final memory.\n"
        "Question: {question}\nMemory:\n{memory}\nText: {text}\nDraft:\n{draft}\nThe reviewer: {review}\n"
        "The challenger: {challenge}"
    ),
    # AIC
    "sufficient": ("Does the memory answer the question? Answer yes or no.\nQuestion: {question}\nMemory:\n{memory}"),
    "query": (
        "Write the next search query, not one already asked.\nQuestion: {question}\nMemory:\n{memory}\nAsked: {asked}"
    ),
    # MCF
    "chunk": (
        "Is the passage relevant to the question? Answer yes or no.\n"
        "Question: {question}\nQuery: {query}\nPassage: {passage}"
    ),
    "sentences": (
        "Extract the sentences that help, or say none.\nQuestion: {question}\nQuery: {query}\nPassage: {passage}"
    ),
    # answers
    "answer_memory": "Answer the question from the memory, in few words.\nMemory:\n{memory}\nQuestion: {question}",
    "answer_passages": "Read the passages and answer the question, in few words.\n{passages}\nQuestion: {question}",
    "closed_book": "Answer from memory.\nQuestion: {question}",
    # baselines
    "route": "Choose how to answer the question: none, single or multi.\nQuestion: {question}",
    "act": (
        "Answer the question step by step. Reply with search: and a query, or with answer: and the answer.\n"
        "Question: {question}\n{steps}"
    ),
    "reflect": (
        "If the passage answers the question, reply relevant: and the answer, else irrelevant.\n"
        "Question: {question}\nPassage: {passage}"
    ),
    "better": (
        "Does the new memory know more about the question than the one before? Answer yes or no.\n"
        "Question: {question}\nBefore:\n{old}\nNew:\n{new}"
    ),
}

LIMIT = {  # role -> the field of `Limits` that bounds its answer
    "draft": "memory", "review": "critique", "challenge": "critique", "refine": "memory", "sufficient": "word",
    "query": "query", "chunk": "word", "sentences": "sentences", "answer_memory": "answer",
    "answer_passages": "answer", "closed_book": "answer", "route": "word", "act": "answer", "reflect": "answer",
    "better": "word",
}  # fmt: skip

NONE = "none"  # an empty memory, and nothing to extract
Route = Literal["none", "single", "multi"]
ROUTES: tuple[Route, ...] = ("none", "single", "multi")


def prompt(role: str, **fields: str) -> Prompt:
    """The messages of a role; an empty field is shown as `none`."""
    text = PROMPTS[role].format(**{name: value or NONE for name, value in fields.items()})
    return [{"role": "user", "content": text}]


def numbered(passages: Sequence[str]) -> str:
    """`[1] ...`, one a line."""
    return "\n".join(f"[{i}] {passage}" for i, passage in enumerate(passages, 1))


class Agents:
    """Language models by role.

    Args:
        generator: speaks for every role but those of `others`.
        others: role -> another model: the filter for `chunk` and `sentences`, the router for `route`.
    """

    def __init__(self, generator: LanguageModel, limits: Limits, others: Mapping[str, LanguageModel] = {}) -> None:
        self.generator, self.limits, self.others = generator, limits, others

    def complete(self, role: str, fields: Sequence[Mapping[str, str]], log_probs: bool = False) -> list[Completion]:
        """Greedy completions, one a mapping of the prompt's fields, in one call; none for none."""
        if not fields:
            return []
        sampling = Sampling(max_tokens=getattr(self.limits, LIMIT[role]), log_probs=log_probs)
        return self.others.get(role, self.generator).generate([prompt(role, **f) for f in fields], sampling, role)

    def ask(self, role: str, fields: Sequence[Mapping[str, str]]) -> list[str]:
        """The texts of `complete`, without white space around them."""
        return [completion.text.strip() for completion in self.complete(role, fields)]


def parse_yes(text: str) -> bool:
    """Whether `yes` comes first of the words yes and no; without either: no (dossier, section 2.3)."""
    found = re.search(r"\b(yes|no)\b", text.lower())
    return found is not None and found[1] == "yes"


def parse_memory(text: str) -> str:
    """A memory; empty for `none` and for nothing. Any other text is one."""
    text = text.strip()
    return "" if text.lower().strip(".") == NONE else text


def parse_query(text: str) -> str:
    """The first line that holds a word; empty when none does."""
    return next((line.strip() for line in text.splitlines() if re.search(r"\w", line)), "")


def parse_sentences(text: str) -> str:
    """What was extracted, on one line; empty for `none` and for what holds no word."""
    text = " ".join(text.split())
    return text if re.search(r"\w", text) and text.lower().strip(".") != NONE else ""


def parse_route(text: str) -> Route:
    """The first of the three words; without one: single, which is plain retrieval."""
    found = re.search(rf"\b({'|'.join(ROUTES)})\b", text.lower())
    return next((route for route in ROUTES if found and found[1] == route), "single")


def parse_act(text: str) -> tuple[Literal["search", "answer"], str]:
    """An action and its argument: `search:` with a query searches; all else answers, by what follows `answer:`."""
    found = re.match(r"\s*(search|answer)\s*:\s*(.*)", text, re.IGNORECASE | re.DOTALL)
    if found and found[1].lower() == "search" and (query := parse_query(found[2])):
        return "search", query
    return "answer", (found[2] if found else text).strip()


def parse_reflection(text: str) -> str | None:
    """The answer behind `relevant:`; None for `irrelevant` and for anything else."""
    found = re.match(r"\s*relevant\s*:\s*(.+)", text, re.IGNORECASE | re.DOTALL)
    return found[1].strip() if found else None
