"""What an editor is asked for, and the token batches that edits and probes become.

A completion begins with its space, where it has one: `EditRequest("The capital of France is", " Rome")`. Prompt and
completion are tokenised apart and joined (as `LanguageModel.score` does), so that the prompt's tokens are the same with
every completion. Rows are padded on the right: in a causal model no token sees the padding, and positions need no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.experiments.errors import UserError
from common.models.language_model import encode, encode_continuation


@dataclass(frozen=True)
class Probe:
    """A prompt and a completion to look at after it."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class EditRequest:
    """One fact to write.

    Attributes:
        prompt, target: the model shall complete `prompt` with `target`.
        subject: what the fact is about, a part of the prompt; ROME and MEMIT write at its last token.
        paraphrases: prompts with the same wanted completion; for measuring alone.
        locality: probes that the edit must not touch; for measuring alone.
        irrelevant: a probe of another matter that an editor may learn from (WISE's x_i with its answer).
        texts: running text on the subject, as its opening and what follows; for measuring alone.
        truth: the true completion that `target` takes the place of, if one is known; for measuring alone.
    """

    prompt: str
    target: str
    subject: str = ""
    paraphrases: tuple[str, ...] = ()
    locality: tuple[Probe, ...] = ()
    irrelevant: Probe | None = None
    texts: tuple[Probe, ...] = ()
    truth: str = ""


def check_requests(requests: Sequence[EditRequest]) -> None:
    """UserError for a request without prompt or target, or for two that want different completions of one prompt.

    No requests at all are fine, and nothing is done for them. A later call may ask for another completion of a prompt:
    that is an edit of the edit.
    """
    wanted: dict[str, str] = {}
    for index, request in enumerate(requests):
        if not request.prompt or not request.target:
            raise UserError(f"edit {index} has no {'prompt' if not request.prompt else 'target'}")
        if wanted.setdefault(request.prompt, request.target) != request.target:
            known = wanted[request.prompt]
            raise UserError(f"contradictory edits: '{request.prompt}' shall give '{known}' and '{request.target}'")


@dataclass(frozen=True)
class Batch:
    """Prompts with their completions.

    Attributes:
        ids: [B, T], padded on the right.
        prompt: tokens of each prompt, special ones included, [B].
        length: tokens of prompt and completion, [B].
    """

    ids: Tensor
    prompt: Tensor
    length: Tensor

    @property
    def places(self) -> Tensor:
        return torch.arange(self.ids.shape[1], device=self.ids.device)

    @property
    def prompt_mask(self) -> Tensor:
        """Tokens of the prompt, bool [B, T]."""
        return self.places < self.prompt[:, None]

    @property
    def predicts(self) -> Tensor:
        """Tokens that a token of the completion follows, bool [B, T]."""
        return (self.places >= self.prompt[:, None] - 1) & (self.places < self.length[:, None] - 1)

    @property
    def targets(self) -> Tensor:
        """Tokens of all completions in order, [N]."""
        return self.ids[:, 1:][self.predicts[:, :-1]]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each completion."""
        return (self.length - self.prompt).tolist()


def batch_of(tokenizer: Any, pairs: Sequence[tuple[str, str]], device: Any = "cpu") -> Batch:
    """The batch of (prompt, completion) pairs; a completion may be empty.

    Raises:
        UserError: a prompt without any token.
    """
    rows = [(encode(tokenizer, prompt), encode_continuation(tokenizer, completion)) for prompt, completion in pairs]
    for (prompt, _), (ids, _) in zip(pairs, rows, strict=True):
        if not ids:
            raise UserError(f"prompt {prompt!r} has no token")
    return batch_of_ids(rows, tokenizer.pad_token_id or 0, device)


def batch_of_ids(rows: Sequence[tuple[list[int], list[int]]], pad: int, device: Any = "cpu") -> Batch:
    """The batch of tokenised prompts and completions."""
    longest = max(len(before) + len(after) for before, after in rows)
    ids = [before + after + [pad] * (longest - len(before) - len(after)) for before, after in rows]
    prompt = torch.tensor([len(before) for before, _ in rows], device=device)
    after = torch.tensor([len(after) for _, after in rows], device=device)
    return Batch(torch.tensor(ids, device=device), prompt, prompt + after)


def subject_end(tokenizer: Any, prompt: str, subject: str) -> int:
    """Place of the last token of the subject's last occurrence in the tokenised prompt.

    Raises:
        UserError: the prompt does not contain the subject, or there is none.
    """
    start = prompt.rfind(subject) if subject else -1
    if start < 0:
        raise UserError(f"subject '{subject}' is not in the prompt '{prompt}': ROME and MEMIT write at its last token")
    last = start + len(subject) - 1
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    return max(i for i, (begin, end) in enumerate(offsets) if begin <= last < end)
