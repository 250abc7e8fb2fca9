"""What CMT is compared with: no adaptation, the document in the context, retrieval, fine-tuning on the stream.

All answer greedily with the frozen model's own prompts. MAC's aggregation of the whole bank is CMT with other settings.
CaMeLS is missing (README, Deviation 8).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from common.models.frozen import FrozenLM, complete
from common.retrievers.bm25 import BM25
from common.training.supervised import Batch, weighted_loss
from projects.cmt.data import Document, Question
from projects.cmt.prompts import Prompting


class Learner(Protocol):
    """Reads a stream once, in order, and answers questions about it without being told the document."""

    def read(self, documents: Sequence[Document]) -> None: ...
    def answer(self, questions: Sequence[Question]) -> list[str]: ...

    def recall(self, questions: Sequence[Question]) -> list[str]:
        """Answers from the language model's weights alone, as they now are."""
        ...


class ClosedBook:
    """No adaptation.

    Args:
        tokens: most of an answer. ask: questions answered at a time.
    """

    def __init__(self, lm: FrozenLM, prompting: Prompting, tokens: int, ask: int) -> None:
        self.lm, self.prompting, self._tokens, self._ask = lm, prompting, tokens, ask

    def read(self, documents: Sequence[Document]) -> None:
        """Nothing is kept."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return self.recall(questions)

    def recall(self, questions: Sequence[Question]) -> list[str]:
        return self.completed([self.prompting.closed(question.text) for question in questions])

    def completed(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Greedy completions of token ids."""
        found: list[str] = []
        for start in range(0, len(prompts), self._ask):
            part = prompts[start : start + self._ask]
            vectors = [self.lm.embed(torch.tensor(ids, device=self.lm.device)) for ids in part]
            found += complete(self.lm, vectors, self._tokens)
        return found


class InContext(ClosedBook):
    """The ceiling: told which document a question is about, it reads the text itself.

    Args:
        gold: text of the document of each question's text.
    """

    def __init__(
        self, lm: FrozenLM, prompting: Prompting, tokens: int, ask: int, gold: Mapping[str, str], document_tokens: int
    ) -> None:
        super().__init__(lm, prompting, tokens, ask)
        self._gold, self._document_tokens = gold, document_tokens

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return self.over([question.text for question in questions], [self._gold[q.text] for q in questions])

    def over(self, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Answers with a text in the context each."""
        ids = [self.prompting.text(text, self._document_tokens) for text in texts]
        return self.completed([self.prompting.over(q, text) for q, text in zip(questions, ids, strict=True)])


class Retrieval(InContext):
    """BM25 top-1: the text itself is kept and put into the context."""

    def __init__(self, lm: FrozenLM, prompting: Prompting, tokens: int, ask: int, document_tokens: int) -> None:
        super().__init__(lm, prompting, tokens, ask, {}, document_tokens)
        self._texts: list[str] = []
        self._bm25 = BM25()

    def read(self, documents: Sequence[Document]) -> None:
        known = set(self._texts)
        self._texts += [text for text in dict.fromkeys(d.text for d in documents) if text not in known]
        self._bm25.build([str(i) for i in range(len(self._texts))], self._texts)

    def answer(self, questions: Sequence[Question]) -> list[str]:
        rankings = self._bm25.search([question.text for question in questions], k=1).rankings()
        texts = [self._texts[int(hits[0])] if hits else "" for hits in rankings]
        return self.over([question.text for question in questions], texts)


class OnlineTuning(ClosedBook):
    """A copy of the model fine-tuned on each document as it arrives: Uniform on all its tokens, Salient Spans on some.

    Args:
        salient: weigh only tokens of the documents' salient spans; a document without any is not learned.
        lr: of Adam without decay, as MAC's code has it. steps: per document.
    """

    def __init__(
        self,
        lm: FrozenLM,
        prompting: Prompting,
        tokens: int,
        ask: int,
        *,
        salient: bool,
        lr: float,
        steps: int,
        document_tokens: int,
    ) -> None:
        model: Any = copy.deepcopy(lm.model)
        super().__init__(FrozenLM(model, lm.tokenizer), prompting, tokens, ask)
        model.requires_grad_(True)
        self._salient, self._steps, self._document_tokens = salient, steps, document_tokens
        self._optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def read(self, documents: Sequence[Document]) -> None:
        for document in documents:
            batch = self.batch(document)
            weight = batch.weights[:, 1:].sum()
            if not weight:
                continue
            for _ in range(self._steps):
                self._optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(weighted_loss(self.lm.model, batch) / weight)
                self._optimizer.step()

    def batch(self, document: Document) -> Batch:
        """A document as a language model reads it, [1, T], with the end, and the weights of its tokens."""
        ids = [*self.prompting.document(document.text, self._document_tokens), self.lm.tokenizer.eos_token_id]
        weights = [1.0] * len(ids)
        if self._salient:
            offsets = self.lm.tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
            places = offsets["offset_mapping"][: self._document_tokens]
            inside = [any(a < end and start < b for start, end in document.spans) for a, b in places]
            weights = [0.0] * (len(ids) - 1 - len(places)) + [float(flag) for flag in inside] + [0.0]
        device = self.lm.device
        return Batch(torch.tensor([ids], device=device), torch.tensor([weights], device=device))
