"""The slow, obvious language model: one prompt at a time, the whole text through the model for each new token.

No batch, no padding, no cache, attention written out (`eager`), argmax, and text decoded anew at every step: it shares
no code with the backends, and is their reference. It knows what the conformance checks ask of a reference: greedy
completions with stop strings and log-probabilities, and scores.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.models.language_model import Completion, Message, Prompt, Sampling, Score


class NaiveLM:
    """A toy checkpoint (see `toy`) whose text, tokens and numbers come from loops; see `LanguageModel`."""

    backend, revision, kv_bytes_per_token = "naive", "", 0

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model, self.context = model.eval(), model.config.max_position_embeddings

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling | Sequence[Sampling], purpose: str = ""
    ) -> list[Completion]:
        assert isinstance(sampling, Sampling) and not sampling.temperature and not sampling.constrained
        return [self._complete(self._ids(prompt), sampling) for prompt in prompts]

    def _complete(self, prompt: list[int], sampling: Sampling) -> Completion:
        ids: list[int] = []
        log_probs: list[float] = []
        while True:
            here = self._log_probs(prompt + ids)[-1]
            ids.append(int(here.argmax()))
            log_probs.append(float(here[ids[-1]]))
            text = self.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")  # bytes of half a character
            cuts = [text.index(stop) for stop in sampling.stop if stop in text]
            ended = ids[-1] == self.tokenizer.eos_token_id or bool(cuts)
            if ended or len(ids) == sampling.max_tokens:
                return Completion(
                    text[: min(cuts, default=len(text))],  # one byte a token: all in the text are complete at once
                    tuple(ids),
                    tuple(log_probs) if sampling.log_probs else None,
                    "stop" if ended else "length",
                    len(prompt),
                    len(ids),
                )

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str], purpose: str = "") -> list[Score]:
        scores = []
        for prompt, continuation in zip(prompts, continuations, strict=True):
            before, after = self._ids(prompt), self._ids(continuation)
            found = self._log_probs(before + after)
            numbers = [float(found[len(before) + i - 1, token]) for i, token in enumerate(after)]
            scores.append(Score(tuple(numbers), len(before)))
        return scores

    def _log_probs(self, ids: list[int]) -> Tensor:
        """Of the token after each, [T, V]."""
        with torch.no_grad():
            logits: Tensor = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        return logits.log_softmax(-1)

    def _ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Toys have a token for each byte, and chats that can be spelled."""
        if not isinstance(prompt, str):
            prompt = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in prompt) + "<|assistant|>"
        ids: list[int] = self.tokenizer(prompt.encode("utf-8", "replace").decode()).input_ids
        return ids
