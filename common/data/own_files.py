"""Files that a user brings, in a folder of the data mirror: JSON lines in the form that a paper's README gives."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from common.experiments.errors import UserError

Row = TypeVar("Row")


def own_file(data: Path | None, folder: str, name: str, paper: str) -> Path:
    """Where a file of one's own lies.

    Args:
        data: mirror folder (`Context.data`, from `REPRO_DATA`), None when there is none.
        paper: whose README says what the file holds.

    Raises:
        UserError: it is not there.
    """
    path = Path(folder, name) if data is None else data / folder / name
    if data is None or not path.is_file():
        where = "REPRO_DATA names no mirror" if data is None else "REPRO_DATA names the mirror"
        raise UserError(f"{path} is missing: the README of {paper} says what it holds ({where})")
    return path


def read_lines(path: Path, parse: Callable[[Any], Row]) -> list[Row]:
    """The rows of a file of JSON lines; lines without anything are passed over.

    Args:
        parse: of a line's value; it may raise ValueError, with what is wrong.

    Raises:
        UserError: a line is no JSON, or not what `parse` takes; there are no rows.
    """
    rows = []
    with path.open("rb") as file:  # bytes end at \n alone: texts may hold U+2028
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_parsed(line, parse, f"{path}, line {number}"))
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def _parsed(line: bytes, parse: Callable[[Any], Row], where: str) -> Row:
    try:
        value = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{where}: no JSON: {error}") from None
    try:
        return parse(value)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def sha256(path: Path) -> str:
    """Of the bytes of a file, for the keys of what is made of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
