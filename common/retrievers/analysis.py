"""From text to the terms that BM25 counts.

A text is NFKC-normalised and case-folded (`Ｏslo`, `OSLO` and `oslo` are one word, and so are é and e + accent); a word
is a run of letters, digits and underscores, and each Chinese or Japanese character (hiragana, kanji) a word of its own.
A lone surrogate parts words. `Analyser()` keeps every word as it is. `ENGLISH` drops English stop words and stems the
rest (Snowball's English, "Porter 2"), as is usual for recall on real text.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bm25s.stopwords import STOPWORDS_EN

from common.experiments.errors import UserError, nearest

if TYPE_CHECKING:
    from Stemmer import Stemmer

_ONE = "぀-ゟ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ONE}]|[^\W{_ONE}]+")


@dataclass(frozen=True)
class Analyser:
    """How words become terms.

    Attributes:
        stop_words: case-folded words that are left out.
        stemmer: a Snowball algorithm of PyStemmer (`english`, `german`, ...); empty: words stay as they are.

    Raises:
        UserError: no such stemmer.
    """

    stop_words: frozenset[str] = field(default_factory=frozenset)
    stemmer: str = ""

    def __post_init__(self) -> None:
        if self.stemmer:
            from Stemmer import algorithms

            if self.stemmer not in algorithms():
                raise UserError(f"unknown stemmer '{self.stemmer}'{nearest(self.stemmer, algorithms())}")

    def term(self, word: str) -> str:
        """The term of a word; empty for a stop word."""
        if word in self.stop_words:
            return ""
        return self._stemmer.stemWord(word) if self.stemmer else word

    @cached_property
    def _stemmer(self) -> "Stemmer":
        from Stemmer import Stemmer

        return Stemmer(self.stemmer)


ENGLISH = Analyser(frozenset(STOPWORDS_EN), "english")


def words(text: str) -> list[str]:
    """The words of a text in order, normalised and case-folded."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
    found: list[str] = _WORD.findall(text.casefold())
    return found
