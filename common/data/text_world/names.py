"""Names of the text world: composed of known parts, so that a test name is new while its parts are not.

A name is one word: an opening, none to two middles, an ending that tells the type (`Balman`, `Dertona`). The split
of a name is a checksum of its letters: worlds of different splits share no name, whatever their seeds.
"""

import random
import zlib
from collections.abc import Collection
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARE = {"train": 0.7, "validation": 0.15, "test": 0.15}

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t")
OPENINGS = tuple((o + v + c).capitalize() for o in _ONSETS for v in "aeio" for c in "lr")
MIDDLES = tuple(o + v for o in _ONSETS for v in "aeio")
ENDINGS = {
    "person": tuple(o + e for o in _ONSETS for e in ("an", "ia", "or", "en")),
    "city": tuple(o + e for o in _ONSETS for e in ("ona", "ury", "ale", "osk")),
    "company": tuple(o + e for o in _ONSETS for e in ("ex", "ix", "ium", "ys")),
    "country": tuple(o + e for o in _ONSETS for e in ("una", "avia", "eria", "ostan")),
}
TYPES = tuple(ENDINGS)
_TYPE_OF_ENDING = {ending: kind for kind, endings in ENDINGS.items() for ending in endings}
_LENGTHS = sorted({len(ending) for ending in _TYPE_OF_ENDING}, reverse=True)


def split_of(name: str) -> Split:
    """The split that a name belongs to."""
    place = zlib.crc32(name.encode()) % 1000 / 1000
    if place < SHARE["train"]:
        return "train"
    return "validation" if place < SHARE["train"] + SHARE["validation"] else "test"


def type_of(name: str) -> str:
    """The type whose ending the name has, of several the longest (`-seria` before `-ria`). ValueError when none."""
    for length in _LENGTHS:
        if kind := _TYPE_OF_ENDING.get(name[-length:]):
            return kind
    raise ValueError(f"'{name}' has no ending of {', '.join(TYPES)}")


def look_alike(a: str, b: str) -> bool:
    """Whether two names of one type share their opening."""
    return a != b and a[:3] == b[:3] and type_of(a) == type_of(b)


def new_name(
    rng: random.Random, kind: str, split: Split, taken: Collection[str], middles: int = 0, like: str = ""
) -> str:
    """A name of the split that is not taken.

    Args:
        kind: one of TYPES.
        middles: 0 to 2 middle parts; 0 gives 4,608 names a type over all splits, 1 gives 221,184.
        like: a name whose opening is shared, for a look-alike; "" for any opening.

    Raises:
        ValueError: no free name was found in 1,000 draws: ask for more middles.
    """
    for tried in range(1000):
        known = like[:3] if tried < 200 else ""  # the opening may be exhausted
        opening = known or rng.choice(OPENINGS)
        name = opening + "".join(rng.choice(MIDDLES) for _ in range(middles)) + rng.choice(ENDINGS[kind])
        if name not in taken and split_of(name) == split and type_of(name) == kind:
            return name
    raise ValueError(f"no free name for a {kind} of the {split} split with {middles} middle parts")
