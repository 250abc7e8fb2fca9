"""The tokenizer of the tiny scale's policy, which begins with random weights.

A tag is one token, a name two, another word one: turns are short, and a closed vocabulary is soon learned.
"""

from typing import Any

from tokenizers import AddedToken

from common.data.text_world.questions import UNKNOWN
from common.data.text_world.relations import CLOSED, RELATIONS
from common.models.microlm.lexicon import words_of
from common.models.microlm.scratch import closed_tokenizer
from projects.mem1.method import PROMPT, hint
from projects.mem1.settings import Tags


def world_tokenizer(tags: Tags) -> Any:
    """Whole words of the text world, of prompts and of hints; any other text is spelled in bytes."""
    said = [text for r in RELATIONS.values() for text in (*r.statements, *r.questions, *r.phrases)]
    capitals = [word.capitalize() for word in words_of(*CLOSED.values())]
    texts = (said, capitals, PROMPT, hint(1), hint(2), UNKNOWN, "none")
    tokenizer = closed_tokenizer(*texts, marks="[];:,.?!")
    marks = [f"<{slash}{name}>" for name in vars(tags).values() for slash in ("", "/")]
    tokenizer.add_tokens([AddedToken(mark, lstrip=True, normalized=False) for mark in marks])
    return tokenizer
