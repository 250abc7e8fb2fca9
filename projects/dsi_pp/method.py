"""DSI++ (Mehta et al., EMNLP 2023; arXiv:2212.09744v3): SAM and generative memory against forgetting.

Shapes: B inputs, L input tokens, T docid tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from common.training.preemption import heeding
from common.training.resumable import Resumable, Tensors
from projects.dsi_pp.data import Benchmark
from projects.dsi_pp.seq2seq import GENERATE, IGNORED, pack, seq2seq_logits


def sequence_loss(model: T5ForConditionalGeneration, inputs: Tensor, labels: Tensor, unissued: Tensor) -> Tensor:
    """Cross-entropy of target tokens, for all tasks alike: the task is told by the prefix of the input.

        L = - mean log p(id(d) | "index:" d)  over documents  and  - mean log p(id(d) | "retrieve:" q)  over queries

    Args:
        inputs: int64 [B, L]; indexing rows and (pseudo-)query rows may be mixed.
        labels: int64 [B, T], padding IGNORED.
        unissued: tokens of documents that have not arrived, left out of the softmax (Deviation 4).
    """
    logits = seq2seq_logits(model, inputs, labels)  # [B, T, V]
    logits = logits.index_fill(2, unissued, float("-inf"))
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def plain_step(loss: Callable[[], Tensor], parameters: Sequence[Tensor], optimizer: Optimizer) -> Tensor:
    """One update of the base optimizer on one mini-batch; returns the loss before it."""
    optimizer.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def sam_step(loss: Callable[[], Tensor], parameters: Sequence[Tensor], optimizer: Optimizer, rho: float) -> Tensor:
    """One SAM update (Foret et al., ICLR 2021; arXiv:2010.01412v3, Alg. 1): min_w max_{||e||_2 <= rho} f(w + e).

    With rho = 0 it is `plain_step`, to the bit, when the loss is deterministic; at twice its compute.

    Args:
        loss: f on one mini-batch; called twice, at w and at w + e.
        parameters: all of w; the norm is taken over all of them together.
        rho: radius of the neighbourhood, in units of the weights' L2 norm.

    Returns:
        f(w), without gradient.
    """
    optimizer.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]  # 1. g = grad f(w)
    used = [w for w in parameters if w.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(w.grad) for w in used]))
    before = [w.detach().clone() for w in used]
    with torch.no_grad():
        for w in used:
            w.add_(w.grad * (rho / (norm + 1e-12)))  # 2. w + e,  e = rho g / ||g||
    optimizer.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]  # 3. g' = grad f(w + e)
    with torch.no_grad():
        for w, old in zip(used, before, strict=True):
            w.copy_(old)  # 4. back to w exactly, not by subtraction
    optimizer.step()  # 5. base optimizer with g'
    return value.detach()


# --- rehearsal: which queries, for which documents ----------------------------------------------------------------

Rehearsed = dict[int, Sequence[str]]  # document number -> its (pseudo-)queries
PseudoByDocument = list[list[str]]  # pseudo-queries of U_n by document number


def none(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """No rehearsal: plain continual indexing."""
    return {}


def stored(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """epsmem(D_0), episodic memory: the real queries of D_0."""
    return dict(enumerate(document.train for document in benchmark.corpora[0]))


def gen_first(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """genmem(D_0)."""
    return {number: pseudo[number] for number in benchmark.bounds(0)}


def gen_new(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """genmem(D_n)."""
    return {number: pseudo[number] for number in benchmark.bounds(n)}


def gen_all(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """genmem(U_n), the proposed method: pseudo-queries of every document so far."""
    return {number: pseudo[number] for number in range(benchmark.bounds(n).stop)}


def gen_shuffled(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """Control: the same pseudo-queries, but every document is given those of the next one in order of arrival."""
    issued = benchmark.bounds(n).stop
    return {number: pseudo[(number + 1) % issued] for number in range(issued)}


def stored_and_gen(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """All that re-training may use: real queries of D_0, pseudo-queries of every later document."""
    return gen_all(benchmark, n, pseudo) | stored(benchmark, n, pseudo)


def oracle(benchmark: Benchmark, n: int, pseudo: PseudoByDocument) -> Rehearsed:
    """Control that breaks the rules of the task: real queries of every document so far."""
    return dict(enumerate(document.train + document.withheld for document in benchmark.union(n)))


REHEARSAL: dict[str, Callable[[Benchmark, int, PseudoByDocument], Rehearsed]] = {
    "none": none,
    "stored": stored,
    "gen_first": gen_first,
    "gen_new": gen_new,
    "gen_all": gen_all,
    "gen_shuffled": gen_shuffled,
    "stored_and_gen": stored_and_gen,
    "oracle": oracle,
}
GENERATIVE = ("gen_first", "gen_new", "gen_all", "gen_shuffled", "stored_and_gen")


class GenerativeMemory:
    """A document -> query model, trained on R_0 only, that supplies pseudo-queries for old and new documents.

    Args:
        model: encoder-decoder to train in place; document_tokens, query_tokens: inputs and targets are cut to these.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        document_tokens: int,
        query_tokens: int,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.document_tokens, self.query_tokens = document_tokens, query_tokens

    @heeding()
    def fit(
        self,
        pairs: Sequence[tuple[str, str]],
        optimizer: Optimizer,
        steps: int,
        batch: int,
        folder: Path | None = None,
    ) -> None:
        """Teacher-forced training on (document, query) pairs; goes on from the checkpoint in `folder`.

        Draws from torch's global generator.
        """
        texts, queries = [text for text, _ in pairs], [query for _, query in pairs]
        inputs = pack(self.tokenizer, GENERATE, texts, self.document_tokens).to(self.model.device)
        labels = pack(self.tokenizer, "", queries, self.query_tokens).to(self.model.device)
        labels = labels.masked_fill(labels.eq(self.tokenizer.pad_token_id), IGNORED)
        nothing = torch.arange(0, device=self.model.device)
        state = Resumable(folder, {"model": self.model, "optimizer": optimizer}, {"steps": steps, "batch": batch})
        self.model.train()
        for step in range(state.done + 1, steps + 1):
            rows = torch.randint(len(inputs), (batch,)).to(inputs.device)
            plain_step(partial(sequence_loss, self.model, inputs[rows], labels[rows], nothing), (), optimizer)
            state.after(step, last=step == steps)

    @heeding()
    @torch.no_grad()
    def sample(
        self,
        documents: Sequence[str],
        count: int,
        temperature: float,
        top_k: int,
        batch: int = 256,
        folder: Path | None = None,
    ) -> list[list[str]]:
        """`count` sampled pseudo-queries for every document; may repeat. Goes on from the checkpoint in `folder`.

        Draws from torch's global generator.
        """
        self.model.eval()
        inputs = pack(self.tokenizer, GENERATE, documents, self.document_tokens).to(self.model.device)
        chunks, outputs = torch.split(inputs, batch), Tensors()
        settings = {"count": count, "temperature": temperature, "top_k": top_k, "batch": batch}
        state = Resumable(folder, {"outputs": outputs}, settings)
        for number, rows in enumerate(chunks[state.done :], start=state.done + 1):
            output = self.model.generate(
                input_ids=rows,
                attention_mask=rows.ne(self.tokenizer.pad_token_id),
                do_sample=True,
                temperature=temperature,
                top_k=top_k,
                num_return_sequences=count,
                max_new_tokens=self.query_tokens + 1,
            )
            outputs.append(output.cpu())
            state.after(number, last=number == len(chunks))
        found = [text for output in outputs for text in self.tokenizer.batch_decode(output, skip_special_tokens=True)]
        return [found[start : start + count] for start in range(0, len(found), count)]
