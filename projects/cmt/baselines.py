"""What CMT is compared with: no adaptation, the document in the context, retrieval, fine-tuning on the stream.

All answer with the frozen model's own prompts. MAC's aggregation of the whole bank is CMT with other settings.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from common.models.frozen import Beams, FrozenLM, complete
from common.retrievers.bm25 import BM25
from common.training.supervised import Batch, weighted_loss
from projects.cmt.camels import TokenWeights
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
        tokens: most of an answer. ask: questions answered at a time. beams: greedy if None.
    """

    def __init__(self, lm: FrozenLM, prompting: Prompting, tokens: int, ask: int, beams: Beams | None = None) -> None:
        self.lm, self.prompting, self._tokens, self._ask, self._beams = lm, prompting, tokens, ask, beams

    def read(self, documents: Sequence[Document]) -> None:
        """Nothing is kept."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return self.recall(questions)

    def recall(self, questions: Sequence[Question]) -> list[str]:
        return self.completed([self.prompting.closed(question.text) for question in questions])

    def completed(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Completions of token ids."""
        found: list[str] = []
        for start in range(0, len(prompts), self._ask):
            part = prompts[start : start + self._ask]
            vectors = [self.lm.embed(torch.tensor(ids, device=self.lm.device)) for ids in part]
            found += complete(self.lm, vectors, self._tokens, beams=self._beams)
        return found


class InContext(ClosedBook):
    """The ceiling: told which document a question is about, it reads the text itself.

    Args:
        gold: text of the document of each question's text.
    """

    def __init__(
        self,
        lm: FrozenLM,
        prompting: Prompting,
        tokens: int,
        ask: int,
        gold: Mapping[str, str],
        document_tokens: int,
        beams: Beams | None = None,
    ) -> None:
        super().__init__(lm, prompting, tokens, ask, beams)
        self._gold, self._document_tokens = gold, document_tokens

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return self.over([question.text for question in questions], [self._gold[q.text] for q in questions])

    def over(self, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Answers with a text in the context each."""
        ids = [self.prompting.text(text, self._document_tokens) for text in texts]
        return self.completed([self.prompting.over(q, text) for q, text in zip(questions, ids, strict=True)])


class Retrieval(InContext):
    """BM25 top-1: the text itself is kept and put into the context."""

    def __init__(
        self,
        lm: FrozenLM,
        prompting: Prompting,
        tokens: int,
        ask: int,
        document_tokens: int,
        beams: Beams | None = None,
    ) -> None:
        super().__init__(lm, prompting, tokens, ask, {}, document_tokens, beams)
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


Weigh = Callable[[Document, Tensor], Tensor]  # weights of a document's ids, both [1, T]; the first is no target


def uniform(document: Document, ids: Tensor) -> Tensor:
    """All tokens weigh the same, [1, T]."""
    return torch.full(ids.shape, 1 / (ids.shape[1] - 1), device=ids.device)


def salient(tokenizer: Any, document_tokens: int) -> Weigh:
    """Tokens of the document's salient spans alone, each the same; none in a document without any."""

    def weigh(document: Document, ids: Tensor) -> Tensor:
        offsets = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        places = offsets[:document_tokens]
        inside = [any(a < end and start < b for start, end in document.spans) for a, b in places]
        flags = [False] * (ids.shape[1] - 1 - len(places)) + inside + [False]  # a beginning perhaps, and the end
        weights = torch.tensor([flags], dtype=torch.float32, device=ids.device)
        return weights / weights[:, 1:].sum().clamp(min=1)

    return weigh


def meta_learned(weights: TokenWeights) -> Weigh:
    """CaMeLS's weights, of which the mean counts, as in its inner step."""

    @torch.no_grad()
    def weigh(document: Document, ids: Tensor) -> Tensor:
        found: Tensor = weights(ids)
        return found / (ids.shape[1] - 1)

    return weigh


class OnlineTuning(ClosedBook):
    """A copy of the model fine-tuned on the weighted tokens of each document as it arrives.

    Args:
        weigh: a document whose tokens weigh nothing is not learned.
        lr: of Adam without decay, as MAC's code has it. steps: per document.
    """

    def __init__(
        self,
        lm: FrozenLM,
        prompting: Prompting,
        tokens: int,
        ask: int,
        *,
        weigh: Weigh,
        lr: float,
        steps: int,
        document_tokens: int,
        beams: Beams | None = None,
    ) -> None:
        model: Any = copy.deepcopy(lm.model)
        super().__init__(FrozenLM(model, lm.tokenizer), prompting, tokens, ask, beams)
        model.requires_grad_(True)
        self._weigh, self.lr, self._steps, self._document_tokens = weigh, lr, steps, document_tokens
        self._optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def read(self, documents: Sequence[Document]) -> None:
        for document in documents:
            batch = self.batch(document)
            if not bool(batch.weights[:, 1:].any()):
                continue
            for _ in range(self._steps):
                self._optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(weighted_loss(self.lm.model, batch))
                self._optimizer.step()

    def batch(self, document: Document) -> Batch:
        """A document as a language model learns it, [1, T], and the weights of its tokens."""
        ids = torch.tensor([self.prompting.whole(document.text, self._document_tokens)], device=self.lm.device)
        return Batch(ids, self._weigh(document, ids))
