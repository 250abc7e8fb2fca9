"""Arrays and strings of a retriever: growing in memory, mapped from disk. npy and JSON only, nothing is unpickled."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError

ABOUT = "about.json"


class Rows:
    """An array that grows at its end without a copy at each step; mapped from disk until it first changes."""

    def __init__(self, content: NDArray[Any]) -> None:
        self._buffer, self._count = content, len(content)

    @property
    def array(self) -> NDArray[Any]:
        """All rows, as a view that later calls may make stale."""
        return self._buffer[: self._count]

    def append(self, new: NDArray[Any]) -> None:
        count = self._count + len(new)
        if count > len(self._buffer) or not self._buffer.flags.writeable:
            self._move(max(count, 2 * self._count))
        self._buffer[self._count : count] = new
        self._count = count

    def put(self, rows: Sequence[int], value: Any) -> None:
        """Overwrite some rows."""
        if not self._buffer.flags.writeable:
            self._move(self._count)
        self.array[rows] = value

    def _move(self, capacity: int) -> None:
        """Into memory of our own."""
        larger = np.empty((capacity, *self._buffer.shape[1:]), self._buffer.dtype)
        larger[: self._count] = self.array
        self._buffer = larger


class MappedStrings(Sequence[str]):
    """Strings on disk as one UTF-8 text and where each ends; read when asked for."""

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return self._text[start : int(self._ends[index])].tobytes().decode("utf-8", "surrogatepass")


def write_array(folder: Path, name: str, content: NDArray[Any]) -> None:
    """As `<name>.npy`. OSError: it cannot be written to its end."""
    with open(folder / f"{name}.npy", "w+b") as file:  # at "wb" numpy writes by itself, and may end short, silently
        np.save(file, content, allow_pickle=False)


def read_array(folder: Path, name: str) -> NDArray[Any]:
    """The array, mapped from disk; UserError when the file is missing or damaged."""
    path = folder / f"{name}.npy"
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"retriever in {folder}: {path.name} is missing or damaged ({error})") from None
    return found


def write_strings(folder: Path, name: str, strings: Sequence[str]) -> None:
    """Texts end to end in one file, where each ends in another."""
    parts = [string.encode("utf-8", "surrogatepass") for string in strings]
    write_array(folder, f"{name}.text", np.frombuffer(b"".join(parts), np.uint8))
    write_array(folder, f"{name}.ends", np.cumsum([len(part) for part in parts], dtype=np.int64))


def read_strings(folder: Path, name: str) -> MappedStrings:
    """What `write_strings` wrote, without reading it into memory. UserError: a file is missing or damaged."""
    return MappedStrings(read_array(folder, f"{name}.text"), read_array(folder, f"{name}.ends"))


def read_about(folder: Path) -> dict[str, Any]:
    """What the folder's retriever is; UserError when there is none."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    except FileNotFoundError:
        raise UserError(f"no retriever was saved in {folder}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"retriever in {folder}: {ABOUT} cannot be read ({error})") from None
    return about


@contextmanager
def saving(folder: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A folder to write into; it takes the place of `folder` when all is written, and `folder` is as it was if not.

    A kill -9 between the two renames leaves the old one beside it, as `.<name>.<hash>.old`.

    Raises:
        UserError: `folder` holds files and no retriever, or cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / ABOUT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something that is no retriever; save to another folder")
    fresh, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.{word}") for word in ("new", "old"))
    try:
        fresh.mkdir(parents=True)
        yield fresh
        (fresh / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    except OSError as error:
        raise UserError(f"retriever: cannot write {folder}: {error.strerror or error}") from None
    finally:
        if old.exists() and not folder.exists():  # an error, or an interruption, between the two
            os.replace(old, folder)
        for left in (fresh, old):
            if left.exists():
                shutil.rmtree(left)


def concatenated(parts: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Lists of whole numbers as one array."""
    return np.fromiter(chain.from_iterable(parts), np.int32, sum(map(len, parts)))
