"""Settings of every Amber cell. Plain values only: composing a table must not import torch.

Defaults are those of the tiny scale; the configs say where each value comes from.
"""

from dataclasses import dataclass, field

from common.experiments.errors import UserError, check_known
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings

FILTER = "filter"  # the row measures the filter by itself
METHODS = (
    *("amber", "no_retrieval", "vanilla_rag", "adaptive_rag", "flare", "self_rag", "react", "adaptive_note"),
    *("oracle", "shuffled"),
)
COLLECTORS = ("adaptive", "fixed", "single")
SOURCES = ("text_world", "mirror", "jsonl")
GENERATOR = {  # role -> its weight among what the generator is taught
    "draft": 3.0,
    "review": 2.0,
    "challenge": 2.0,
    "refine": 3.0,
    "sufficient": 1.5,
    "query": 1.5,
    "chunk": 3.0,
    "sentences": 4.0,
    "answer_memory": 1.5,
    "answer_passages": 3.0,
    "closed_book": 0.7,
    "act": 2.0,
    "reflect": 1.5,
    "better": 0.8,
}


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        source: text_world, mirror (samples in the data mirror) or jsonl (files of your own).
        sets: names of question sets: of `data.SETS`, of `data.MIRROR`, or of folders.
        count: most questions of each set.
        folder: of source jsonl, under the data mirror: `passages.jsonl`, and `<set>/questions.jsonl` for each set.
    """

    source: str = "text_world"
    sets: list[str] = field(default_factory=lambda: ["squad", "nq", "triviaqa", "2wiki", "hotpotqa", "asqa"])
    count: int = 20
    folder: str = ""

    def __post_init__(self) -> None:
        check_known(("questions.source", self.source, SOURCES))
        if not self.sets or self.count < 1:
            raise UserError("questions: name at least one set, and at least one question of it")


@dataclass(frozen=True)
class TextWorld:
    """The text world that training and test worlds are drawn from.

    Attributes:
        people, cities, companies, countries: entities of each type.
        look_alikes, homonyms, density: see `text_world.world.Dials`.
        passages: passages of a corpus.
        fewest, most: facts of one passage.
        others, fillers: chance of a sentence about another entity, and of one without facts, in a passage.
        train_worlds: worlds of the train split that demonstrations are drawn from.
    """

    people: int = 24
    cities: int = 12
    companies: int = 8
    countries: int = 5
    look_alikes: float = 0.3
    homonyms: float = 0.3
    density: float = 0.5
    passages: int = 96
    fewest: int = 4
    most: int = 5
    others: float = 0.4
    fillers: float = 0.3
    train_worlds: int = 48


@dataclass(frozen=True)
class Loop:
    """Amber's loop, and what an ablation takes from it.

    Attributes:
        k: passages of a retrieval.
        rounds: T_max, most retrievals.
        review: False is `w/o AMU`: the draft is the new memory.
        collector: adaptive; `fixed` always takes T_max rounds with the question as query; `single` takes one round.
        chunk_filter, sentence_filter: the two levels of MCF.
        shuffle_critiques: control: review and challenge of another question reach the refiner.
        doubt: FLARE retrieves again below this probability of an answer's token.
        passage_characters: passages are cut to so many; what was cut is counted.
    """

    k: int = 3
    rounds: int = 3
    review: bool = True
    collector: str = "adaptive"
    chunk_filter: bool = True
    sentence_filter: bool = True
    shuffle_critiques: bool = False
    doubt: float = 0.5
    passage_characters: int = 2000


@dataclass(frozen=True)
class Limits:
    """Most new tokens of a role's answer."""

    answer: int = 24
    memory: int = 72
    critique: int = 32
    query: int = 16
    sentences: int = 64
    word: int = 4


@dataclass(frozen=True)
class FilterTraining:
    """How the filter is trained.

    Attributes:
        labels: which scores label sentences and passages: strinc, cxmi, evidence.
        margin: the least CXMI of a useful sentence, natural log.
        questions: training questions that are labelled.
        train: without training the generator itself filters.
        tuning: of the copy of the generator.
    """

    labels: list[str] = field(default_factory=lambda: ["strinc", "cxmi", "evidence"])
    margin: float = 1.0
    questions: int = 300
    train: bool = True
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=120, lr=7e-4))


@dataclass(frozen=True)
class RouterTraining:
    """How the router of Adaptive-RAG is trained: on silver labels of training questions; or the generator routes."""

    questions: int = 240
    train: bool = True
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=60, step_tokens=1024, lr=7e-4))


@dataclass(frozen=True)
class Settings:
    """One row of a table on one column.

    Attributes:
        method: of METHODS, or FILTER.
        retriever: a name of `common.retrievers.build`.
        encoder: of a dense retriever.
        lm: the base; with `taught.count` 0 it is used as it is.
        taught: what the generator is taught, by role.
        tuning: of the generator.
    """

    method: str = "amber"
    questions: Questions = field(default_factory=Questions)
    world: TextWorld = field(default_factory=TextWorld)
    loop: Loop = field(default_factory=Loop)
    limits: Limits = field(default_factory=Limits)
    retriever: str = "bm25"
    encoder: str = ""
    lm: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings("microlm"))
    taught: Teaching = field(default_factory=lambda: Teaching(4000, dict(GENERATOR)))
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=300))
    filter: FilterTraining = field(default_factory=FilterTraining)
    router: RouterTraining = field(default_factory=RouterTraining)

    def __post_init__(self) -> None:
        check_known(
            ("method", self.method, (*METHODS, FILTER)),
            ("loop.collector", self.loop.collector, COLLECTORS),
        )
        trained = self.taught.count or self.filter.train or self.router.train
        if self.questions.source != "text_world" and trained:
            raise UserError(
                "lessons are of the text world: set taught.count to 0, filter.train and router.train to false"
            )
