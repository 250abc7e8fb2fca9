"""Amber (Qin et al., Findings of ACL 2025; arXiv:2504.05312): iterative retrieval into a memory that agents keep.

Read through public notes alone, not the paper (README): what they leave open is marked [R] and is our reconstruction.

    M = "", q_0 = q                                        # all questions of a batch walk in step
    for t = 0 .. T_max - 1:
        P = retrieve(q_t, k)
        S = MCF(q, q_t, P)                                 # `content_filter`
        M = AMU(q, M, S)                                   # `update_memory`; unchanged if S is empty [R]
        if Sufficient(q, M): break                         # AIC, `judge`
        if t < T_max - 1: q_{t+1} = NewQuery(q, M, asked)  # AIC, `rewrite`
    answer = Answer(q, M)                                  # from the memory alone

Calls of language models for a question: in each round k + r_t + 4 + 1 (r_t passages kept; 0 in place of 4 if S is
empty), one for each new query, one for the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.evaluators.answers import normalise
from common.memory.notes import NoteMemory
from projects.amber.data import Passage, Search
from projects.amber.prompts import Agents, parse_memory, parse_query, parse_sentences, parse_yes
from projects.amber.settings import Loop


@dataclass
class Reading:
    """One question under way.

    Attributes:
        memory: at most one note, rewritten; its history has every draft and refined state with its cause.
        queries: all asked, the question first; the last is q_t.
        consumed: ids of passages that were kept. [R] They are not retrieved again.
        rejected: (query, id) of passages that the filter refused. [R] Under another query they may come again.
        rounds: what happened, for the record.
    """

    question: str
    memory: NoteMemory = field(default_factory=NoteMemory)
    queries: list[str] = field(default_factory=list)
    consumed: set[str] = field(default_factory=set)
    rejected: set[tuple[str, str]] = field(default_factory=set)
    sufficient: bool = False
    repeated_queries: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""

    def __post_init__(self) -> None:
        self.queries.append(self.question)

    @property
    def text(self) -> str:
        """M, the memory's text; empty at first."""
        return "\n".join(entry.text for entry in self.memory.entries())

    def remember(self, text: str, cause: str, sources: Sequence[str]) -> None:
        """M becomes `text`: replaced, not appended to."""
        self.memory.now = len(self.rounds)
        held = self.memory.entries()
        if held and text != held[0].text:
            known = dict.fromkeys([*held[0].sources, *sources])
            self.memory.update(held[0].id, text, cause=cause, sources=tuple(known))
        elif not held and text:
            self.memory.write(text, cause=cause, sources=sources)


def amber(questions: Sequence[str], agents: Agents, search: Search, loop: Loop) -> list[Reading]:
    """Answer questions by Amber's loop, all in step: one call of the language model for each role and round."""
    readings = [Reading(question) for question in questions]
    rounds = 1 if loop.collector == "single" else loop.rounds
    for t in range(rounds):
        active = [reading for reading in readings if not reading.sufficient]
        filtered = content_filter(active, retrieve(active, search, loop.k), agents, loop)
        update_memory(active, filtered, agents, loop)
        if loop.collector == "adaptive":
            judge(active, agents)
            if t < rounds - 1:
                rewrite([reading for reading in active if not reading.sufficient], agents)
    answer(readings, agents)
    return readings


def retrieve(readings: Sequence[Reading], search: Search, k: int) -> list[list[Passage]]:
    """P of each reading. Passages that were kept, or refused under the same query, would stall the loop. [R]"""
    without = [r.consumed | {name for query, name in r.rejected if query == r.queries[-1]} for r in readings]
    return search([reading.queries[-1] for reading in readings], k, without)


# --- MCF: multi-granular content filter ------------------------------------------------------------------------------


def content_filter(
    readings: Sequence[Reading], passages: Sequence[Sequence[Passage]], agents: Agents, loop: Loop
) -> list[list[str]]:
    """S of each reading: of the passages that the chunk level keeps, the sentences that the sentence level extracts.

    Conditioned on q and q_t [R]. A kept passage of which nothing is extracted stays whole. [R]
    """
    pairs = [(r, p) for r, found in zip(readings, passages, strict=True) for p in found]
    kept = [True] * len(pairs)
    if loop.chunk_filter:
        kept = [parse_yes(text) for text in agents.ask("chunk", [filter_fields(r, p) for r, p in pairs])]
    for (reading, passage), keep in zip(pairs, kept, strict=True):
        if keep:
            reading.consumed.add(passage.id)
        else:
            reading.rejected.add((reading.queries[-1], passage.id))
    pairs = [pair for pair, keep in zip(pairs, kept, strict=True) if keep]
    texts = [passage.text for _, passage in pairs]
    if loop.sentence_filter:
        extracted = agents.ask("sentences", [filter_fields(r, p) for r, p in pairs])
        texts = [parse_sentences(new) or whole for new, whole in zip(extracted, texts, strict=True)]
    filtered: dict[int, list[str]] = {id(reading): [] for reading in readings}
    sources: dict[int, list[str]] = {id(reading): [] for reading in readings}
    for (reading, passage), text in zip(pairs, texts, strict=True):
        filtered[id(reading)].append(text)
        sources[id(reading)].append(passage.id)
    for reading, found in zip(readings, passages, strict=True):
        reading.rounds.append(
            {
                "query": reading.queries[-1],
                "retrieved": [passage.id for passage in found],
                "kept": sources[id(reading)],
                "text": " ".join(filtered[id(reading)]),
                "before": reading.text,
            }
        )
    return [filtered[id(reading)] for reading in readings]


def filter_fields(reading: Reading, passage: Passage) -> dict[str, str]:
    """What both prompts of the filter are filled with."""
    return {"question": reading.question, "query": reading.queries[-1], "passage": passage.text}


# --- AMU: agent-based memory updater ---------------------------------------------------------------------------------


def update_memory(readings: Sequence[Reading], filtered: Sequence[Sequence[str]], agents: Agents, loop: Loop) -> None:
    """Draft [R], Reviewer, Challenger, Refiner, in this order, once; then the memory is what the Refiner wrote.

    Nothing that came through the filter: no call, the memory stays. [R] An empty refined text: the draft stays; an
    empty draft too: the memory stays. [R] Without review (`w/o AMU`) the draft is the memory.
    """
    touched = [reading for reading, texts in zip(readings, filtered, strict=True) if texts]
    fields = [
        {"question": r.question, "memory": r.text, "text": " ".join(texts)}
        for r, texts in zip(readings, filtered, strict=True)
        if texts
    ]
    drafts = [parse_memory(text) for text in agents.ask("draft", fields)]
    refined = [""] * len(drafts)
    if loop.review:
        fields = [{**f, "draft": draft} for f, draft in zip(fields, drafts, strict=True)]
        reviews = agents.ask("review", fields)
        fields = [{**f, "review": review} for f, review in zip(fields, reviews, strict=True)]
        challenges = agents.ask("challenge", fields)
        fields = [{**f, "challenge": challenge} for f, challenge in zip(fields, challenges, strict=True)]
        seen = fields
        if loop.shuffle_critiques:  # control: the critique of the next question
            others = [*fields[1:], *fields[:1]]
            seen = [
                {**f, "review": o["review"], "challenge": o["challenge"]} for f, o in zip(fields, others, strict=True)
            ]
        refined = [parse_memory(text) for text in agents.ask("refine", seen)]
        for reading, f in zip(touched, seen, strict=True):
            reading.rounds[-1] |= {"review": f["review"], "challenge": f["challenge"]}
    for reading, draft, final in zip(touched, drafts, refined, strict=True):
        reading.rounds[-1] |= {"draft": draft, "refined": final}
        if new := final or draft:
            cause = "refiner" if final else "draft"
            reading.remember(new, f"{cause}, round {len(reading.rounds) - 1}", reading.rounds[-1]["kept"])
    for reading in readings:
        reading.rounds[-1]["after"] = reading.text


# --- AIC: adaptive information collector -----------------------------------------------------------------------------


def judge(readings: Sequence[Reading], agents: Agents) -> None:
    """Whether the memory suffices; it sees question and memory alone."""
    fields = [{"question": r.question, "memory": r.text} for r in readings]
    for reading, text in zip(readings, agents.ask("sufficient", fields), strict=True):
        reading.sufficient = parse_yes(text)
        reading.rounds[-1]["sufficient"] = reading.sufficient


def rewrite(readings: Sequence[Reading], agents: Agents) -> None:
    """The next query. One that was asked, or none: the question with the last line of the memory, and counted. [R]"""
    fields = [{"question": r.question, "memory": r.text, "asked": "; ".join(r.queries)} for r in readings]
    for reading, text in zip(readings, agents.ask("query", fields), strict=True):
        query = parse_query(text)
        if normalise(query) in {"", *map(normalise, reading.queries)}:
            reading.repeated_queries += 1
            query = " ".join([reading.question, *reading.text.splitlines()[-1:]])
        reading.queries.append(query)


def answer(readings: Sequence[Reading], agents: Agents) -> None:
    """From question and memory alone."""
    fields = [{"question": r.question, "memory": r.text} for r in readings]
    for reading, text in zip(readings, agents.ask("answer_memory", fields), strict=True):
        reading.answer = text
