"""A small `Lfm2` that has read nothing, with a tokenizer for a closed vocabulary: where a tiny scale starts afresh.

`Size` is for a paper's `Settings`: torch and transformers are not imported before something is made.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.text_world.names import OPENINGS
from common.data.text_world.relations import CLOSED, FILLERS, RELATIONS
from common.experiments.errors import UserError
from common.models.hub import without_bars
from common.models.microlm.lexicon import name_parts, words_of


@dataclass(frozen=True)
class Size:
    """Of a model from scratch: width, a multiple of 32, layers, and inner width of the feed-forward layers.

    Raises:
        UserError: another width, or a number below 1.
    """

    width: int = 64
    layers: int = 4
    inner: int = 192

    def __post_init__(self) -> None:
        if self.width < 32 or self.width % 32:
            raise UserError(f"width of a model from scratch must be a multiple of 32, not {self.width}")
        if min(self.layers, self.inner) < 1:
            raise UserError(f"layers and inner of a model must be at least 1, not {self.layers} and {self.inner}")


def closed_tokenizer(*texts: str | Iterable[str], marks: str) -> Any:
    """One token for a digit, a mark or a word of the text world's notes and of `texts`, two or three for a name.

    Any other text is spelled in bytes.
    """
    from common.models.microlm.tokenizer import build_tokenizer

    keys = [relation.key for relation in RELATIONS.values()]
    words = words_of(*CLOSED.values(), FILLERS, keys, *texts)
    return build_tokenizer([*words, *OPENINGS, *"0123456789", *marks], name_parts())


def fresh(size: Size, tokenizer: Any, folder: Path) -> None:
    """A model with random weights, the same ones each time, and the tokenizer: an ordinary checkpoint in `folder`."""
    from common.models.microlm.model import Shape, build_model
    from common.models.microlm.tokenizer import save_tokenizer

    shape = Shape(width=size.width, layers=size.layers, inner=size.inner)
    with without_bars():
        build_model(shape, tokenizer, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
