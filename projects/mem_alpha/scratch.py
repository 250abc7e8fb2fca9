"""Small language models from scratch on a closed lexicon: the writer and the reader of the tiny scale."""

from pathlib import Path
from typing import Any

from common.data.text_world import topics
from common.data.text_world.names import OPENINGS
from common.data.text_world.relations import CLOSED, FILLERS, RELATIONS
from common.data.text_world.world import EPITHETS
from common.models.hub import without_bars
from common.models.microlm.lexicon import name_parts, words_of
from common.models.microlm.model import Shape, build_model
from common.models.microlm.tokenizer import build_tokenizer, save_tokenizer
from projects.mem_alpha import data, prompts
from projects.mem_alpha.settings import Size
from projects.mem_alpha.teachers import PLACEHOLDERS


def tokenizer() -> Any:
    """All that a compact prompt can say: a word is a token, a name two or three, a digit one."""
    keys = [relation.key for relation in RELATIONS.values()]
    words = words_of(*CLOSED.values(), topics.WORDS, FILLERS, keys, PLACEHOLDERS, EPITHETS, data.WORDS, prompts.WORDS)
    return build_tokenizer({*words, *OPENINGS, *map(str, range(10)), *";.?"}, name_parts())


def fresh(size: Size, folder: Path) -> None:
    """An untrained model with its tokenizer, for `specialise`."""
    made = tokenizer()
    with without_bars():
        build_model(Shape(width=size.width, layers=size.layers, inner=size.inner), made, seed=0).save_pretrained(folder)
    save_tokenizer(made, folder)
