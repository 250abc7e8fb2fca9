"""Settings of every WISE cell. Plain values only: composing a table must not import torch.

Defaults are those of the tiny scale; the configs say where each value comes from.
"""

from dataclasses import dataclass, field

from common.experiments.errors import check_known

SETS = ("facts", "zsre", "counterfact", "hallucination", "temporal")
EDITORS = ("none", "ft_l", "ft_ewc", "rome", "memit", "grace", "defer", "wise")
MERGES = ("ties", "linear", "slerp", "dare", "dare_ties", "sign")


@dataclass(frozen=True)
class Data:
    """What is edited.

    Attributes:
        name: facts (those that MicroLM's fact-bearing variant knows) | zsre | counterfact | hallucination | temporal.
        edits: T, made in sequence on one model; scored after the last.
        blocks: runs of T different edits each, averaged; the model is rolled back after each.
        paraphrases: of each fact; near: facts of the edited relations that no edit touches, for `near`.
    """

    name: str = "facts"
    edits: int = 100
    blocks: int = 1
    paraphrases: int = 1
    near: int = 100

    def __post_init__(self) -> None:
        check_known(("data.name", self.name, SETS))


@dataclass(frozen=True)
class Contexts:
    """Texts of the unedited model that are put before an edited prompt, for all editors that take them.

    Attributes:
        count: how many; tokens: of each; openings: what they begin with.
    """

    count: int = 3
    tokens: int = 10
    openings: list[str] = field(default_factory=lambda: ["I", "You", "Because", "Yes", "Q: "])


@dataclass(frozen=True)
class FineTuningOptions:
    """FT-L and FT-EWC. Attributes: see `FineTuning`; `radius` 0 is none; `weight` is EWC's λ, `memory` its items."""

    layer: int = 2
    lr: float = 5e-4
    steps: int = 50
    optimizer: str = "adam"
    stop: float = 0.0
    radius: float = 0.0
    weight: float = 0.1
    memory: int = 10


@dataclass(frozen=True)
class LocatedOptions:
    """ROME and MEMIT. Attributes: see `Rome`, `Memit`, `Search`; `samples` texts of `sample_tokens` give C, ridged.

    `mass`: MEMIT writes all edits in one call, as if they came together.
    """

    layers: list[int] = field(default_factory=lambda: [1])
    strength: float = 15_000.0
    mass: bool = False
    lr: float = 0.5
    steps: int = 20
    kl: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    stop: float = 0.05
    samples: int = 400
    sample_tokens: int = 24
    ridge: float = 0.01


@dataclass(frozen=True)
class MemoryOptions:
    """GRACE and DEFER. Attributes: see `Grace`, `Defer`."""

    layer: int = 2
    lr: float = 1.0
    steps: int = 100
    stop: float = 0.0
    radius: float = 1.0


@dataclass(frozen=True)
class WiseOptions:
    """WISE; the defaults of layer-independent values are the paper's.

    Attributes:
        layer: whose value matrix has a side memory. 27 of 32 (App. A.3).
        lr: of SGD; 1.0 (Table 10). steps: most for one edit; 70 in the code, the paper is silent.
        stop_loss, stop_change: an edit ends once its loss is at most the one and moved by at most the other; code.
        rho: share of entries that a shard may train; 0.2 (Table 10).
        alpha, beta, gamma: margins of L_a; 5, 20, 10 (Table 10). margins: whether L_a is on (off: Table 7).
        hinge: all | code; see `margin_loss`.
        shards: k; 2 (Table 10). shard_edits: edits of a shard; 500 in the code for T = 1000.
        disjoint: masks without common entries (Table 13).
        merge: ties | linear | slerp | dare | dare_ties | sign (Table 11). density: of TIES and DARE; 0.53 in the code.
        variant: merge (the paper's main tables) | retrieve (the code's default).
        route: score | side (no router: always the side memory) | oracle (told which prompts were edited).
        score: paper | code; see `token_scores`, `scores`, `route_code`.
        act_ratio: multiplies ε; 1 in the paper, 0.88 in the code.
        weight_decay: 0; 1e-5 in the code, on frozen entries too.
        norm_constraint: most that an entry may leave W_v; 1.0 in the code, where it is practically inactive.
    """

    layer: int = 2
    lr: float = 1.0
    steps: int = 70
    stop_loss: float = 0.02
    stop_change: float = 1e-4
    rho: float = 0.2
    alpha: float = 5.0
    beta: float = 20.0
    gamma: float = 10.0
    margins: bool = True
    hinge: str = "all"
    shards: int = 2
    shard_edits: int = 50
    disjoint: bool = False
    merge: str = "ties"
    density: float = 0.53
    variant: str = "merge"
    route: str = "score"
    score: str = "paper"
    act_ratio: float = 1.0
    weight_decay: float = 0.0
    norm_constraint: float = 1.0


@dataclass(frozen=True)
class Settings:
    """One row of a table on one column.

    Attributes:
        model: a shipped model, a folder, or an id on the hub. dtype: of its weights.
        editor: a key of EDITORS in `editors.py`; `none` is the unedited model.
        eval_batch: rows of a pass when scores are taken; memory only.
    """

    model: str = "microlm-facts"
    dtype: str = "float32"
    editor: str = "wise"
    data: Data = field(default_factory=Data)
    contexts: Contexts = field(default_factory=Contexts)
    tuning: FineTuningOptions = field(default_factory=FineTuningOptions)
    located: LocatedOptions = field(default_factory=LocatedOptions)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    wise: WiseOptions = field(default_factory=WiseOptions)
    eval_batch: int = 128

    def __post_init__(self) -> None:
        check_known(
            ("editor", self.editor, EDITORS),
            ("tuning.optimizer", self.tuning.optimizer, ("adam", "sgd")),
            ("wise.merge", self.wise.merge, MERGES),
            ("wise.variant", self.wise.variant, ("merge", "retrieve")),
            ("wise.route", self.wise.route, ("score", "side", "oracle")),
            ("wise.score", self.wise.score, ("paper", "code")),
            ("wise.hinge", self.wise.hinge, ("all", "code")),
        )
