"""How the frozen language model is asked: with a memory, with a text, with neither.

The paper's prompts are not known to us (README, Deviation 3). `read` and `recall` are prompts of MicroLM's base skills;
`plain` is what MAC's code does: the prefix, the question, and a space before the answer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from common.models.language_model import encode, encode_continuation
from common.models.microlm.skills import READ, RECALL

MEMORY, QUESTION = "\ue000", "\ue001"  # stand for the memory and the question in a rendered prompt

CHAT = {
    "read": READ.format(passages=f"[1] {MEMORY}", question="{question}"),
    "recall": f"{MEMORY}\n" + RECALL,
}


@dataclass(frozen=True)
class Prompting:
    """Token ids of prompts and answers.

    Args:
        kind: read | recall (messages through the tokenizer's chat template) | plain.
        question_tokens: a question keeps its last tokens.
    """

    tokenizer: Any
    kind: str
    question_tokens: int = 256

    def around(self, question: str) -> tuple[list[int], list[int]]:
        """What stands before and after the memory."""
        if self.kind == "plain":
            return self._bos(), self._question(question)
        before, after = self._chat.replace(QUESTION, self._cut(question)).split(MEMORY)
        return encode_continuation(self.tokenizer, before), encode_continuation(self.tokenizer, after)

    @cached_property
    def _chat(self) -> str:
        """The whole prompt, with MEMORY and QUESTION."""
        messages = [{"role": "user", "content": CHAT[self.kind].format(question=QUESTION)}]
        text: str = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text

    def closed(self, question: str) -> list[int]:
        """The question alone."""
        if self.kind == "plain":
            return [*self._bos(), *self._question(question)]
        return encode(self.tokenizer, [{"role": "user", "content": RECALL.format(question=self._cut(question))}])

    def over(self, question: str, text: list[int]) -> list[int]:
        """The question with a text, whose token ids are given, in the place of the memory."""
        before, after = self.around(question)
        return [*before, *text, *after]

    def answer(self, answer: str) -> list[int]:
        """The answer and the end."""
        space = " " if self.kind == "plain" else ""
        return [*encode_continuation(self.tokenizer, space + answer), self.tokenizer.eos_token_id]

    def text(self, text: str, tokens: int) -> list[int]:
        """The first tokens of a document; at least one."""
        return encode_continuation(self.tokenizer, text)[:tokens] or [self.tokenizer.eos_token_id]

    def document(self, text: str, tokens: int) -> list[int]:
        """A document on its own, as a language model reads a text: `text` after the token that begins one, if any."""
        return [*self._bos(), *self.text(text, tokens)]

    def whole(self, text: str, tokens: int) -> list[int]:
        """A document as a language model learns it: with the end."""
        return [*self.document(text, tokens), self.tokenizer.eos_token_id]

    def question(self, question: str) -> list[int]:
        """A question on its own."""
        return [*self._bos(), *self._question(question)]

    def _question(self, question: str) -> list[int]:
        return encode_continuation(self.tokenizer, question)[-self.question_tokens :] or [self.tokenizer.eos_token_id]

    def _cut(self, question: str) -> str:
        if len(question.encode()) <= self.question_tokens:  # a token has at least a byte
            return question
        ids = encode_continuation(self.tokenizer, question)
        return question if len(ids) <= self.question_tokens else self.tokenizer.decode(ids[-self.question_tokens :])

    def _bos(self) -> list[int]:
        """The token that begins a text, where the tokenizer puts one."""
        bos = self.tokenizer.bos_token_id
        own = self.kind != "plain" or encode(self.tokenizer, "a")[:1] == [bos]
        return [bos] if bos is not None and own else []
