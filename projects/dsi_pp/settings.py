"""Settings of every DSI++ cell. Plain values only: composing a table must not import torch.

Defaults are those of the tiny scale; the configs say where each value comes from.
"""

from dataclasses import dataclass, field

from common.experiments.errors import check_known

CORPORA = ("synthetic", "squad", "natural_questions", "ms_marco")
KINDS = ("atomic", "naive", "semantic")
OPTIMIZERS = ("adafactor", "adam")
REHEARSAL = ("none", "stored", "gen_first", "gen_new", "gen_all", "gen_shuffled", "stored_and_gen", "oracle")
INDEXED = ("new", "all")


@dataclass(frozen=True)
class Corpus:
    """The documents and their queries.

    Attributes:
        name: synthetic | squad | natural_questions | ms_marco.
        first: documents of D_0; increment: documents of each D_n; increments: how many D_n arrive.
        outside: documents outside all corpora, with their queries, to pre-train a from-scratch model.
        train_queries: real queries per document of D_0; withheld_queries: more of them, for the oracle control alone.
        held_queries: queries per document for validation, and as many for test.
        document_tokens, query_tokens: inputs are cut to their first tokens.
        language_seed: draws the synthetic language (topics, words), which all seeds share.
        topics, topic_words, rare_words: size of the synthetic language, in words.
        document_words, document_rare: words per synthetic document, and how many of them are rare words.
        query_words, query_rare: words per synthetic query, and how many of them are rare words of the document.
        synonyms: chance that a query word is replaced by its query-only synonym.
    """

    name: str = "synthetic"
    first: int = 200
    increment: int = 50
    increments: int = 5
    outside: int = 4000
    train_queries: int = 3
    withheld_queries: int = 7
    held_queries: int = 2
    document_tokens: int = 12
    query_tokens: int = 4
    language_seed: int = 0
    topics: int = 10
    topic_words: int = 20
    rare_words: int = 200
    document_words: int = 12
    document_rare: int = 4
    query_words: int = 4
    query_rare: int = 2
    synonyms: float = 0.3

    def __post_init__(self) -> None:
        check_known(("corpus.name", self.name, CORPORA))


@dataclass(frozen=True)
class Model:
    """The encoder-decoder that both the index and the query generator start from.

    Attributes:
        checkpoint: a transformers checkpoint (its tokenizer comes with it); empty: a T5 from scratch.
        vocabulary: text tokens of the from-scratch tokenizer; 0: one token per word.
        d_model, d_kv, d_ff, layers, decoder_layers, heads: sizes of the from-scratch T5.
        dropout: rate while training the index.
        pretrain_steps, pretrain_batch, pretrain_lr: document -> query training on the outside documents.
    """

    checkpoint: str = ""
    vocabulary: int = 0
    d_model: int = 64
    d_kv: int = 16
    d_ff: int = 128
    layers: int = 1
    decoder_layers: int = 1
    heads: int = 4
    dropout: float = 0.0
    pretrain_steps: int = 1200
    pretrain_batch: int = 64
    pretrain_lr: float = 3e-2


@dataclass(frozen=True)
class DocidChoice:
    """Document identifiers.

    Attributes:
        kind: atomic | naive | semantic.
        beams: beam width for Hits@k with string identifiers.
        branching: children per node of the semantic tree; leaf: documents a leaf may hold when the tree is built.
    """

    kind: str = "atomic"
    beams: int = 10
    branching: int = 10
    leaf: int = 10

    def __post_init__(self) -> None:
        check_known(("docids.kind", self.kind, KINDS))


@dataclass(frozen=True)
class Optimizer:
    """One update of the index.

    Attributes:
        name: adafactor | adam.
        lr: step size (adafactor: relative to the RMS of each parameter, as in T5X).
        warmup: updates over which the step size grows linearly, in every phase.
        sam_rho: radius of the SAM step; 0 is the plain optimizer.
    """

    name: str = "adafactor"
    lr: float = 2e-2
    warmup: int = 0
    sam_rho: float = 0.0


@dataclass(frozen=True)
class Generator:
    """The generative memory: fine-tuning on R_0 and sampling.

    Attributes:
        steps, batch, lr: updates on (document, query) pairs of R_0.
        queries: pseudo-queries per document; temperature, top_k: of the sampler.
    """

    steps: int = 30
    batch: int = 64
    lr: float = 3e-3
    queries: int = 20
    temperature: float = 1.0
    top_k: int = 10


@dataclass(frozen=True)
class Settings:
    """One row of a table.

    Attributes:
        index_documents: new | all; which documents the indexing task of an increment sees, D_n or U_n.
        rehearsal: none | stored | gen_first | gen_new | gen_all | gen_shuffled | stored_and_gen | oracle;
            see `method.REHEARSAL`.
        rehearsal_every: a rehearsal batch joins every so many updates.
        retrain: train from the base model on U_n after each increment instead of updating.
        first_steps, increment_steps: updates on D_0 and on each D_n.
        index_batch, query_batch: documents and (pseudo-)queries of one update.
        check_every: updates between two checks of what is memorised while training on D_0; 0: no checks.
        eval_batch: inputs per forward pass of an evaluation.
    """

    corpus: Corpus = field(default_factory=Corpus)
    model: Model = field(default_factory=Model)
    docids: DocidChoice = field(default_factory=DocidChoice)
    optimizer: Optimizer = field(default_factory=Optimizer)
    generator: Generator = field(default_factory=Generator)
    index_documents: str = "all"
    rehearsal: str = "gen_all"
    rehearsal_every: int = 1
    retrain: bool = False
    first_steps: int = 400
    increment_steps: int = 200
    index_batch: int = 32
    query_batch: int = 32
    check_every: int = 0
    eval_batch: int = 512

    def __post_init__(self) -> None:
        check_known(
            ("optimizer.name", self.optimizer.name, OPTIMIZERS),
            ("index_documents", self.index_documents, INDEXED),
            ("rehearsal", self.rehearsal, REHEARSAL),
        )
