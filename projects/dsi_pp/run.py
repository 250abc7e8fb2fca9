"""DSI++: one row of a table at one seed. D_0 is indexed, D_1..D_n arrive without queries, and P[n][o] is measured.

Reads from top to bottom: `run`, then the phases it names. Pieces that rows of one seed share (the pre-trained base, the
model after D_0, the pseudo-queries) are artifacts, so rows differ in their settings and the order of their batches.
Every training goes on from its checkpoint where an attempt of the cell was stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from common.evaluators.continual import (
    average_performance,
    forgetting,
    forgetting_events,
    learning,
    never_learned,
    stably_memorised,
)
from common.evaluators.ranking import hits_at_k
from common.experiments.context import Context, Result
from common.experiments.randomness import seed_phase
from common.files import write_atomically
from common.training.preemption import heeding
from common.training.resumable import Resumable, Tensors
from projects.dsi_pp.data import Benchmark, load_benchmark
from projects.dsi_pp.docids import Docids, Special, issue, rank
from projects.dsi_pp.method import (
    GENERATIVE,
    REHEARSAL,
    GenerativeMemory,
    PseudoByDocument,
    Rehearsed,
    plain_step,
    sam_step,
    sequence_loss,
    stored,
)
from projects.dsi_pp.seq2seq import (
    INDEX,
    RETRIEVE,
    add_docid_tokens,
    build_model,
    build_tokenizer,
    join,
    pack,
    text_vocabulary,
)
from projects.dsi_pp.settings import Settings

OPTIMIZERS = {"adafactor": torch.optim.Adafactor, "adam": torch.optim.Adam}


def run(settings: Settings, context: Context) -> Result:
    """Train on D_0, take in D_1..D_n, measure after every step.

    Raises:
        UserError: missing data.
    """
    context.checkpoint.mkdir(parents=True, exist_ok=True)  # what was logged belongs to what goes on from here
    task = Task.load(settings, context)
    model, checks = first_model(task, context)
    P = rows_so_far(context)
    if not P:
        add_row(P, evaluate(task, model, 0), settings, context)
    pseudo = pseudo_queries(task, context) if settings.rehearsal in GENERATIVE else PseudoQueries()
    for n in range(max(1, len(P) - 1), settings.corpus.increments + 1):
        model = take_in(task, context, model, n, pseudo.queries)
        if n == len(P):
            add_row(P, evaluate(task, model, n), settings, context)
    save_matrix(P, context)
    updates = updates_before(settings, settings.corpus.increments + 1)
    return Result(metrics={**summary(P), **memorised(checks), **costs(settings, updates, pseudo)})


def take_in(
    task: "Task", context: Context, model: T5ForConditionalGeneration, n: int, pseudo: PseudoByDocument
) -> T5ForConditionalGeneration:
    """Step n: update the model on what the row indexes and rehearses, or train a new one on the same."""
    model = base_model(task, context) if task.settings.retrain else model
    seed_phase(context.seed, f"increment-{n}")
    train(task, model, increment_batches(task, n, pseudo), n, checkpoint_of(context, n), context.log)
    return model


# --- what an interrupted attempt left -----------------------------------------------------------------------------


def checkpoint_of(context: Context, n: int) -> Path:
    """Folder of step n's checkpoint; the last step that was measured keeps it, for the next to start from."""
    return context.checkpoint / f"increment-{n}"


def rows_so_far(context: Context) -> list["Row"]:
    """Rows of P that earlier attempts measured."""
    path = context.checkpoint / "matrix.json"
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def add_row(P: list["Row"], row: "Row", settings: Settings, context: Context) -> None:
    """Log and note row n of every P; the model before step n is needed no longer."""
    P.append(row)
    n = len(P) - 1
    context.log(updates_before(settings, n + 1), val_a_hits10=average_performance([row["val_hits10"] for row in P]))
    write_atomically(context.checkpoint / "matrix.json", json.dumps(P))
    if (before := checkpoint_of(context, n - 1)).exists():
        shutil.rmtree(before)


# --- the pieces ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Everything that all rows of one seed have in common, tokenised once.

    Attributes:
        documents: indexing inputs of U_n by document number, int64 [N, L]; labels: their docids, int64 [N, T].
        questions: per split, retrieval inputs [Q, L] and the gold document of each [Q], in order of documents.
    """

    settings: Settings
    benchmark: Benchmark
    tokenizer: PreTrainedTokenizerBase
    docids: Docids
    device: torch.device
    documents: Tensor
    labels: Tensor
    questions: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def load(cls, settings: Settings, context: Context) -> "Task":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        benchmark = load_benchmark(settings.corpus, context.seed, context.data)
        tokenizer = build_tokenizer(settings.model, tokenizer_texts(benchmark))
        union = benchmark.union(settings.corpus.increments)
        texts = [document.text for document in union]
        special = Special(text_vocabulary(settings.model, tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
        docids = issue(settings.docids, texts, settings.corpus.first, context.seed, special)
        documents = pack(tokenizer, INDEX, texts, settings.corpus.document_tokens).to(device)
        questions = {}
        for split in ("validation", "test"):
            rows = [(query, number) for number, document in enumerate(union) for query in getattr(document, split)]
            gold = torch.tensor([number for _, number in rows])
            questions[split] = (retrieval_inputs(settings, tokenizer, [query for query, _ in rows]).to(device), gold)
        return cls(settings, benchmark, tokenizer, docids, device, documents, docids.labels().to(device), questions)


def tokenizer_texts(benchmark: Benchmark) -> Iterator[str]:
    """Text that shapes the tokenizer: what is outside all corpora; without any, D_0 and its training queries."""
    for document in benchmark.outside or benchmark.corpora[0]:
        yield document.text
        yield from document.train


def retrieval_inputs(settings: Settings, tokenizer: PreTrainedTokenizerBase, queries: Sequence[str]) -> Tensor:
    """Queries with the retrieval prefix, int64 [Q, L]."""
    return pack(tokenizer, RETRIEVE, queries, settings.corpus.query_tokens)


def base_model(task: Task, context: Context) -> T5ForConditionalGeneration:
    """The pre-trained encoder-decoder with fresh docid embeddings: what D_0, and every re-training, starts from."""
    model = pretrained(task, context)
    seed_phase(context.seed, "docid-embeddings")
    add_docid_tokens(model, task.docids.count)
    return model.to(task.device)


def pretrained(task: Task, context: Context) -> T5ForConditionalGeneration:
    """The checkpoint; from scratch, a T5 trained on the outside documents to generate their queries (Deviation 1)."""
    model, settings = task.settings.model, task.settings
    seed_phase(settings.corpus.language_seed, "from-scratch")  # one checkpoint for all seeds, like T5
    base = build_model(model, len(task.tokenizer))
    if model.checkpoint or not model.pretrain_steps:
        return base.to(task.device)
    outside = [(document.text, query) for document in task.benchmark.outside for query in document.train]

    def build(folder: Path) -> None:
        seed_phase(settings.corpus.language_seed, "pretraining")
        optimizer = torch.optim.Adafactor(base.parameters(), lr=model.pretrain_lr)
        memory_of(task, base).fit(outside, optimizer, model.pretrain_steps, model.pretrain_batch, folder / "checkpoint")
        save_model(base, str(folder / "model.safetensors"))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # none after no steps

    lengths = (settings.corpus.document_tokens, settings.corpus.query_tokens)
    key = {"model": asdict(model), "outside": fingerprint(outside), "lengths": lengths}
    load_model(base, context.artifact("pretrained", key, build) / "model.safetensors")
    return base.to(task.device)


def memory_of(task: Task, model: T5ForConditionalGeneration) -> GenerativeMemory:
    """A generative memory around `model`."""
    corpus = task.settings.corpus
    return GenerativeMemory(model.to(task.device), task.tokenizer, corpus.document_tokens, corpus.query_tokens)


def first_model(task: Task, context: Context) -> tuple[T5ForConditionalGeneration, Tensor]:
    """The index after D_0 and its real queries, and the checks of what was memorised on the way, bool [T, N]."""
    settings = task.settings
    model = base_model(task, context)

    def build(folder: Path) -> None:
        seed_phase(context.seed, "first")
        checks = train(task, model, first_batches(task), 0, folder / "checkpoint", context.log)
        save_model(model, str(folder / "model.safetensors"))
        save_file({"checks": checks}, folder / "checks.safetensors")
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # none after no steps

    names = ("corpus", "model", "docids", "optimizer", "first_steps", "index_batch", "query_batch", "check_every")
    folder = context.artifact("first", {name: asdict(settings)[name] for name in names} | {"seed": context.seed}, build)
    load_model(model, folder / "model.safetensors")
    return model, load_file(folder / "checks.safetensors")["checks"]


@dataclass(frozen=True)
class PseudoQueries:
    """Sampled queries by document number; how many were sampled, how many equalled a test query and were removed."""

    queries: PseudoByDocument = field(default_factory=list)
    sampled: int = 0
    removed: int = 0
    generator_updates: int = 0


def pseudo_queries(task: Task, context: Context) -> PseudoQueries:
    """The generative memory, trained on R_0 only, asked about every document of U_n."""
    settings, union = task.settings, task.benchmark.union(task.settings.corpus.increments)

    def build(folder: Path) -> None:
        choice, memory = settings.generator, memory_of(task, pretrained(task, context))
        seed_phase(context.seed, "generator")
        optimizer = torch.optim.Adafactor(memory.model.parameters(), lr=choice.lr)
        pairs = [(document.text, query) for document in task.benchmark.corpora[0] for query in document.train]
        memory.fit(pairs, optimizer, choice.steps, choice.batch, folder / "checkpoint" / "training")
        sampled = memory.sample(
            [document.text for document in union],
            choice.queries,
            choice.temperature,
            choice.top_k,
            folder=folder / "checkpoint" / "sampling",
        )
        (folder / "queries.json").write_text(json.dumps(sampled))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # none after no steps

    names = ("corpus", "model", "generator")
    key = {name: asdict(settings)[name] for name in names} | {"seed": context.seed}
    folder = context.artifact("pseudo-queries", key, build)
    sampled = json.loads((folder / "queries.json").read_text())
    known = {query for document in union for query in document.test}
    kept = [[query for query in queries if query and query not in known] for queries in sampled]
    removed = sum(query in known for queries in sampled for query in queries)
    return PseudoQueries(kept, sum(map(len, sampled)), removed, settings.generator.steps)


# --- training -----------------------------------------------------------------------------------------------------

INDEXED: dict[str, Callable[[Benchmark, int], range]] = {
    "new": lambda benchmark, n: benchmark.bounds(n),
    "all": lambda benchmark, n: range(benchmark.bounds(n).stop),
}


Batch = tuple[Tensor, Tensor]  # inputs [B, L], labels [B, T]


class Epochs:
    """Endless mini-batches of positions 0..count-1, every epoch shuffled anew; torch's global generator."""

    def __init__(self, count: int) -> None:
        self._count, self._waiting = count, torch.arange(0)

    def draw(self, size: int) -> Tensor:
        while len(self._waiting) < size:
            self._waiting = torch.cat([self._waiting, torch.randperm(self._count)])
        drawn, self._waiting = self._waiting[:size], self._waiting[size:]
        return drawn

    def state_dict(self) -> dict[str, Tensor]:
        return {"waiting": self._waiting}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._waiting = state["waiting"]


class Documents:
    """Indexing task: documents with their docids."""

    def __init__(self, task: Task, numbers: range, size: int) -> None:
        self._task, self._numbers, self._size, self.order = task, numbers, size, Epochs(len(numbers))

    def draw(self) -> Batch:
        chosen = (self.order.draw(self._size) + self._numbers.start).to(self._task.device)
        return self._task.documents[chosen], self._task.labels[chosen]


class Queries:
    """Retrieval task: documents uniformly (trap 10), then one of the document's queries uniformly."""

    def __init__(self, task: Task, rehearsed: Rehearsed, size: int) -> None:
        numbers = [number for number, queries in rehearsed.items() if queries]
        texts = [query for number in numbers for query in rehearsed[number]]
        self._task, self._size, self.order = task, size, Epochs(len(numbers))
        self._inputs = retrieval_inputs(task.settings, task.tokenizer, texts).to(task.device)
        self._counts = torch.tensor([len(rehearsed[number]) for number in numbers])
        self._starts = self._counts.cumsum(0) - self._counts
        self._owners = torch.tensor(numbers)

    def draw(self) -> Batch:
        rows, device = self.order.draw(self._size), self._task.device
        queries = self._starts[rows] + (torch.rand(self._size) * self._counts[rows]).long()
        return self._inputs[queries.to(device)], self._task.labels[self._owners[rows].to(device)]


@dataclass(frozen=True)
class Mixture:
    """Indexing rows in every update, rehearsal rows beside them in every `every`-th; `pad` fills narrower inputs."""

    documents: Documents
    queries: Queries | None
    every: int
    pad: int

    def draw(self, step: int) -> Batch:
        """The batch of step `step`, counted from 1; steps are drawn in order."""
        inputs, labels = self.documents.draw()
        if self.queries is None or (step - 1) % self.every:
            return inputs, labels
        more_inputs, more_labels = self.queries.draw()
        return join(inputs, more_inputs, fill=self.pad), torch.cat([labels, more_labels])

    @property
    def orders(self) -> dict[str, Epochs]:
        """What the next batch depends on, besides the generator."""
        return {"documents": self.documents.order} | ({"queries": self.queries.order} if self.queries else {})


def first_batches(task: Task) -> Mixture:
    """D_0: its documents, and its real queries R_0."""
    settings = task.settings
    documents = Documents(task, task.benchmark.bounds(0), settings.index_batch)
    queries = Queries(task, stored(task.benchmark, 0, []), settings.query_batch)
    return Mixture(documents, queries, 1, task.docids.special.pad)


def increment_batches(task: Task, n: int, pseudo: PseudoByDocument) -> Mixture:
    """Step n: documents of D_n or U_n, and what the row rehearses."""
    settings = task.settings
    rehearsed = REHEARSAL[settings.rehearsal](task.benchmark, n, pseudo)
    documents = Documents(task, INDEXED[settings.index_documents](task.benchmark, n), settings.index_batch)
    queries = Queries(task, rehearsed, settings.query_batch) if rehearsed else None
    return Mixture(documents, queries, settings.rehearsal_every, task.docids.special.pad)


def increment_steps(settings: Settings, n: int) -> int:
    """Updates of step n; re-training on U_n makes as many passes over U_n as the first training made over D_0."""
    corpus = settings.corpus
    passes = 1 + n * corpus.increment / corpus.first
    return round(settings.first_steps * passes) if settings.retrain else settings.increment_steps


def updates_before(settings: Settings, n: int) -> int:
    """Updates of steps 1 to n - 1 together."""
    return sum(increment_steps(settings, before) for before in range(1, n))


LOOKS = 8  # at most, the last at the end, at the validation queries while D_0 is trained


@heeding()
def train(
    task: Task,
    model: T5ForConditionalGeneration,
    batches: Mixture,
    n: int,
    folder: Path | None,
    log: Callable[..., None],
) -> Tensor:
    """Step n (0: D_0): update the model in place, going on from the checkpoint in `folder`.

    The optimizer starts afresh at every step, for all rows alike (Deviation 6).

    Returns:
        Which documents of D_0 each check found memorised while training on it, bool [T, |D_0|].
    """
    settings, choice, parameters = task.settings, task.settings.optimizer, list(model.parameters())
    steps = increment_steps(settings, n) if n else settings.first_steps
    optimizer = OPTIMIZERS[choice.name](parameters, lr=choice.lr)
    update = partial(sam_step, rho=choice.sam_rho) if choice.sam_rho else plain_step
    unissued = task.docids.unissued(task.benchmark.bounds(n).stop).to(task.device)
    checks, done = Tensors(), updates_before(settings, n)
    parts = {"model": model, "optimizer": optimizer, "checks": checks, **batches.orders}
    state = Resumable(folder, parts, {"n": n, "steps": steps, **asdict(choice)})
    for step in range(state.done + 1, steps + 1):
        inputs, labels = batches.draw(step)
        for group in optimizer.param_groups:
            group["lr"] = choice.lr * min(1.0, step / max(1, choice.warmup))
        model.train()
        loss = update(partial(sequence_loss, model, inputs, labels, unissued), parameters, optimizer)
        if step % 50 == 0:
            log(done + step, **{f"loss_{'increments' if n else 'first'}": loss.item()})
        if n == 0 and (step == steps or step % -(-steps // LOOKS) == 0):
            log(step, val_first_hits1=validation_hits1(task, model))
        if n == 0 and settings.check_every and step % settings.check_every == 0:
            checks.append(torch.tensor(memorised_now(task, model, len(task.benchmark.corpora[0]))))
        state.after(step, last=step == steps)
    return torch.stack(checks) if checks else torch.zeros(0, 0, dtype=torch.bool)


# --- measuring ----------------------------------------------------------------------------------------------------

METRICS = ("index", "hits1", "hits10", "val_hits1", "val_hits10")
Row = dict[str, list[float]]  # metric -> P[n][0..n]


def rank_all(task: Task, model: T5ForConditionalGeneration, inputs: Tensor, issued: int, k: int) -> list[list[int]]:
    """Rankings of any number of inputs, [N, L], in chunks; greedy for k = 1."""
    model.eval()
    beams = task.settings.docids.beams if k > 1 else 1
    chunks = torch.split(inputs, task.settings.eval_batch)
    return [ranking for chunk in chunks for ranking in rank(model, chunk, task.docids, issued, k, beams)]


def memorised_now(task: Task, model: T5ForConditionalGeneration, issued: int) -> list[bool]:
    """For each issued document, whether its greedy docid is exactly right from its own indexed text."""
    rankings = rank_all(task, model, task.documents[:issued], issued, 1)
    return [ranking == [number] for number, ranking in enumerate(rankings)]


def validation_hits1(task: Task, model: T5ForConditionalGeneration) -> float:
    """Hits@1 on the validation queries of D_0, greedily."""
    issued = task.benchmark.bounds(0).stop
    inputs, gold = task.questions["validation"]
    owners = gold[gold < issued].tolist()
    return hits_at_k(rank_all(task, model, inputs[: len(owners)], issued, 1), owners, 1)


def evaluate(task: Task, model: T5ForConditionalGeneration, n: int) -> Row:
    """Row n of every P: indexing accuracy, and Hits@1 and Hits@10 on test and validation queries, of D_0..D_n."""
    issued = task.benchmark.bounds(n).stop
    right = memorised_now(task, model, issued)
    row: Row = {name: [] for name in METRICS}
    bounds = [task.benchmark.bounds(o) for o in range(n + 1)]
    row["index"] = [sum(right[o.start : o.stop]) / len(o) for o in bounds]
    for split, mark in (("test", ""), ("validation", "val_")):
        inputs, gold = task.questions[split]
        count = int((gold < issued).sum())
        rankings, owners = rank_all(task, model, inputs[:count], issued, 10), gold[:count].tolist()
        for o in bounds:
            inside = [i for i, owner in enumerate(owners) if owner in o]
            for k in (1, 10):
                row[f"{mark}hits{k}"].append(hits_at_k([rankings[i] for i in inside], [owners[i] for i in inside], k))
    return row


def summary(rows: list[Row]) -> dict[str, float]:
    """A_n, F_n and LA_n of every metric (F_n, LA_n if there was an increment), and the metrics on D_0 after D_0."""
    figures = {}
    for name in METRICS:
        P = [row[name] for row in rows]
        mark, short = ("val_", name.removeprefix("val_")) if name.startswith("val_") else ("", name)
        figures[f"{mark}first_{short}"] = P[0][0]
        figures[f"{mark}a_{short}"] = average_performance(P)
        if len(P) > 1:
            figures[f"{mark}f_{short}"] = forgetting(P)
            figures[f"{mark}la_{short}"] = learning(P)
    return figures


def memorised(checks: Tensor) -> dict[str, float]:
    """Shares of D_0 with a forgetting event, stably memorised and never learned while training on D_0, if checked.

    Args:
        checks: as `train` returns them, bool [T, |D_0|].
    """
    if not len(checks):
        return {}
    events = forgetting_events(checks.numpy())
    return {
        "share_forgotten": float((events > 0).mean()),
        "share_stable": float(stably_memorised(checks.numpy()).mean()),
        "share_never_learned": float(never_learned(checks.numpy()).mean()),
        "events_per_document": float(events.mean()),
    }


def costs(settings: Settings, updates: int, pseudo: PseudoQueries) -> dict[str, float]:
    """Updates on the increments and their gradient passes; updates on D_0; what the generative memory adds."""
    passes = 2 if settings.optimizer.sam_rho else 1
    figures = {
        "updates": updates,
        "gradient_passes": passes * updates,
        "first_updates": settings.first_steps,
        "first_passes": passes * settings.first_steps,
    }
    if pseudo.generator_updates:
        figures |= {
            "generator_updates": pseudo.generator_updates,
            "pseudo_sampled": pseudo.sampled,
            "pseudo_removed": pseudo.removed,
        }
    return {name: float(value) for name, value in figures.items()}


def save_matrix(rows: list[Row], context: Context) -> None:
    """Every P[n][o] as items."""
    items = [
        {"metric": name, "n": n, "o": o, "value": value}
        for n, row in enumerate(rows)
        for name in METRICS
        for o, value in enumerate(row[name])
    ]
    context.save_items("matrix", items)


def fingerprint(value: object) -> str:
    """Short hash of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
