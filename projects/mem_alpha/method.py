"""Mem-α (Wang et al., 2025; arXiv:2509.25911v1): what to write into memory, learned by reinforcement.

A writer reads a stream chunk by chunk (Sec. 3.1). At step t it sees c_t and the memory M_{t-1} and answers, in one
turn, with calls a_t^(1) ... a_t^(K_t), which are executed one after another:

    M_{t-1}^(0) = M_{t-1}        M_{t-1}^(k) = T(M_{t-1}^(k-1), a_t^(k))        M_t = M_{t-1}^(K_t)

A frozen reader then answers each question from core and the best entries of semantic and of episodic. The writer is
trained by GRPO on what the answers were worth and on three shaping rewards (Sec. 3.1.2); all chunk-actions of all
rollouts of an instance are one group (grouping `instance` of `common.training.reinforcement.advantages`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from common.memory.notes import NoteMemory
from common.memory.store import Entry, UnknownEntry, token_count
from common.models.language_model import Completion, Message, Prompt
from common.retrievers.bm25 import BM25
from common.training.reinforcement.rollout import Request
from projects.mem_alpha.data import Instance
from projects.mem_alpha.settings import STORES, Rules

LISTS = ("semantic", "episodic")
MARK = " ..."  # at the end of a core that was cut

Count = Callable[[str], int]
"""Tokens of a text."""


# --- memory and its tools (Sec. 3.3) --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One action, as it was read from a turn.

    Attributes:
        tool: insert, update or delete; anything else, and "" for text that is no call, fails.
        store: core, semantic or episodic.
        content: of insert and update.
        id: of an entry, for update and delete; "" for none.
    """

    tool: str
    store: str = ""
    content: str = ""
    id: str = ""


def truncated(text: str, most: int, count: Count) -> str:
    """A core of at most `most` tokens: last words are dropped until the mark of the cut fits, too."""
    if count(text) <= most:
        return text
    words = text.split()
    while words and count(" ".join(words)) > most - count(MARK):
        words.pop()
    return " ".join(words) + MARK


class Memory:
    """Core, one text that is always shown; semantic and episodic, lists of entries with ids n1, n2, ... each.

    Args:
        rules: which stores there are, the length of core, and `semantics`.
        count: tokens of a text.
    """

    def __init__(self, rules: Rules, count: Count) -> None:
        self.rules, self.count = rules, count
        self.core = ""
        self.lists = {store: NoteMemory() for store in LISTS}

    def entries(self, store: str) -> list[Entry]:
        return self.lists[store].entries()

    @property
    def tokens(self) -> int:
        """l_m: of core and of all entries, without their ids."""
        return self.count(self.core) + sum(token_count(self.entries(store), self.count) for store in LISTS)

    def apply(self, call: Call) -> bool:
        """T: execute a call; whether it succeeded. One that fails has changed nothing.

        An insert needs content that is not in its list yet, and never goes to core. An update needs content, and of a
        list an id that is held; one of core replaces it all. A delete of core clears it; of a list, an id that is not
        held fails (`strict`), or succeeds and does nothing (`compat`, the released code). All else fails.
        """
        content = " ".join(call.content.split())
        if call.tool not in ("insert", "update", "delete") or call.store not in self.rules.stores:
            return False
        if call.tool != "delete" and not content:
            return False
        if call.store == "core":
            if call.tool == "insert":
                return False
            self.core = truncated(content, self.rules.core_tokens, self.count) if call.tool == "update" else ""
            return True
        notes = self.lists[call.store]
        if call.tool == "insert":
            if any(entry.text == content for entry in notes.entries()):
                return False
            notes.write(content, cause="insert")
            return True
        try:
            if call.tool == "update":
                notes.update(call.id, content, cause="update")
            else:
                notes.forget(call.id, cause="delete")
        except UnknownEntry:
            return call.tool == "delete" and bool(call.id) and self.rules.semantics == "compat"
        return True


# --- reading --------------------------------------------------------------------------------------------------------


def top(texts: Sequence[str], queries: Sequence[str], k: int) -> list[list[int]]:
    """Places of the k best texts for each query by BM25; equals in their order.

    Texts that share no word with the query follow the others, as far as k goes: the paper's search has no threshold.
    """
    if not texts:
        return [[] for _ in queries]
    index = BM25()
    index.build([str(place) for place in range(len(texts))], texts)
    found = [[int(place) for place in ranking] for ranking in index.search(queries, k).rankings()]
    return [[*best, *(place for place in range(len(texts)) if place not in best)][:k] for best in found]


@dataclass(frozen=True)
class Evidence:
    """What a reader gets for a question: a memory's core and entries, or, in place of all three, passages."""

    core: str = ""
    semantic: tuple[str, ...] = ()
    episodic: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()

    def shorter(self) -> "Evidence | None":
        """With one entry less of each list; None where there is none to leave out."""
        if not self.semantic and not self.episodic:
            return None
        fewer = max(len(self.semantic), len(self.episodic)) - 1
        return Evidence(self.core, self.semantic[:fewer], self.episodic[:fewer], self.passages)


def recall(memory: Memory, queries: Sequence[str], k: int) -> list[Evidence]:
    """For each query core, and the k best entries of each list."""
    found = {}
    for store in LISTS:
        texts = [entry.text for entry in memory.entries(store)]
        found[store] = [tuple(texts[place] for place in best) for best in top(texts, queries, k)]
    return [Evidence(memory.core, *lists) for lists in zip(found["semantic"], found["episodic"], strict=True)]


# --- rewards (Sec. 3.1.2) -------------------------------------------------------------------------------------------


def share(successes: Sequence[bool]) -> float:
    """r2 and r4 of a chunk: the share of its K calls that succeeded, or were found valid; 0 where K = 0."""
    return sum(successes) / len(successes) if successes else 0.0


def compression(memory_tokens: int, chunk_tokens: int) -> float:
    """r3 = 1 - l_m / l_c: 1 for an empty memory, negative for one that outgrew what was read."""
    return 1.0 - memory_tokens / chunk_tokens


def reward(r1: float, r2: float, r3: float, r4: float, beta: float, gamma: float) -> float:
    """r_t = r1 + r2_t + β r3 + γ r4_t."""
    return r1 + r2 + beta * r3 + gamma * r4


def judgeable(call: Call) -> bool:
    """Whether a call has a content to be judged for r4: an insert into a list or an update, that fails or not."""
    stores = LISTS if call.tool == "insert" else STORES if call.tool == "update" else ()
    return call.store in stores and bool(call.content.strip())


# --- the writer -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dialect:
    """How memory is shown to a writer and its calls are read, and how evidence is shown to a reader.

    Attributes:
        writer: the memory, the chunk, how many of the newest entries are shown -> the prompt.
        parse: a turn -> its calls; any text at all.
        reader: the evidence, the question -> the prompt.
        asked: family -> what comes before its questions; part of what is searched for, as in the released code.
    """

    writer: Callable[[Memory, str, int], list[Message]]
    parse: Callable[[str], list[Call]]
    reader: Callable[[Evidence, str], list[Message]]
    asked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A call, and whether it succeeded."""

    call: Call
    succeeded: bool


@dataclass
class Writer:
    """One stream under way; an `Agent` of `common.training.reinforcement.rollout`.

    Args:
        length: tokens of a prompt.

    Attributes:
        turns: what was called for each chunk so far.
    """

    instance: Instance
    rules: Rules
    dialect: Dialect
    count: Count
    length: Callable[[Prompt], int]
    turns: list[list[Done]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = Memory(self.rules, self.count)

    @property
    def group(self) -> str:
        return self.instance.id

    def ask(self) -> Request | None:
        """The next chunk; fewer entries are shown, by halves, while the prompt is too long."""
        if len(self.turns) == len(self.instance.chunks):
            return None
        chunk, shown = self.instance.chunks[len(self.turns)], self.rules.shown
        prompt = self.dialect.writer(self.memory, chunk, shown)
        while shown and self.length(prompt) > self.rules.prompt_tokens:
            shown //= 2
            prompt = self.dialect.writer(self.memory, chunk, shown)
        return Request(prompt, (), self.rules.turn_tokens)

    def take(self, completion: Completion) -> None:
        self.act(self.dialect.parse(completion.text))

    def act(self, calls: Sequence[Call]) -> None:
        """Execute the calls of a turn."""
        self.turns.append([Done(call, self.memory.apply(call)) for call in calls])
