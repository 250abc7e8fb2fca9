"""Settings of every CMT cell. Plain values only: composing a table must not import torch.

Defaults are those of the tiny scale; the configs say where each value comes from.
"""

from dataclasses import dataclass, field

from common.experiments.errors import UserError, check_known

METHODS = ("none", "oracle", "rag", "uniform", "salient", "camels", "memory")
SETS = ("notes", "prose", "squad_sample", "squad", "archivalqa", "streamingqa")
PROMPTS = ("read", "recall", "plain")
COMPRESSORS = ("lora_lm", "encdec")


@dataclass(frozen=True)
class Data:
    """The stream that is adapted to.

    Attributes:
        name: notes | prose (styles of the text world) | squad_sample | squad | archivalqa | streamingqa.
        train: what meta-training draws documents from, of the same names; empty: `name` itself. Both styles of the text
            world can be trained together, and every column then shares what was trained.
        documents: N of the test stream; validation: of the validation stream. 0: all there are.
        checkpoints: numbers of documents after which the first block, up to the first of them, is asked again.
        questions: most per document at test; 0: all. Documents about known entities are asked about in full.
        old: questions about old knowledge, that no document touches; text world only.
        facts: of a document; updated: share of documents about entities that the frozen model knows, with new facts,
            in meta-training; a batch has at most one about each of the 12 of the training split, so that of stage 1's
            128 documents 12 are. Text world only.
        known: such documents in the validation and in the test stream, at most 12 and 24. Text world only.
        document_tokens, question_tokens: documents keep their first, questions their last tokens.
    """

    name: str = "notes"
    train: list[str] = field(default_factory=lambda: ["notes", "prose"])
    documents: int = 192
    validation: int = 48
    checkpoints: list[int] = field(default_factory=lambda: [24, 48, 96, 192])
    questions: int = 2
    old: int = 100
    facts: int = 4
    updated: float = 0.3
    known: int = 24
    document_tokens: int = 128
    question_tokens: int = 64

    def __post_init__(self) -> None:
        check_known(("data.name", self.name, SETS), *(("data.train", name, SETS) for name in self.train))
        if not self.checkpoints or self.checkpoints != sorted(set(self.checkpoints)) or self.checkpoints[0] < 1:
            raise UserError(f"data.checkpoints must rise from at least 1, not {self.checkpoints}")


@dataclass(frozen=True)
class Base:
    """The frozen language model.

    Attributes:
        model: a shipped model, a folder, or an id on the hub; empty: trained on the spot (`Scratch`).
        dtype: of its weights.
        quantize: nf4 | empty; of its linear layers, where nothing tunes them (`uniform`, `salient` and `camels` do).
        prompt: read | recall | plain; see `prompts.py`.
    """

    model: str = "microlm"
    dtype: str = "float32"
    quantize: str = ""
    prompt: str = "recall"


@dataclass(frozen=True)
class Scratch:
    """The small language model that is trained on passages with questions, for real text without a model of the user's.

    Attributes:
        words: of real text that its lexicon gets beside MicroLM's; any other word is spelled in bytes.
        steps, step_tokens, lr: of its training, which starts from MicroLM.
    """

    words: int = 6000
    steps: int = 600
    step_tokens: int = 1536
    lr: float = 2e-3


@dataclass(frozen=True)
class T5:
    """The encoder-decoder of `memory.compressor: encdec`.

    Attributes:
        model: a folder or an id on the hub; empty: from scratch, for the base's tokenizer.
        width, layers, heads, inner: of one from scratch; as many layers in the encoder as in the decoder.
    """

    model: str = ""
    width: int = 128
    layers: int = 2
    heads: int = 4
    inner: int = 384


@dataclass(frozen=True)
class Memory:
    """Compressor, matching and aggregation.

    Attributes:
        compressor: lora_lm (the base with adapters) | encdec (a T5 of its own).
        t5: of `encdec`; rank, alpha: of the LoRA of `lora_lm`.
        soft: m, vectors of a document, of a question, and of the prefix.
        matching: self | frozen (cosine of the frozen model's mean states, nothing trained) | none (no order).
        k: documents that are aggregated; 0: the whole bank.
        window: documents that are aggregated at a time, again and again until one window is left; 0 or in training:
            all at once.
        blocks, heads, head: cross-attention blocks of the aggregation, their heads and the size of one.
        residual: whether the mean of the selected memories, by their weights, is added to what was aggregated.
        inject: embed_prefix (vectors before the question) | kv_prefix (keys and values of each layer).
        dedup: one memory of equal documents.
    """

    soft: int = 8
    compressor: str = "lora_lm"
    rank: int = 32
    alpha: float = 64.0
    t5: T5 = field(default_factory=T5)
    matching: str = "self"
    k: int = 4
    window: int = 0
    blocks: int = 2
    heads: int = 4
    head: int = 32
    residual: bool = True
    inject: str = "embed_prefix"
    dedup: bool = True


@dataclass(frozen=True)
class Objective:
    """What stage 2 minimises, and how answers are decoded.

    Attributes:
        kind: nll | contrast | margin.
        alpha: weight of the frozen model's own output, of `contrast`, in training.
        decode: whether answers are decoded with the same contrast.
        mu, delta: weight and width of `margin`.
        match: infonce | none, with weight `match_weight`; gold documents enter training here alone.
        attend: weight of -log of the attention on the gold document, for methods that match nothing.
        temperature: τ at first; it is learned.
    """

    kind: str = "contrast"
    alpha: float = 0.5
    decode: bool = True
    mu: float = 1.0
    delta: float = 0.5
    match: str = "infonce"
    match_weight: float = 0.5
    attend: float = 0.0
    temperature: float = 0.1


@dataclass(frozen=True)
class Training:
    """Meta-training in two stages: what all methods with a memory share, then each method's own.

    Attributes:
        first_steps, first_batch, first_lr: of stage 1, with plain NLL, InfoNCE and the top `first_k`.
        first_told: share of its steps, the first ones, in which each question is given its gold document alone.
        first_soft: its soft tokens, of which stage 2 keeps the first `memory.soft`; 0: as many.
        first_seed: of its draws, one for all seeds, as of a downloaded checkpoint.
        steps, batch, lr: of stage 2, equal for all methods.
        bf16: whether stage 2 multiplies in bfloat16; parameters, their updates, matching and logits stay in float32.
        questions: most about each document of a batch; the batch is the bank in training.
        warmup, decay, clip: of AdamW; the rate falls over the last `decay` of a stage.
    """

    first_steps: int = 1141
    first_batch: int = 128
    first_lr: float = 2e-3
    first_k: int = 4
    first_told: float = 0.3
    first_soft: int = 0
    first_seed: int = 0
    steps: int = 100
    batch: int = 24
    lr: float = 5e-4
    bf16: bool = True
    questions: int = 4
    warmup: int = 40
    decay: float = 0.4
    clip: float = 1.0


@dataclass(frozen=True)
class Camels:
    """Meta-training of the token weights of `camels`.

    Attributes:
        model: of the weights' body and of meta-training, with the base's tokenizer; empty: the base itself.
        documents: of a lesson, learned one after another before the questions about them are answered.
        lessons: of an episode, which begins with the model's own weights; gradients do not reach from one to another.
        steps, lr: of Adam on the weights' network, an episode each.
        warmup, decay, clip: of the same; the rate falls over the last `decay` of the steps.
        inner_lr: of the step of SGD on a document, that gradients go through.
        locality: weight of the model's change on a question about another document.
    """

    model: str = ""
    documents: int = 4
    lessons: int = 1
    steps: int = 80
    lr: float = 3e-4
    warmup: int = 10
    decay: float = 1.0
    clip: float = 1.0
    inner_lr: float = 0.1
    locality: float = 0.1


@dataclass(frozen=True)
class OnlineTuning:
    """Fine-tuning on each document of the stream, for `uniform`, `salient` and `camels`.

    Attributes:
        rates: learning rates to choose from by F1 on the validation stream.
        steps: per document.
    """

    rates: list[float] = field(default_factory=lambda: [1e-4, 3e-4, 1e-3])
    steps: int = 2


@dataclass(frozen=True)
class Decoding:
    """How all methods answer the questions of the test stream; those of validation are answered greedily.

    Attributes:
        kind: greedy | beams (diverse beam search).
        beams, groups, diversity: of `beams`; see `common.models.frozen.Beams`.
    """

    kind: str = "greedy"
    beams: int = 12
    groups: int = 4
    diversity: float = 10.0


@dataclass(frozen=True)
class Settings:
    """One row of a table on one column.

    Attributes:
        method: of METHODS.
        tokens: most of an answer.
        encode: documents compressed at a time; save_every: documents between two saves of the bank.
        ask: questions answered at a time; memory only.
    """

    method: str = "memory"
    data: Data = field(default_factory=Data)
    base: Base = field(default_factory=Base)
    scratch: Scratch = field(default_factory=Scratch)
    memory: Memory = field(default_factory=Memory)
    objective: Objective = field(default_factory=Objective)
    training: Training = field(default_factory=Training)
    tuning: OnlineTuning = field(default_factory=OnlineTuning)
    camels: Camels = field(default_factory=Camels)
    decoding: Decoding = field(default_factory=Decoding)
    tokens: int = 8
    encode: int = 32
    save_every: int = 64
    ask: int = 64

    def __post_init__(self) -> None:
        memory = self.memory
        check_known(
            ("method", self.method, METHODS),
            ("base.prompt", self.base.prompt, PROMPTS),
            ("memory.compressor", memory.compressor, COMPRESSORS),
            ("memory.matching", memory.matching, ("self", "frozen", "none")),
            ("memory.inject", memory.inject, ("embed_prefix", "kv_prefix")),
            ("objective.kind", self.objective.kind, ("nll", "contrast", "margin")),
            ("objective.match", self.objective.match, ("infonce", "none")),
            ("decoding.kind", self.decoding.kind, ("greedy", "beams")),
        )
        if 0 < self.training.first_soft < memory.soft:
            raise UserError(f"training.first_soft: {self.training.first_soft} is less than memory.soft {memory.soft}")
        if memory.matching == "none" and memory.k:
            raise UserError(f"memory: without matching there is no top {memory.k}; take k: 0, the whole bank")
