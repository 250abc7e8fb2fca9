"""Settings of every Mem-α cell. Plain values only: composing a table must not import torch.

The values of a scale stand in the configs, which say where each comes from.
"""

from dataclasses import dataclass, field

from common.data.text_world.relations import CLOSED
from common.data.text_world.topics import TOPICS
from common.experiments.errors import UserError, check_known
from common.models.microlm.scratch import Size
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from common.training.reinforcement.settings import Reinforcement

ARMS = ("long_context", "rag", "closed_book", "oracle", "untrained", "rl", "foreign")
FAMILIES = ("ar", "ttl", "lru")  # accurate retrieval, test-time learning, long-range understanding
STORES = ("core", "semantic", "episodic")
SEMANTICS = ("strict", "compat")
DIALECTS = ("compact", "json")
SOURCES = ("text_world", "jsonl")
VALIDITIES = ("scripted", "reader")
REWARDS = ("own", "shuffled")
KEYWORDS = (*CLOSED["product"], *CLOSED["pet"], *CLOSED["occupation"])  # of ttl: they decide the label
SCRATCH = "scratch"  # name of a language model that is trained here, from nothing, on the closed lexicon


@dataclass(frozen=True)
class Rules:
    """The memory, its tools and its reading.

    Attributes:
        stores: those that the tools can name; the others stay empty.
        semantics: `strict`: a delete of an unknown id fails; `compat`: it succeeds and does nothing (released code).
        core_tokens: most tokens of core.
        shown: newest entries of semantic and of episodic that the writer reads, each.
        k: entries that the reader gets of semantic and of episodic, each.
        dialect: form of the calls: `compact` words, or `json` tool calls.
        prompt_tokens: above it, fewer entries are shown.
        turn_tokens: most new tokens of a turn.
        answer_tokens: most new tokens of an answer.
        reader_tokens: above it, the reader gets fewer entries.
        window: of long context: the last so many tokens of the stream.
        passages: of rag: so many chunks.
    """

    stores: list[str] = field(default_factory=lambda: list(STORES))
    semantics: str = "strict"
    core_tokens: int = 24
    shown: int = 2
    k: int = 2
    dialect: str = "compact"
    prompt_tokens: int = 512
    turn_tokens: int = 64
    answer_tokens: int = 64
    reader_tokens: int = 1024
    window: int = 88
    passages: int = 1


@dataclass(frozen=True)
class Streams:
    """Instances: a stream of chunks, and questions about it.

    Attributes:
        source: text_world, or jsonl (files of your own, see `data.read`).
        folder: of source jsonl, in the data mirror: train.jsonl, and what `test` names.
        test: of source jsonl, what an evaluation reads: `validation` for validation.jsonl.
        chunks: n, of source text_world; as the others below.
        count: instances of each family in an evaluation.
        timeless, dated, fillers: sentences of a chunk of family ar.
        samples, labels, keywords: of a chunk of ttl; labels there are; keywords of each label.
        topics: of a chunk of lru; it has `fillers`, too.
        asked: questions of an instance of ttl.
    """

    source: str = "text_world"
    folder: str = ""
    test: str = "validation"
    chunks: int = 3
    count: int = 12
    timeless: int = 2
    dated: int = 1
    fillers: int = 1
    samples: int = 4
    labels: int = 4
    keywords: int = 2
    topics: int = 2
    asked: int = 8


@dataclass(frozen=True)
class Habits:
    """How a scripted writer behaves: chances, each in [0, 1].

    Attributes:
        store: to store a statement.
        typed: that it goes into the right store.
        filler: to store a sentence that says nothing.
        malformed: that a call is broken.
        core: to rewrite core.
        placeholder: that core then says nothing.
    """

    store: float = 0.5
    typed: float = 0.65
    filler: float = 0.15
    malformed: float = 0.04
    core: float = 0.6
    placeholder: float = 0.5


@dataclass(frozen=True)
class WarmStart:
    """What the writer is before reinforcement: a copy of the reader, taught by imperfect demonstrations.

    Attributes:
        count: streams that are demonstrated; 0 takes the model as it is.
    """

    count: int = 1500
    habits: Habits = field(default_factory=Habits)
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=300, step_tokens=2048, replay=0.0, muon=True, lr=1e-3))


@dataclass(frozen=True)
class ReaderTraining:
    """What the reader is taught, once, before it is frozen.

    Attributes:
        count: questions; 0 takes the model as it is.
        chunks: lengths of the streams.
        core_tokens: of the memories.
    """

    count: int = 12000
    chunks: list[int] = field(default_factory=lambda: [1, 3, 6, 9])
    core_tokens: int = 24
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=1600, step_tokens=2048, replay=0.0, muon=True, lr=2e-3))


@dataclass(frozen=True)
class Learning:
    """Reinforcement learning of the writer.

    Attributes:
        instances, rollouts: of a step, and of each instance.
        chunks: n of its streams, of source text_world.
        questions: asked of each rollout for r1, at most; 0 for all.
        beta, gamma: weights of r3 and r4.
        reward: `own`, or `shuffled`: each chunk-action gets that of another, a control that must not learn.
        validity: who judges r4: `scripted` (by the truth of the text world), or the `reader`.
        core: the algorithm.
    """

    instances: int = 8
    rollouts: int = 8
    chunks: int = 3
    questions: int = 3
    beta: float = 0.05
    gamma: float = 0.1
    reward: str = "own"
    validity: str = "scripted"
    core: Reinforcement = field(default_factory=lambda: Reinforcement(grouping="instance", unit="turn"))


@dataclass(frozen=True)
class Gate:
    """What the reader must be before RL, on validation streams of the text world as long as those of RL.

    Attributes:
        count: streams of each family.
        oracle: least mean score from the oracle's memory, in [0, 1].
        empty: most mean score from an empty memory, where a label of four can be guessed and nothing else.
    """

    count: int = 12
    oracle: float = 0.85
    empty: float = 0.15


@dataclass(frozen=True)
class Settings:
    """One row on one column.

    Attributes:
        arm: what answers. `long_context`: the reader on the end of the stream; `rag`: on the best chunks;
            `closed_book`: on nothing; `oracle`: on what a scripted writer stored that knows the truth; `untrained`,
            `rl`: on the memory of the writer before and after reinforcement; `foreign`: on that of another stream,
            after reinforcement.
        writer, reader: language models; `scratch` is trained here.
        size: of models from scratch.
        gate: asked of the reader before RL.

    Raises:
        UserError: an unknown name, a number out of range, or settings that do not go together.
    """

    arm: str = "rl"
    streams: Streams = field(default_factory=Streams)
    rules: Rules = field(default_factory=Rules)
    writer: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings(SCRATCH, device="cpu"))
    reader: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings(SCRATCH, device="cpu"))
    size: Size = field(default_factory=lambda: Size(width=96))
    warm: WarmStart = field(default_factory=WarmStart)
    reading: ReaderTraining = field(default_factory=ReaderTraining)
    gate: Gate = field(default_factory=Gate)
    rl: Learning = field(default_factory=Learning)

    def __post_init__(self) -> None:
        check_known(
            ("arm", self.arm, ARMS),
            ("rules.semantics", self.rules.semantics, SEMANTICS),
            ("rules.dialect", self.rules.dialect, DIALECTS),
            ("streams.source", self.streams.source, SOURCES),
            ("rl.validity", self.rl.validity, VALIDITIES),
            ("rl.reward", self.rl.reward, REWARDS),
            *(("store", store, STORES) for store in self.rules.stores),
        )
        for name, number, least in (
            ("streams.chunks", self.streams.chunks, 1),
            ("streams.count", self.streams.count, 1),
            ("streams.timeless", self.streams.timeless, 0),
            ("streams.dated", self.streams.dated, 0),
            ("streams.timeless + streams.dated", self.streams.timeless + self.streams.dated, 1),
            ("streams.fillers", self.streams.fillers, 0),
            ("streams.samples", self.streams.samples, 1),
            ("streams.labels", self.streams.labels, 2),
            ("streams.keywords", self.streams.keywords, 1),
            ("streams.topics", self.streams.topics, 1),
            ("streams.asked", self.streams.asked, 1),
            ("number of rules.stores", len(self.rules.stores), 1),
            ("rules.core_tokens", self.rules.core_tokens, 1),
            ("rules.shown", self.rules.shown, 0),
            ("rules.k", self.rules.k, 1),
            ("rules.prompt_tokens", self.rules.prompt_tokens, 1),
            ("rules.turn_tokens", self.rules.turn_tokens, 1),
            ("rules.answer_tokens", self.rules.answer_tokens, 1),
            ("rules.reader_tokens", self.rules.reader_tokens, 1),
            ("rules.window", self.rules.window, 1),
            ("rules.passages", self.rules.passages, 1),
            ("warm.count", self.warm.count, 0),
            ("reading.count", self.reading.count, 0),
            ("shortest of reading.chunks", min(self.reading.chunks, default=0), 1),
            ("reading.core_tokens", self.reading.core_tokens, 1),
            ("gate.count", self.gate.count, 1),
            ("rl.instances", self.rl.instances, 1),
            ("rl.rollouts", self.rl.rollouts, 2),
            ("rl.chunks", self.rl.chunks, 1),
            ("rl.questions", self.rl.questions, 0),
            ("rl.core.steps", self.rl.core.steps, 1),
        ):
            if number < least:
                raise UserError(f"{name} must be at least {least}, not {number}")
        for name, number, most in (
            ("streams.labels * streams.keywords", self.streams.labels * self.streams.keywords, len(KEYWORDS)),
            ("streams.topics", self.streams.topics, len(TOPICS)),
        ):
            if number > most:
                raise UserError(f"{name} must be at most {most}, not {number}: the text world has no more words")
        for name, chance in vars(self.warm.habits).items():
            if not 0 <= chance <= 1:
                raise UserError(f"warm.habits.{name} must lie in [0, 1], not {chance}")
        if self.rl.beta < 0 or self.rl.gamma < 0:
            raise UserError(f"rl.beta and rl.gamma must be at least 0, not {self.rl.beta} and {self.rl.gamma}")
        of_world = self.warm.count or self.reading.count or self.rl.validity == "scripted"
        if self.streams.source != "text_world" and of_world:
            raise UserError(
                "demonstrations and the scripted judge know the text world alone: with your own files set "
                "warm.count and reading.count to 0, and rl.validity to reader"
            )
        for name, lm, taught in (("writer", self.writer, self.warm), ("reader", self.reader, self.reading)):
            if (lm.name == SCRATCH) != bool(taught.count):
                raise UserError(
                    f"{name} '{lm.name}' does not go with {taught.count} demonstrations: scratch needs some"
                )
