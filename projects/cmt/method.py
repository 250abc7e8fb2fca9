"""CMT (Li et al., AAAI 2025; arXiv:2412.07393v1): documents as a few vectors in a bank, for a frozen language model.

Only the abstract could be read: every equation here is a reconstruction (README), each behind a name in `settings.py`.

Shapes: B documents of a step, N of the bank, Q questions, S selected documents, m soft tokens, D hidden size, V words.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize

from common.memory.dense_bank import DenseBank
from common.models.compressor import Compressor, EncoderDecoder, fresh_t5, keep_first, pretrained_t5
from common.models.frozen import Beams, FrozenLM, Prefix, complete
from common.models.kv_cache import attending_layers, key_shape
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Memory, Objective

SHARPNESS = 2.0  # of attention that starts from the matching, over that of a usual scaled product: our choice


def full_precision(near: Tensor) -> torch.autocast:
    """Inside, products are in their operands' own precision, where those of training are in bfloat16."""
    return torch.autocast(near.device.type, enabled=False)


# --- self-matching and top-k --------------------------------------------------------------------------------------


def match(queries: Tensor, keys: Tensor) -> Tensor:
    """s_i = cos(q, κ_i), in float32 whatever the training's own products are: [Q, K] and [N, K] give [Q, N]."""
    with full_precision(queries):
        return normalize(queries.float(), dim=-1) @ normalize(keys.float(), dim=-1).T


def top_k(scores: Tensor, k: int, temperature: Tensor | float) -> tuple[Tensor, Tensor]:
    """The k best documents and their log-weights.

        K(x) = the k largest s_i;  w = softmax(s_K / τ)

    Args:
        scores: [Q, N]. k: 0 or k >= N takes all documents; k = 1 is a hard choice, of weight 1.

    Returns:
        Rows [Q, S], best first, the lower one of equals first; log w [Q, S].
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True)
    count = min(k, scores.shape[-1]) if k else scores.shape[-1]
    return order.indices[:, :count], (order.values[:, :count] / temperature).log_softmax(-1)


def match_loss(scores: Tensor, gold: Tensor, temperature: Tensor | float) -> Tensor:
    """L_match = -log softmax_i(s_i / τ)[i*], mean over questions; gold: [Q] rows of the documents asked about."""
    return cross_entropy(scores / temperature, gold)


# --- memory-aware objective ---------------------------------------------------------------------------------------


def contrast(z_mem: Tensor, z_0: Tensor, alpha: float) -> Tensor:
    """z̃ = (1 + α) z_mem - α z_0, [T, V]: logits of the same tokens with and without the memory; α = 0 is z_mem."""
    return (1 + alpha) * z_mem - alpha * z_0


def answer_loss(objective: Objective, z_mem: Tensor, z_0: Tensor | None, targets: Tensor) -> Tensor:
    """L_MA, mean over the answers' tokens, in nats.

        nll         -log softmax(z_mem)[y]
        contrast    -log softmax(z̃)[y]
        margin      NLL_mem + μ max(0, δ + NLL_mem - NLL_0), the last term a constant

    Args:
        z_mem, z_0: logits of the answers' tokens, [T, V]; z_0 has no gradient, and is None for `nll`.
        targets: [T].
    """
    if objective.kind == "nll" or z_0 is None:
        return cross_entropy(z_mem, targets)
    if objective.kind == "contrast":
        return cross_entropy(contrast(z_mem, z_0, objective.alpha), targets)
    with_memory = cross_entropy(z_mem, targets)
    return with_memory + objective.mu * (objective.delta + with_memory - cross_entropy(z_0, targets)).clamp(min=0)


# --- aggregation --------------------------------------------------------------------------------------------------


class CrossAttention(nn.Module):
    """A pre-norm block: question states attend to the memories, then a feed-forward layer, both with residuals."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        super().__init__()
        self.heads, self.head = heads, head
        self.norm, self.norm_memory, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, heads * head, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * head, width)
        self.up, self.down = nn.Linear(width, heads * head), nn.Linear(heads * head, width)

    def forward(self, states: Tensor, memories: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """States [Q, m, D], and the attention on each vector of the memories, [Q, S·m], mean over heads and states.

        Args:
            memories: [Q, S·m, D], or [1, S·m, D] for a bank that all questions share.
            bias: added to the attention logits, [Q, S·m].
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, self.head)).transpose(1, 2)
            for part in (
                self.query(self.norm(states)),
                self.key(self.norm_memory(memories)),
                self.value(self.norm_memory(memories)),
            )
        )
        attention = (query @ key.transpose(-1, -2) / math.sqrt(self.head) + bias[:, None, None]).softmax(-1)
        states = states + self.out((attention @ value).transpose(1, 2).flatten(2))
        return states + self.down(gelu(self.up(self.norm_inner(states)))), attention.mean((1, 2))

    @torch.no_grad()
    def align(self, scores: Tensor, sharpness: float) -> None:
        """Let the attention of every head start from a bilinear score, its best approximation of rank `head`.

            query(u)·key(v) / √head  ≈  sharpness · uᵀ A v / √D,  of normed u and v but for the norms' biases

        Args:
            scores: A, [D, D].
        """
        left, values, right = torch.linalg.svd(scores)
        scale = (values[: self.head] * sharpness * math.sqrt(self.head / len(scores))).sqrt()[:, None]
        self.query.weight.copy_((scale * left[:, : self.head].T / self.norm.weight).repeat(self.heads, 1))
        self.key.weight.copy_((scale * right[: self.head] / self.norm_memory.weight).repeat(self.heads, 1))


class Aggregator(nn.Module):
    """g_ψ: one set of m vectors out of many memories, for one question.

    Args:
        residual: the memories' mean, by their weights, is added to what the blocks make of them.
    """

    def __init__(self, width: int, blocks: int, heads: int, head: int, residual: bool = False) -> None:
        super().__init__()
        self._residual = residual
        self.blocks = nn.ModuleList(CrossAttention(width, heads, head) for _ in range(blocks))

    def forward(self, states: Tensor, memories: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Aggregated memory [Q, m, D], and the attention on each document [Q, S], mean over blocks.

        Args:
            states: of the question's soft tokens, [Q, m, D].
            memories: [Q, S, m, D], or [1, S, m, D] for all.
            log_weights: [Q, S], added to the attention logits of a document's vectors; None: documents have no
                weights but the attention on them.
        """
        count = memories.shape[2]
        equal = states.new_zeros(len(states), memories.shape[1])
        flat, bias = (
            memories.flatten(1, 2),
            (equal if log_weights is None else log_weights).repeat_interleave(count, -1),
        )
        seen = []
        for block in self.blocks:
            states, attention = block(states, flat, bias)
            seen.append(attention.unflatten(-1, (-1, count)).sum(-1))
        shares = torch.stack(seen).mean(0)
        if self._residual:
            weights = shares if log_weights is None else log_weights.exp()
            states = states + (weights[..., None, None] * memories).sum(1)
        return states, shares

    def in_windows(self, states: Tensor, memories: Tensor, window: int) -> Tensor:
        """MAC's hierarchical aggregation: each window of documents to one, until one window is left, [Q, m, D].

        Args:
            states: [Q, m, D]. memories: [1, N, m, D]. window: >= 2; N <= window is `forward` with equal weights.

        Raises:
            ValueError: a window below 2.
        """
        if window < 2:
            raise ValueError(f"a window must hold at least 2 documents, not {window}")
        while memories.shape[1] > window:
            parts = [memories[:, start : start + window] for start in range(0, memories.shape[1], window)]
            memories = torch.stack([self(states, part, None)[0] for part in parts], 1)
        found: Tensor = self(states, memories, None)[0]
        return found


# --- the model ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Triple:
    """A document, a question about it and the answer."""

    document: str
    question: str
    answer: str


@dataclass(frozen=True)
class Batch:
    """Token ids of a step: B documents, each once, and Q questions about them.

    Attributes:
        documents, questions: as the compressor reads them; gold: row of each question's document.
        head, tails: around the memory; closed: the questions alone; answers: with the end.
    """

    documents: list[list[int]]
    questions: list[list[int]]
    gold: list[int]
    head: list[int]
    tails: list[list[int]]
    closed: list[list[int]]
    answers: list[list[int]]


def batch_of(prompting: Prompting, triples: Sequence[Triple], document_tokens: int) -> Batch:
    """Triples in token ids; those about equal documents share one."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(triple.document for triple in triples))}
    around = [prompting.around(triple.question) for triple in triples]
    return Batch(
        documents=[prompting.document(text, document_tokens) for text in rows],
        questions=[prompting.question(triple.question) for triple in triples],
        gold=[rows[triple.document] for triple in triples],
        head=around[0][0],
        tails=[tail for _, tail in around],
        closed=[prompting.closed(triple.question) for triple in triples],
        answers=[prompting.answer(triple.answer) for triple in triples],
    )


def _lora_lm(lm: FrozenLM, memory: Memory) -> nn.Module:
    return Compressor(lm, dict.fromkeys(ROLES, memory.soft), memory.rank, memory.alpha)


def _encdec(lm: FrozenLM, memory: Memory) -> nn.Module:
    size = memory.t5
    if size.model:
        t5, tokenizer = pretrained_t5(size.model)
    else:
        t5, tokenizer = fresh_t5(lm, size.width, size.layers, size.heads, size.inner), None
    return EncoderDecoder(lm, t5, dict.fromkeys(ROLES, memory.soft), tokenizer)


ROLES = ("document", "question")
COMPRESSORS: dict[str, Callable[[FrozenLM, Memory], nn.Module]] = {"lora_lm": _lora_lm, "encdec": _encdec}


class CMT(nn.Module):
    """Compressor E_θ, matching heads and aggregation g_ψ around a frozen language model; its parameters are all that
    is trained.

    Args:
        document_tokens: a document keeps its first tokens.
        temperature: τ at first.
    """

    def __init__(
        self, lm: FrozenLM, prompting: Prompting, memory: Memory, document_tokens: int, temperature: float = 0.1
    ) -> None:
        super().__init__()
        self._lm, self._prompting, self.memory, self._document_tokens = lm, prompting, memory, document_tokens
        width, device = lm.width, lm.device
        self.compressor = COMPRESSORS[memory.compressor](lm, memory)
        self.W_m = nn.Linear(width, width)
        self.W_k, self.W_q = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.aggregator = Aggregator(width, memory.blocks, memory.heads, memory.head, memory.residual)
        self.norm = nn.LayerNorm(width)
        heads, size = key_shape(lm.model.config)
        layers = len(attending_layers(lm.model.config))
        pairs = 2 * layers * heads * size  # numbers of keys and values of a token, all layers
        self.project = nn.Linear(width, width if memory.inject == "embed_prefix" else pairs)
        self._scale = float(lm.model.get_input_embeddings().weight.detach().float().std())  # of an input vector
        self.to(device)

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp()

    def keep(self, soft: int) -> None:
        """Stronger compression: the first of the soft tokens alone."""
        tokens: Any = self.compressor.soft
        keep_first(tokens, soft)
        self.memory = replace(self.memory, soft=soft)

    def align(self) -> None:
        """Let the attention of aggregation start from the matching, A = W_qᵀ W_k: for rows that match nothing."""
        blocks: Any = self.aggregator.blocks
        for block in blocks:
            block.align(self.W_q.weight.T @ self.W_k.weight, SHARPNESS)

    def encode(self, documents: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Keys κ_i, [B, K], of length 1, and memories h_i, [B, m, D]: functions of each document alone."""
        return self._encode([self._prompting.document(text, self._document_tokens) for text in documents])

    def _encode(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        states = self.compressor(rows, "document").float()
        with full_precision(states):
            memories = self.W_m(states)
            return normalize(self._keys(self.W_k, memories, rows), dim=-1), memories

    def ask(self, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Queries q, [Q, K], of length 1, and states of the questions' soft tokens, [Q, m, D]."""
        return self._ask([self._prompting.question(text) for text in questions])

    def _ask(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        states = self.compressor(rows, "question").float()
        with full_precision(states):
            return normalize(self._keys(self.W_q, states, rows), dim=-1), states

    def _keys(self, head: nn.Module, vectors: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
        """q = mean_j W_q states_j and κ_i = mean_j (W_k h_i)_j, or those of another kind of matching, [B, K]."""
        if self.memory.matching == "frozen":
            return self._mean_state(rows)
        keys: Tensor = head(vectors).mean(1)  # without any matching nobody looks at them
        return keys

    @torch.no_grad()
    def _mean_state(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Mean of the frozen model's last states over a text, [B, D]: an encoder that nothing trains."""
        states = self._lm.states(self._lm.embed(self._lm.ids(rows))).float()
        lengths = torch.tensor([len(row) for row in rows], device=states.device)
        inside = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return (states * inside[..., None]).sum(1) / lengths[:, None]

    def aggregate(self, states: Tensor, memories: Tensor, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Aggregated memory of each question, [Q, m, D], and the attention on each document of the bank, [Q, N].

        Args:
            memories: of the whole bank, [N, m, D]. scores: [Q, N].
        """
        window = 0 if self.training else self.memory.window  # MAC's training aggregates its whole batch at once
        if self.memory.k == 0 and window and len(memories) > window:
            return self.aggregator.in_windows(states, memories[None], window), None
        rows, log_weights = self.choose(scores)
        if rows.shape[1] == len(memories):  # the whole bank, which all questions share
            if log_weights is not None:
                log_weights = torch.zeros_like(log_weights).scatter(1, rows, log_weights)
            aggregated, attention = self.aggregator(states, memories[None], log_weights)
            return aggregated, attention
        aggregated, attention = self.aggregator(states, memories[rows], log_weights)
        return aggregated, torch.zeros_like(scores).scatter(1, rows, attention.float())

    def choose(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """`top_k` of the scores, [Q, N]: rows and log-weights, [Q, S]; without any matching all scores are equal."""
        if self.memory.matching == "none":
            scores = torch.zeros_like(scores)
        rows, log_weights = top_k(scores, self.memory.k, self.temperature)
        return rows, self.weigh(log_weights)

    def weigh(self, log_weights: Tensor) -> Tensor | None:
        """The weights of chosen documents, [Q, S]; none where the matching is not the compressor's own."""
        return log_weights if self.memory.matching == "self" else None

    def prefix(self, aggregated: Tensor) -> tuple[Tensor | None, Prefix | None]:
        """What is put before the question: vectors [Q, m, D], or keys and values of each attending layer."""
        found = self.project(self.norm(aggregated))
        if self.memory.inject == "embed_prefix":
            return found * self._scale, None
        heads, size = key_shape(self._lm.model.config)
        layers = found.unflatten(-1, (-1, 2, heads, size)).permute(2, 3, 0, 4, 1, 5).to(self._lm.model.dtype)
        return None, [(keys, values) for keys, values in layers]

    def loss(
        self, triples: Sequence[Triple], objective: Objective, told: bool = False
    ) -> tuple[Tensor, dict[str, float]]:
        """L_MA + λ L_match (+ the attention's own) over a batch, and figures of it.

        The documents of the batch, each once, are its bank.

        Args:
            told: each question is given its gold document alone, of weight 1, whatever the scores, k and τ.
        """
        batch = batch_of(self._prompting, triples, self._document_tokens)
        keys, memories = self._encode(batch.documents)
        queries, states = self._ask(batch.questions)
        scores, gold = match(queries, keys), torch.tensor(batch.gold, device=keys.device)
        if told:
            attention = None
            aggregated, _ = self.aggregator(states, memories[gold, None], states.new_zeros(len(states), 1))
        else:
            aggregated, attention = self.aggregate(states, memories, scores)
        z_mem, targets = self._answer_logits(batch, *self.prefix(aggregated))
        z_0 = None if objective.kind == "nll" else self._own_logits(batch)
        loss = answer_loss(objective, z_mem, z_0, targets)
        right = (z_mem.argmax(-1) == targets).float().mean()
        figures = {"answer": loss.item(), "token_accuracy": right.item()}
        if self.memory.matching == "self" and objective.match == "infonce":
            loss = loss + objective.match_weight * match_loss(scores, gold, self.temperature)
            figures["hit"] = float((scores.argmax(-1) == gold).float().mean())
        if objective.attend and attention is not None:
            on_gold = attention.gather(1, gold[:, None]).clamp(min=1e-6)
            loss = loss - objective.attend * on_gold.log().mean()
            figures["attention"] = on_gold.mean().item()
        return loss, figures

    def _answer_logits(self, batch: Batch, vectors: Tensor | None, pairs: Prefix | None) -> tuple[Tensor, Tensor]:
        """Logits of the answers' tokens with the memory, [T, V], and the tokens, [T]."""
        tails = [[*tail, *answer] for tail, answer in zip(batch.tails, batch.answers, strict=True)]
        inputs = [self._lm.embed(self._lm.ids([batch.head] * len(tails)))] if batch.head else []
        inputs += [vectors.to(self._lm.model.dtype)] if vectors is not None else []
        before = sum(part.shape[1] for part in inputs)
        starts = [before + len(tail) for tail in batch.tails]
        inputs.append(self._lm.embed(self._lm.ids(tails)))
        return self._at_answers(torch.cat(inputs, 1), starts, batch.answers, pairs)

    @torch.no_grad()
    def _own_logits(self, batch: Batch) -> Tensor:
        """z_0, [T, V]: the same tokens without a memory, positions from 0."""
        ids = self._lm.ids([[*row, *answer] for row, answer in zip(batch.closed, batch.answers, strict=True)])
        return self._at_answers(self._lm.embed(ids), [len(row) for row in batch.closed], batch.answers, None)[0]

    def _at_answers(
        self, vectors: Tensor, starts: Sequence[int], answers: Sequence[Sequence[int]], pairs: Prefix | None
    ) -> tuple[Tensor, Tensor]:
        where = torch.zeros(vectors.shape[:2], dtype=torch.bool)
        for row, (start, answer) in enumerate(zip(starts, answers, strict=True)):
            where[row, start - 1 : start - 1 + len(answer)] = True
        targets = torch.tensor([token for answer in answers for token in answer], device=vectors.device)
        return self._lm.logits(vectors, where.to(vectors.device), pairs), targets

    @torch.no_grad()
    def answer(
        self, questions: Sequence[str], aggregated: Tensor, tokens: int, alpha: float, beams: Beams | None = None
    ) -> list[str]:
        """Answers with aggregated memories [Q, m, D], greedy without beams; α > 0 decodes z̃."""
        vectors, pairs = self.prefix(aggregated)
        prompts = []
        for number, question in enumerate(questions):
            head, tail = (self._embedded(ids) for ids in self._prompting.around(question))
            memory = [vectors[number].to(head.dtype)] if vectors is not None else []
            prompts.append(torch.cat([head, *memory, tail]))
        closed = [self._embedded(self._prompting.closed(question)) for question in questions] if alpha else []
        return complete(self._lm, prompts, tokens, pairs, closed, alpha, beams)

    def _embedded(self, ids: Sequence[int]) -> Tensor:
        return self._lm.embed(torch.tensor(ids, dtype=torch.long, device=self._lm.device))


# --- online adaptation --------------------------------------------------------------------------------------------


class Online:
    """A stream of documents read once into a bank, without a gradient, and questions answered from it.

    Args:
        bank: empty, or what an earlier attempt had read.
        encode, ask: documents and questions at a time; they change no figure but for rounding.
        tokens: most of an answer. alpha: of the contrast in decoding. beams: greedy if None.
    """

    def __init__(
        self,
        cmt: CMT,
        bank: DenseBank,
        *,
        encode: int,
        ask: int,
        tokens: int,
        alpha: float,
        beams: Beams | None = None,
    ) -> None:
        self.cmt, self.bank = cmt.eval(), bank
        self._encode, self._ask, self._tokens, self._alpha, self._beams = encode, ask, tokens, alpha, beams

    @torch.no_grad()
    def read(self, documents: Sequence[str]) -> None:
        """Compress documents and append them; those that the bank has already are not encoded again."""
        new = [text for text in documents if not (self.bank.dedup and text in self.bank)]
        for start in range(0, len(new), self._encode):
            part = new[start : start + self._encode]
            keys, memories = self.cmt.encode(part)
            self.bank.append(part, keys.cpu().numpy(), memories.cpu().numpy())

    @torch.no_grad()
    def answer(self, questions: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """Answers, and the rows of the bank that each was given, best first; none where it was given the whole."""
        texts: list[str] = []
        given: list[list[int]] = []
        for start in range(0, len(questions), self._ask):
            part = questions[start : start + self._ask]
            queries, states = self.cmt.ask(part)
            aggregated, rows = self._aggregate(queries, states)
            texts += self.cmt.answer(part, aggregated, self._tokens, self._alpha, self._beams)
            given += rows
        return texts, given

    def _aggregate(self, queries: Tensor, states: Tensor) -> tuple[Tensor, list[list[int]]]:
        """`CMT.aggregate` over the bank, of which a search for the top k reads k memories alone."""
        k = self.cmt.memory.k
        if k == 0 or k >= len(self.bank):
            memories = torch.from_numpy(self.bank.memories(slice(None)).astype("float32")).to(states.device)
            keys = torch.from_numpy(self.bank.keys.copy()).to(states.device)
            return self.cmt.aggregate(states, memories, match(queries, keys))[0], [[] for _ in range(len(states))]
        scores, rows = self.bank.search(queries.cpu().numpy(), k)
        log_weights = (torch.from_numpy(scores).to(states.device) / self.cmt.temperature).log_softmax(-1)
        memories = torch.from_numpy(self.bank.memories(rows).astype("float32")).to(states.device)
        return self.cmt.aggregator(states, memories, self.cmt.weigh(log_weights))[0], rows.tolist()
