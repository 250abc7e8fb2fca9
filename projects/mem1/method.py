"""MEM1 (Zhou et al., 2025; arXiv:2506.15841v2): an agent whose only memory is the state that it writes itself.

Turn t is y_t = (s_t, a_t): an internal state and one action, a query or the answer. Its context is

    C_0 = x        C_t = x, s_{t-1}, a_{t-1}, o_{t-1}                                                (Sec. 3.1)

with the task x and what the environment answered, o: nothing older survives, so the context stays about as long as the
state. The policy is trained by the reward of the answer alone (Sec. 3.2); since contexts do not grow, log-probabilities
are those of turns, or of a stitched trajectory under a mask (Sec. 3.3; `common.training.reinforcement.layouts`).

Other contexts, for baselines, are rules beside it: see `remembered`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.evaluators.answers import em_sum
from common.memory.notes import NoteMemory
from common.memory.search import lexical
from common.models.language_model import Completion, Message, encode
from common.training.reinforcement.episodes import Episode
from common.training.reinforcement.layouts import ANSWER, READ, TASK, Layout, Row, stitched
from common.training.reinforcement.rollout import Mask, Request
from projects.mem1.data import Asked, Task
from projects.mem1.settings import Rules, Tags

PROMPTS = {
    "questions": "Answer the questions. In each turn write <{state}> what you know so far </{state}>: you will "
    "remember no more. Then <{query}> one query </{query}> about one question, or at the end <{answer}> short answers "
    "in order; with ; between </{answer}>.\nQuestions: {text}",
    "goal": "Buy what is asked for. In each turn write <{state}> what you know so far </{state}>: you will remember no "
    "more. Then <{query}> one action </{query}> that the page offers, search[words] or click[button].\nGoal: {text}",
}  # ours: the paper's wording is longer (README, Deviation 1)


# --- prompts, tags and the budget -----------------------------------------------------------------------------------


def task_prompt(task: Asked, rules: Rules) -> str:
    """x: instructions, unless the rules leave them out, and all questions, or the goal."""
    tags = rules.tags
    if not rules.instructed:
        return task.text
    return PROMPTS[task.kind].format(state=tags.state, query=tags.query, answer=tags.answer, text=task.text)


def budget(objectives: int, rule: str) -> int:
    """T, turns of an episode: 6 up to 4 objectives and 20 above (`paper`), or 2n + 2, enough for two hops each."""
    return 2 * objectives + 2 if rule == "scaled" else 6 if objectives <= 4 else 20


def hint(left: int) -> str:
    """What an observation says about the turns that remain, in training and evaluation alike; "" for none."""
    if left <= 0:
        return ""
    return "[1 turn left: answer now]" if left == 1 else f"[{left} turns left]"


def observation(passages: Sequence[str], left: int, tags: Tags) -> str:
    """o: the hint, and the passages with their numbers."""
    lines = [hint(left), *(f"[{i}] {passage}" for i, passage in enumerate(passages, 1))]
    return informed("\n".join(filter(None, lines)), tags)


def informed(text: str, tags: Tags) -> str:
    """What the environment says, in its tags."""
    return f"<{tags.info}>{text}</{tags.info}>"


Kind = Literal["query", "answer"]


@dataclass(frozen=True)
class Action:
    """What a turn does.

    Attributes:
        kind: "query", "answer", or "" for neither.
        argument: the query or the answer.
        text: of the turn, up to the end of the action; all of it where there is none.
    """

    kind: Kind | Literal[""]
    argument: str
    text: str


def parse(text: str, tags: Tags, kinds: Sequence[Kind] = ("query", "answer")) -> Action:
    """The action, of these kinds, that is complete first; on the last turn only an answer counts (Alg. 1)."""
    found = [
        (match.end(), kind, match[1].strip())
        for kind in kinds
        if (match := re.search(rf"<{getattr(tags, kind)}>(.*?)</{getattr(tags, kind)}>", text, re.DOTALL))
    ]
    if not found:
        return Action("", "", text)
    end, kind, argument = min(found)
    return Action(kind, argument, text[:end])


def well_formed(text: str, tags: Tags) -> bool:
    """Whether every tag of the set that opens closes before another opens, and none closes that was not open."""
    names = "|".join((tags.state, tags.query, tags.info, tags.answer))
    marks = re.findall(rf"<(/?)({names})>", text)
    pairs = zip(marks[::2], marks[1::2], strict=False)
    return len(marks) % 2 == 0 and all(a == ("", b[1]) and b[0] for a, b in pairs)


def state_of(text: str, tags: Tags) -> str:
    """s of a turn; "" where it has none."""
    found = _state(tags).search(text)
    return found[1].strip() if found else ""


def _state(tags: Tags) -> re.Pattern[str]:
    return re.compile(rf"<{tags.state}>(.*?)</{tags.state}>", re.DOTALL)


def reward(answer: str | None, golds: Sequence[Sequence[str]], matched: bool, penalty: bool = False) -> float:
    """Questions answered exactly, in [0, n]; 0 where there are not n answers, or tags do not match (Sec. 3.2).

    Args:
        answer: None where there was none.
        matched: whether the tags of all turns match.
        penalty: unmatched tags cost 1 (the ablation of App. D.2).
    """
    if not matched:
        return -1.0 if penalty else 0.0
    return 0.0 if answer is None else em_sum(answer, golds)


# --- the agent ------------------------------------------------------------------------------------------------------


class Chat:
    """What an agent needs to know of a tokenizer and of the length of a context.

    Args:
        context: most tokens of prompt and completion together.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.tokenizer, self.context = tokenizer, context
        turns = [{"role": role, "content": f"⟦{role}⟧"} for role in ("user", "assistant")]
        turns.append({"role": "user", "content": "⟦read⟧"})
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        self.frame = whole.partition("⟦assistant⟧")[2].split("⟦read⟧")

    def text(self, completion: Completion) -> str:
        """What was sampled, stop string included."""
        text: str = self.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        return text

    def rendered(self, read: str) -> str:
        """An observation with the marks of the chat template around it, as a context has it."""
        return read.join(self.frame)

    def fits(self, messages: Sequence[Message], new: int) -> bool:
        """Whether the context has room for so many new tokens."""
        return len(encode(self.tokenizer, messages)) + new <= self.context


@dataclass(frozen=True)
class Step:
    """A turn and its observation; "" after the last."""

    text: str
    query: str = ""
    read: str = ""


def remembered(rule: str, steps: Sequence[Step], recalled: int) -> list[int]:
    """Which turns a context holds, in order.

    `pruned`, `stateless` and `others` the last; `full` all; `external` the last, and of the older ones those that a
    memory finds by the words of the last query (in place of A-MEM's vectors).
    """
    last = len(steps) - 1
    if rule == "full" or last < 1:
        return list(range(len(steps)))
    if rule != "external":
        return [last]
    memory = NoteMemory(lexical)
    for number, step in enumerate(steps[:-1]):
        memory.write(f"{step.text} {step.read}", cause=f"turn {number}", sources=[str(number)])
    found = memory.read(steps[-1].query, recalled)
    return [*sorted(int(entry.sources[0]) for entry in found), last]


def messages(task: Asked, steps: Sequence[Step], rules: Rules) -> list[Message]:
    """The context after these turns: the task, and of the turns what the rule keeps."""
    shown: list[Message] = [{"role": "user", "content": task_prompt(task, rules)}]
    for number in remembered(rules.context, steps, rules.recalled):
        text = steps[number].text
        if rules.context == "stateless":
            text = _state(rules.tags).sub("", text, count=1)
        shown += [{"role": "assistant", "content": text}, {"role": "user", "content": steps[number].read}]
    return shown


@dataclass
class MemoryAgent(ABC):
    """One episode under way under a context rule; an `Agent` of `common.training.reinforcement.rollout`.

    Args:
        penalty: tags that do not match end the episode.

    Attributes:
        matched: whether the tags of all turns match.
        end: "" under way, `invalid` (no action, or tags with `penalty`), `full` (the context leaves no room), or the
            environment's.
    """

    task: Any  # an `Asked`
    rules: Rules
    chat: Chat
    penalty: bool = False
    steps: list[Step] = field(default_factory=list)
    matched: bool = True
    end: str = ""

    @property
    def group(self) -> str:
        return str(self.task.id)

    @property
    @abstractmethod
    def turns(self) -> int:
        """T, the most turns of an episode."""

    @property
    @abstractmethod
    def kinds(self) -> Sequence[Kind]:
        """The actions that this turn may take."""

    @property
    def acted(self) -> bool:
        """Whether the episode ended as it should, with an answer or a purchase."""
        return self.end in ("answered", "bought")

    @property
    @abstractmethod
    def reward(self) -> float:
        """Of the episode."""

    @abstractmethod
    def act(self, action: Action) -> str:
        """Do it, and give what the environment says; sets `end` where the episode is over."""

    def ask(self) -> Request | None:
        """The context of this turn; the end of an action stops the model."""
        if self.end:
            return None
        context = messages(self.task, self.steps, self.rules)
        if not self.chat.fits(context, self.rules.turn_tokens):
            self.end = "full"
            return None
        stop = tuple(f"</{getattr(self.rules.tags, kind)}>" for kind in self.kinds)
        read = self.chat.rendered(self.steps[-1].read) if self.steps else ""
        return Request(context, stop, self.rules.turn_tokens, read)

    def take(self, completion: Completion) -> None:
        action = parse(self.chat.text(completion), self.rules.tags, self.kinds)
        self.matched &= well_formed(action.text, self.rules.tags)
        read = ""
        if not action.kind or (self.penalty and not self.matched):
            self.end, self.matched = "invalid", False
        else:
            read = self.act(action)
        self.steps.append(Step(action.text, action.argument if action.kind == "query" else "", read))


@dataclass
class Searcher(MemoryAgent):
    """An agent that answers questions, on its last turn at the latest; `end` is then `answered`.

    Attributes:
        answer: None until there is one.
    """

    task: Task
    answer: str | None = None

    @property
    def turns(self) -> int:
        return budget(len(self.task.questions), self.rules.turns)

    @property
    def kinds(self) -> Sequence[Kind]:
        return ("answer",) if len(self.steps) == self.turns - 1 else ("query", "answer")

    def act(self, action: Action) -> str:
        if action.kind == "answer":
            self.end, self.answer = "answered", action.argument
            return ""
        search = self.task.elsewhere if self.rules.context == "others" else self.task.search
        return observation(search(action.argument), self.turns - len(self.steps) - 1, self.rules.tags)

    @property
    def reward(self) -> float:
        return reward(self.answer, self.task.golds, self.matched, self.penalty)


# --- the mask of the released code ----------------------------------------------------------------------------------


def released(states: Mask) -> Layout:
    """The stitched layout under the rule of the released code, which leaves out the memory (dossier, trap 2).

    A generated token sees the task, the last turn's action and observation but not its state, and its own turn; an
    observation sees itself alone. A boolean mask, not the 0/1 floats that the code adds to its scores (trap 3).

    Args:
        states: which tokens of a turn write the state, closing tag included.
    """

    def layout(episodes: Sequence[Episode]) -> list[Row]:
        rows, done = [], 0
        for episode in episodes:
            of_state = np.array([flag for turn in episode.turns for flag in states(turn)], dtype=bool)
            for row in stitched([episode], partial(memoryless, of_state)):
                rows.append(replace(row, tokens=row.tokens + done))
            done += episode.generated
        return rows

    return layout


def memoryless(of_state: NDArray[np.bool_], turn: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Who sees whom beside the causal order, [T, T]; `of_state` is of the sampled tokens, in order."""
    state = np.zeros(len(part), dtype=bool)
    state[part == ANSWER] = of_state
    behind = turn[:, None] - turn
    mask: NDArray[np.bool_] = (part == TASK) | (behind == 0) | ((behind == 1) & ~state)
    alone = (part == READ)[:, None]
    return np.where(alone, (behind == 0) & (part == READ), mask)


def state_spans(text: str, tags: Tags) -> list[tuple[int, int]]:
    """Where the state stands in a turn's text, tags included."""
    return [match.span() for match in _state(tags).finditer(text)]


# --- what an episode costs and keeps --------------------------------------------------------------------------------

Lengths = Sequence[tuple[int, int]]  # of each turn: tokens of the prefix without the task, tokens generated


def peak_tokens(lengths: Lengths) -> int:
    """Most tokens of one sequence, task excluded (Sec. 4.2)."""
    return max((prefix + new for prefix, new in lengths), default=0)


def dependency(lengths: Lengths) -> float:
    """Cost of generation, Σ n_p n_o + n_o² / 2 (as in the code; the paper's text swaps the symbols)."""
    return sum(prefix * new + new * new / 2 for prefix, new in lengths)


def kept(state: str, golds: Sequence[Sequence[str]]) -> float:
    """Share of the answers, in [0, 1], that stand in a state: a direct measure of memory."""
    return sum(any(gold.lower() in state.lower() for gold in accepted) for accepted in golds) / len(golds)
