"""The policy of the tiny scale before anyone taught it: a small `Lfm2` with a tokenizer for its world alone.

A tag is one token, a name two, another word one: turns are short, and a closed vocabulary is soon learned.
"""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tokenizers import AddedToken

from common.data.text_world.names import OPENINGS
from common.data.text_world.questions import UNKNOWN
from common.data.text_world.relations import CLOSED, FILLERS, RELATIONS
from common.models.microlm.lexicon import name_parts, words_of
from common.models.microlm.model import Shape, build_model
from common.models.microlm.tokenizer import build_tokenizer, save_tokenizer
from projects.mem1.method import PROMPT, hint
from projects.mem1.settings import Scratch, Tags

MARKS = "[]|;:,.?!"


def fresh(scratch: Scratch, tags: Tags, folder: Path) -> None:
    """A model with random weights and its tokenizer, in a folder."""
    tokenizer = world_tokenizer(tags)
    shape = Shape(width=scratch.width, layers=scratch.layers, inner=scratch.inner)
    build_model(shape, tokenizer, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def world_tokenizer(tags: Tags) -> Any:
    """Whole words of the text world, of prompts and of hints; any other text is spelled in bytes."""
    relations = RELATIONS.values()
    said = [text for r in relations for text in (*r.statements, *r.questions, *r.phrases, r.key)]
    words = words_of(said, FILLERS, *CLOSED.values(), PROMPT, hint(1), hint(2), UNKNOWN, "via none")
    words |= {word.capitalize() for word in words_of(*CLOSED.values())}
    tokenizer = build_tokenizer([*words, *OPENINGS, *MARKS, *"0123456789", *ascii_uppercase], name_parts())
    marks = [f"<{slash}{name}>" for name in vars(tags).values() for slash in ("", "/")]
    tokenizer.add_tokens([AddedToken(mark, lstrip=True, normalized=False) for mark in marks])
    return tokenizer
