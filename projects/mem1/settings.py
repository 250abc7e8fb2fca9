"""Settings of every MEM1 cell. Plain values only: composing a table must not import torch.

The values of a scale stand in the configs, which say where each comes from.
"""

from dataclasses import dataclass, field

from common.experiments.errors import UserError, check_known
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.scratch import Size
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from common.training.reinforcement.settings import Reinforcement

BASES = ("lm", "scratch")
CONTEXTS = ("pruned", "full", "external", "stateless", "others")
STYLES = ("prose", "notes")
POLICIES = ("base", "sft", "rl")
REWARDS = ("outcome", "format_penalty", "shuffled")
MASKS = ("consolidated", "released")
SOURCES = ("text_world", "shop", "jsonl")
READING = "reading"
# Name -> share of what is taught.
TEACHERS = {"accumulating": 0.25, "forgetful": 0.3, "premature": 0.1, "full": 0.35, READING: 0.0}


@dataclass(frozen=True)
class Tags:
    """Names of the four blocks; the paper prints IS, query, info, answer, its code has these."""

    state: str = "think"
    query: str = "search"
    info: str = "information"
    answer: str = "answer"


@dataclass(frozen=True)
class Questions:
    """What is asked, and what can be searched.

    Attributes:
        source: text_world; shop, in place of questions a thing to be bought; or jsonl (files of your own, see
            `data.Files`).
        objectives: n, questions of one task.
        count: tasks of an evaluation.
        hops: numbers of hops to draw from, 1 or 2; text_world only.
        k: passages of a search.
        characters: passages are cut to so many.
        folder: of source jsonl, in the data mirror.
        retriever, encoder: of source jsonl, names of `common.retrievers.build` and `common.models.encoders`.
    """

    source: str = "text_world"
    objectives: int = 2
    count: int = 32
    hops: list[int] = field(default_factory=lambda: [1, 2])
    k: int = 3
    characters: int = 1500
    folder: str = ""
    retriever: str = "bm25"
    encoder: str = ""


@dataclass(frozen=True)
class TextWorld:
    """The text world that tasks are drawn from: its entities by type, its passages, and how many worlds of a split.

    Attributes:
        style: of passages and questions: `prose`, sentences of many forms; `notes`, `Kelan home: Dertona.`
            under the entity that it is about, asked for by `Kelan home?`.
        others, fillers: shares of passages with a sentence about another entity, and with one that states nothing.
    """

    style: str = "prose"
    people: int = 24
    cities: int = 12
    companies: int = 8
    countries: int = 5
    look_alikes: float = 0.3
    density: float = 0.5
    passages: int = 96
    fewest: int = 4
    most: int = 5
    others: float = 0.4
    fillers: float = 0.3
    worlds: int = 32


@dataclass(frozen=True)
class Stock:
    """The shops that errands are done in: products of each, and how many shops of a split."""

    products: int = 60
    shops: int = 64


@dataclass(frozen=True)
class Rules:
    """How an agent acts.

    Attributes:
        context: what it reads beside the task. `pruned`: its last turn (MEM1); `full`: all turns; `external`: its last
            turn and the `recalled` older ones that a memory finds for the last query. Two controls act as `pruned` but
            for one thing: `stateless` reads its last turn without the state, `others` finds, when it searches, passages
            of other tasks.
        turns: of questions; `paper`: 6 turns up to 4 objectives, 20 above; `scaled`: 2n + 2.
        recalled: of context external.
        turn_tokens: most new tokens of a turn.
        instructed: whether the task says what to do, beside its questions.
    """

    context: str = "pruned"
    turns: str = "scaled"
    recalled: int = 2
    turn_tokens: int = 224
    instructed: bool = True
    tags: Tags = field(default_factory=Tags)


@dataclass(frozen=True)
class Learning:
    """Reinforcement learning of the policy.

    Attributes:
        objectives: n of its tasks.
        tasks, rollouts: tasks of a step, and episodes of each; one for PPO, several for GRPO.
        reward: `outcome`; `format_penalty`: -1 and the end where tags do not match, as a shop has it anyway;
            `shuffled`: the outcome of another episode, a control that must not learn.
        mask: who sees whom in layout stitched: `consolidated`, or `released`, without the memory (`method.released`).
        gate: share of the objectives that the base must earn in the first step, least and most, by the outcome reward:
            below there is nothing to reinforce, above nothing to learn.
        core: the algorithm.
    """

    objectives: int = 2
    tasks: int = 64
    rollouts: int = 1
    reward: str = "outcome"
    mask: str = "consolidated"
    gate: list[float] = field(default_factory=lambda: [0.0, 1.0])
    core: Reinforcement = field(default_factory=lambda: Reinforcement("ppo"))


@dataclass(frozen=True)
class Imitation:
    """The SFT arm: trajectories of the accumulating teacher with faults, kept where every answer, or the purchase, is
    right.

    Attributes:
        objectives: n, in turn.
        trajectories: drawn, before the filter.
        faults: share of their turns with a fault.
        tuning: of a copy of the base.
    """

    objectives: list[int] = field(default_factory=lambda: [1, 2, 3])
    trajectories: int = 2000
    faults: float = 0.12
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class Skills:
    """What the base must do before RL, as shares, greedily, given the turns of the accumulating teacher.

    Attributes:
        objectives: n of the tasks that it is tried on.
        tasks: of each n.
        state: for each n, of states written to the letter, where to keep what was known is no choice.
        query: of turns with one well-formed action.
        answer: for each n, of answers to the letter after a right state.
    """

    objectives: list[int] = field(default_factory=lambda: [2, 8])
    tasks: int = 48
    state: list[float] = field(default_factory=lambda: [0.97, 0.9])
    query: float = 0.98
    answer: list[float] = field(default_factory=lambda: [0.97, 0.97])


@dataclass(frozen=True)
class Stage:
    """A further stage of the warm start, by the same teachers.

    Its demonstrations are drawn with the seed of the first stage: those of teacher `full`, which heeds no `pruned`, are
    the first ones of that stage once more where `answers` is the same.

    Attributes:
        count: demonstrations; 0: no such stage.
        answers, pruned: in place of `taught_answers` and `taught_pruned`.
        tuning: of what the stage before made.
    """

    count: int = 0
    answers: float = 0.25
    pruned: list[int] = field(default_factory=lambda: [8, 12, 16])
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class Settings:
    """One row of a table on one column.

    Attributes:
        policy: base, sft or rl.
        base: what teachers teach: `lm`, a model that there is, or `scratch`.
        scratch: size of a model from scratch.
        taught: what the base is taught before anything else, by teacher; count 0: the model as it is.
        faults: share of the taught turns with a fault.
        taught_answers: chance that the turn of an episode that a teacher shows is the last one; teacher `reading`
            shows no episodes.
        taught_pruned, taught_full: n of what is taught, by what the context holds.
        tuning: of the warm start.
        longer, answering: its further stages, in this order: of longer lists, and of answers from them.
        skills: asked of a taught base before RL.

    Raises:
        UserError: an unknown name, a number out of range, or settings that do not go together.
    """

    policy: str = "rl"
    base: str = "lm"
    questions: Questions = field(default_factory=Questions)
    world: TextWorld = field(default_factory=TextWorld)
    stock: Stock = field(default_factory=Stock)
    rules: Rules = field(default_factory=Rules)
    lm: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings("microlm"))
    scratch: Size = field(default_factory=Size)
    taught: Teaching = field(default_factory=lambda: Teaching(4000, dict(TEACHERS)))
    faults: float = 0.05
    taught_answers: float = 0.25
    taught_pruned: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6, 8, 12, 16])
    taught_full: list[int] = field(default_factory=lambda: [1, 2, 3])
    tuning: Tuning = field(default_factory=Tuning)
    longer: Stage = field(default_factory=Stage)
    answering: Stage = field(default_factory=Stage)
    skills: Skills = field(default_factory=Skills)
    sft: Imitation = field(default_factory=Imitation)
    rl: Learning = field(default_factory=Learning)

    def __post_init__(self) -> None:
        check_known(
            ("policy", self.policy, POLICIES),
            ("base", self.base, BASES),
            ("world.style", self.world.style, STYLES),
            ("questions.source", self.questions.source, SOURCES),
            ("rules.context", self.rules.context, CONTEXTS),
            ("rules.turns", self.rules.turns, ("paper", "scaled")),
            ("rl.reward", self.rl.reward, REWARDS),
            ("rl.mask", self.rl.mask, MASKS),
        )
        stages = {"longer": self.longer, "answering": self.answering}
        for name, number, least in (
            ("questions.objectives", self.questions.objectives, 1),
            ("questions.count", self.questions.count, 1),
            ("questions.k", self.questions.k, 1),
            ("questions.characters", self.questions.characters, 1),
            ("world.worlds", self.world.worlds, 1),
            ("stock.products", self.stock.products, 1),
            ("stock.shops", self.stock.shops, 1),
            ("rules.recalled", self.rules.recalled, 0),
            ("rules.turn_tokens", self.rules.turn_tokens, 1),
            ("taught.count", self.taught.count, 0),
            ("tuning.steps", self.tuning.steps, 1),
            *((f"{name}.count", stage.count, 0) for name, stage in stages.items()),
            *((f"{name}.tuning.steps", stage.tuning.steps, 1) for name, stage in stages.items()),
            ("sft.trajectories", self.sft.trajectories, 1),
            ("sft.tuning.steps", self.sft.tuning.steps, 1),
            ("rl.objectives", self.rl.objectives, 1),
            ("rl.tasks", self.rl.tasks, 1),
            ("rl.rollouts", self.rl.rollouts, 1),
            ("rl.core.steps", self.rl.core.steps, 1),
        ):
            if number < least:
                raise UserError(f"{name} must be at least {least}, not {number}")
        for name, numbers in (
            ("taught_pruned", self.taught_pruned),
            ("taught_full", self.taught_full),
            *((f"{name}.pruned", stage.pruned) for name, stage in stages.items()),
            ("sft.objectives", self.sft.objectives),
        ):
            if not numbers or min(numbers) < 1:
                raise UserError(f"{name} must be numbers of questions, at least 1 each, not {numbers}")
        if any(number < 1 for number in self.skills.objectives):
            raise UserError(
                f"skills.objectives must be numbers of questions, at least 1 each, not {self.skills.objectives}"
            )
        for name, share in (
            ("faults", self.faults),
            ("taught_answers", self.taught_answers),
            *((f"{name}.answers", stage.answers) for name, stage in stages.items()),
            ("sft.faults", self.sft.faults),
            ("world.look_alikes", self.world.look_alikes),
            ("world.others", self.world.others),
            ("world.fillers", self.world.fillers),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"{name} must lie in [0, 1], not {share}")
        fewest, most = self.world.fewest, self.world.most
        if not 1 <= fewest <= most <= 6:
            raise UserError(f"world.fewest and world.most must be 1 to 6 and in this order, not {fewest} and {most}")
        source = self.questions.source
        if source == "text_world" and self.taught.weights.get(READING) and self.world.style != "notes":
            raise UserError(
                f"teacher '{READING}' reads notes: set its weight in taught.weights to 0, or world.style=notes"
            )
        if not self.questions.hops or not set(self.questions.hops) <= {1, 2}:
            raise UserError(f"questions.hops must be 1, 2 or both, not {self.questions.hops}: budgets are for two hops")
        if len(self.rl.gate) != 2 or self.rl.gate[0] > self.rl.gate[1]:
            raise UserError(f"rl.gate must be two shares, the least and the most, not {self.rl.gate}")
        if self.rl.core.algorithm == "grpo" and self.rl.rollouts == 1:
            raise UserError("grpo compares rollouts of one task: set rl.rollouts to 2 or more")
        if self.rl.mask == "released" and self.rl.core.layout != "stitched":
            raise UserError(f"rl.mask released is of layout stitched, not {self.rl.core.layout}")
        if self.base == "scratch" and not self.taught.count:
            raise UserError("base scratch has read nothing: set taught.count to more than 0")
        tunings = {"tuning": self.tuning, "sft.tuning": self.sft.tuning}
        tunings |= {f"{name}.tuning": stage.tuning for name, stage in self.stages().items()}
        if self.base == "scratch" and (replayed := [name for name, tuning in tunings.items() if tuning.replay]):
            raise UserError(f"base scratch has no skills to replay: set {replayed[0]}.replay to 0")
        for name, shares in (("state", self.skills.state), ("answer", self.skills.answer)):
            if len(shares) != len(self.skills.objectives):
                raise UserError(f"skills.{name} has a share for each of skills.objectives, not {shares}")
        if source == "jsonl" and self.taught.count:
            raise UserError("teachers know the text world and the shop alone: set taught.count to 0")
        for name, numbers in (
            ("questions.objectives", [self.questions.objectives]),
            ("rl.objectives", [self.rl.objectives]),
            ("skills.objectives", self.skills.objectives),
        ):
            if source == "shop" and set(numbers) - {1}:
                raise UserError(f"in a shop one thing is bought: {name} must be 1, not {', '.join(map(str, numbers))}")
        for name in self.stages():
            if not self.taught.count:
                raise UserError(f"{name} goes on from what is taught first: set {name}.count to 0, or teach something")
            if source == "shop":
                raise UserError(f"{name} is of lists of questions, not of a shop: set {name}.count to 0")
        if source == "shop" and self.rules.context == "others":
            raise UserError("rules.context others is of searches for questions, not of a shop")

    def stages(self) -> dict[str, Stage]:
        """Further stages of the warm start that there are, in order."""
        stages = {"longer": self.longer, "answering": self.answering}
        return {name: stage for name, stage in stages.items() if stage.count}
