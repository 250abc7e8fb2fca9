"""The tokenizer of the tiny scale's writer and reader, which begin with random weights: a closed lexicon."""

from typing import Any

from common.data.text_world import topics
from common.data.text_world.world import EPITHETS
from common.models.microlm.scratch import closed_tokenizer
from projects.mem_alpha import data, prompts
from projects.mem_alpha.teachers import PLACEHOLDERS


def tokenizer() -> Any:
    """All that a compact prompt can say: a word is a token, a name two or three, a digit one."""
    return closed_tokenizer(topics.WORDS, PLACEHOLDERS, EPITHETS, data.WORDS, prompts.WORDS, marks=";.?")
