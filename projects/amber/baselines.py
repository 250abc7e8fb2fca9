"""The methods that Amber is compared with, and control rows; all questions of a batch walk in step.

Each is the loop of its paper as far as a closed set of roles can show it, on the same generator, retriever and number
of passages as Amber; what is left out stands in the README (Deviations 6 to 10).
"""

import math
from collections.abc import Callable, Mapping, Sequence

from common.evaluators.answers import normalise
from common.models.language_model import Completion
from projects.amber.data import Passage, Search
from projects.amber.prompts import (
    Agents,
    numbered,
    parse_act,
    parse_memory,
    parse_query,
    parse_reflection,
    parse_route,
    parse_yes,
)
from projects.amber.settings import Loop

Baseline = Callable[[Sequence[str], Agents, Search, Loop], list[str]]


def no_retrieval(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """What the generator knows."""
    return agents.ask("closed_book", [{"question": question} for question in questions])


def vanilla_rag(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """One retrieval, all of it in the prompt."""
    return read(questions, search(questions, loop.k), agents)


def read(questions: Sequence[str], passages: Sequence[Sequence[Passage]], agents: Agents) -> list[str]:
    """Answers from passages."""
    return agents.ask("answer_passages", reading_fields(questions, passages))


def reading_fields(questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[dict[str, str]]:
    """What the reader's prompt is filled with, for each question."""
    return [
        {"question": question, "passages": numbered([passage.text for passage in found])}
        for question, found in zip(questions, passages, strict=True)
    ]


def adaptive_rag(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """A trained router sends each question to no retrieval, one retrieval or several (Jeong et al., NAACL 2024).

    The strategy of several steps is the loop of `react`.
    """
    routes = [parse_route(text) for text in agents.ask("route", [{"question": question} for question in questions])]
    answers: dict[int, str] = {}
    for route, strategy in STRATEGIES.items():
        places = [i for i, chosen in enumerate(routes) if chosen == route]
        answers |= zip(places, strategy([questions[i] for i in places], agents, search, loop), strict=True)
    return [answers[i] for i in range(len(questions))]


def flare(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """Retrieve again while a token of the answer is in doubt (Jiang et al., EMNLP 2023).

    The query is the question with the tentative answer; the new passages take the place of the old ones.
    """
    done: dict[int, str] = {}
    queries = dict(enumerate(questions))
    for t in range(loop.rounds):
        places = [i for i in queries if i not in done]
        found = search([queries[i] for i in places], loop.k)
        fields = reading_fields([questions[i] for i in places], found)
        for i, completion in zip(places, agents.complete("answer_passages", fields, log_probs=True), strict=True):
            answer = completion.text.strip()
            if least_probability(completion) >= loop.doubt or t == loop.rounds - 1:
                done[i] = answer
            queries[i] = f"{questions[i]} {answer}"
    return [done[i] for i in range(len(questions))]


def least_probability(completion: Completion) -> float:
    """Of the tokens of a completion the smallest probability, 0 without any.

    Raises:
        ValueError: the backend gave no log-probabilities.
    """
    if completion.log_probs is None:
        raise ValueError("this backend gives no log-probabilities, which FLARE needs")
    return math.exp(min(completion.log_probs, default=-math.inf))


def self_rag(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """An answer from each passage by itself with a judgement of its relevance; the surest relevant one is taken.

    Self-RAG (Asai et al., ICLR 2024) with retrieval always on: the generator's tokens of reflection become one word.
    Without a relevant passage the answer is that of no retrieval.

    Raises:
        ValueError: the backend gives no log-probabilities.
    """
    found = search(questions, loop.k)
    pairs = [(i, passage) for i, passages in enumerate(found) for passage in passages]
    fields = [{"question": questions[i], "passage": passage.text} for i, passage in pairs]
    best: dict[int, tuple[float, str]] = {}
    for (i, _), completion in zip(pairs, agents.complete("reflect", fields, log_probs=True), strict=True):
        answer = parse_reflection(completion.text)
        if answer is not None:
            if completion.log_probs is None:
                raise ValueError("this backend gives no log-probabilities, which Self-RAG needs")
            sure = math.fsum(completion.log_probs) / max(1, len(completion.log_probs))
            best[i] = max(best.get(i, (-math.inf, "")), (sure, answer))
    left = [i for i in range(len(questions)) if i not in best]
    closed = dict(zip(left, no_retrieval([questions[i] for i in left], agents, search, loop), strict=True))
    return [best[i][1] if i in best else closed[i] for i in range(len(questions))]


def react(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """Reason and act in turn (Yao et al., ICLR 2023): a search brings the best passage not seen yet, or the answer.

    After `rounds` searches, the answer comes from what was found.
    """
    steps: list[list[str]] = [[] for _ in questions]
    seen: list[list[Passage]] = [[] for _ in questions]
    answers: dict[int, str] = {}
    for _ in range(loop.rounds):
        places = [i for i in range(len(questions)) if i not in answers]
        fields = [{"question": questions[i], "steps": "\n".join(steps[i])} for i in places]
        searches: dict[int, str] = {}
        for i, text in zip(places, agents.ask("act", fields), strict=True):
            kind, argument = parse_act(text)
            (searches if kind == "search" else answers)[i] = argument
        without = [{passage.id for passage in seen[i]} for i in searches]
        for (i, query), found in zip(searches.items(), search(list(searches.values()), 1, without), strict=True):
            seen[i] += found
            steps[i] += [f"search: {query}", f"found: {found[0].text if found else 'nothing'}"]
    left = [i for i in range(len(questions)) if i not in answers]
    answers |= zip(left, read([questions[i] for i in left], [seen[i] for i in left], agents), strict=True)
    return [answers[i] for i in range(len(questions))]


def adaptive_note(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[str]:
    """A note that grows while new retrievals make it better (Wang et al., 2024, DeepNote).

    The note is written from whole passages; a new one replaces it where a judge finds it better; two failures in a row
    or `rounds` retrievals end it. Query and note are written by Amber's roles.
    """
    best = update_notes(questions, [""] * len(questions), search(questions, loop.k), agents)
    queries = [[question] for question in questions]
    failures = [0] * len(questions)
    for _ in range(loop.rounds - 1):
        places = [i for i in range(len(questions)) if failures[i] < 2]
        fields = [{"question": questions[i], "memory": best[i], "asked": "; ".join(queries[i])} for i in places]
        for i, text in zip(places, agents.ask("query", fields), strict=True):
            query = parse_query(text)
            fresh = normalise(query) not in {"", *map(normalise, queries[i])}
            queries[i].append(query if fresh else " ".join([questions[i], *best[i].splitlines()[-1:]]))
        found = search([queries[i][-1] for i in places], loop.k)
        new = update_notes([questions[i] for i in places], [best[i] for i in places], found, agents)
        fields = [{"question": questions[i], "old": best[i], "new": note} for i, note in zip(places, new, strict=True)]
        for i, note, text in zip(places, new, agents.ask("better", fields), strict=True):
            failures[i] = 0 if parse_yes(text) else failures[i] + 1
            best[i] = note if parse_yes(text) else best[i]
    fields = [{"question": question, "memory": note} for question, note in zip(questions, best, strict=True)]
    return agents.ask("answer_memory", fields)


def update_notes(
    questions: Sequence[str], notes: Sequence[str], passages: Sequence[Sequence[Passage]], agents: Agents
) -> list[str]:
    """Notes after passages, by the draft role; without passages, and where nothing is written, the old note."""
    places = [i for i, found in enumerate(passages) if found]
    fields = [
        {"question": questions[i], "memory": notes[i], "text": " ".join(passage.text for passage in passages[i])}
        for i in places
    ]
    written = dict(zip(places, map(parse_memory, agents.ask("draft", fields)), strict=True))
    return [written.get(i) or note for i, note in enumerate(notes)]


STRATEGIES: Mapping[str, Baseline] = {"none": no_retrieval, "single": vanilla_rag, "multi": react}
BASELINES: Mapping[str, Baseline] = {
    "no_retrieval": no_retrieval,
    "vanilla_rag": vanilla_rag,
    "adaptive_rag": adaptive_rag,
    "flare": flare,
    "self_rag": self_rag,
    "react": react,
    "adaptive_note": adaptive_note,
}
