"""Vectors that were computed once, on disk: an encoder that remembers.

    encoder = CachedEncoder(build("minilm"), default_folder())
    encoder.encode(texts)        # encodes what no process has encoded before, reads the rest

Layout: `<folder>/<model>-<hash>/` for each encoder (name, revision, dimension, settings), in it `about.json` and
segments: npy files of records (key, vector), where key = the first 16 bytes of the SHA-256 of role and text. A segment
appears whole, by rename, and is never changed; so processes may share a folder, and a call that is interrupted keeps
what it had finished. When small segments pile up (an agent that encodes note after note) they are merged. Two processes
that encode one text at once both store it, and readers take either: the two agree to 1e-5. `entries` shows what is
kept, `clear` drops it.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from common.experiments.errors import UserError, nearest
from common.files import replacing, user_cache, write_atomically
from common.models.encoders import Encoder, Role, Vectors

CHUNK = 2048  # texts encoded between two writes: what an interruption may cost
SMALL = 1024  # rows; segments below are merged ...
CROWD = 64  # ... when there are this many
KEY_BYTES = 16


def default_folder() -> Path:
    """`$REPRO_CACHE/embeddings`, else ~/.cache/repro/embeddings."""
    return user_cache("embeddings")


class CachedEncoder:
    """An encoder whose vectors are kept in `folder`; itself an encoder.

    Attributes:
        encoded: texts that had to be encoded so far.
        found: distinct texts of each call that were read instead, summed over calls.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder, self._root = encoder, folder
        self.name, self.revision = encoder.name, encoder.revision
        self.dimension, self.settings = encoder.dimension, encoder.settings
        self.encoded = self.found = 0
        self._about = {
            "name": self.name,
            "revision": self.revision,
            "dimension": self.dimension,
            "settings": dict(self.settings),
        }
        digest = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode()).hexdigest()[:12]
        self._folder = folder / f"{self.name.replace('/', '--')}-{digest}"
        self._record = np.dtype([("key", f"V{KEY_BYTES}"), ("vector", np.float32, (self.dimension,))])
        self._segments: dict[str, NDArray[Any]] = {}
        self._rows: dict[bytes, tuple[str, int]] = {}

    def encode(self, texts: Sequence[str], role: Role = "passage") -> Vectors:
        """As `Encoder.encode`.

        Raises:
            UserError: the folder cannot be written, or holds a damaged file.
            ValueError: `texts` is one string.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a sequence of strings, not one string")
        keys = [_key(text, role) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        if any(key not in self._rows for key in wanted):
            self._refresh()
        missing = {key: text for key, text in wanted.items() if key not in self._rows}
        # Longest first, so that a chunk holds texts of like length.
        ordered = sorted(missing, key=lambda key: -len(missing[key]))
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            self._write(chunk, self._encoder.encode([missing[key] for key in chunk], role))
        self.encoded += len(missing)
        self.found += len(wanted) - len(missing)
        return self._gather(keys)

    def _gather(self, keys: Sequence[bytes]) -> Vectors:
        """Stored vectors of `keys`, [N, D]."""
        places = [self._rows[key] for key in keys]
        by_segment: dict[str, list[int]] = {}
        for position, (segment, _) in enumerate(places):
            by_segment.setdefault(segment, []).append(position)
        vectors = np.empty((len(keys), self.dimension), np.float32)
        for segment, positions in by_segment.items():
            vectors[positions] = self._segments[segment]["vector"][[places[i][1] for i in positions]]
        return vectors

    def _refresh(self) -> None:
        """See what other processes wrote or merged since; what this one has read stays, even if it was cleared."""
        while True:
            names = _segments(self._folder)
            try:
                for name in names - self._segments.keys():
                    self._index(name, self._open(name))
                break
            except FileNotFoundError:  # merged or cleared between listing and opening: list again
                continue
        if self._segments.keys() - names:
            used = {name for name, _ in self._rows.values()}
            self._segments = {name: segment for name, segment in self._segments.items() if name in names | used}

    def _open(self, name: str) -> NDArray[Any]:
        path = self._folder / name
        small = path.stat().st_size < SMALL * self._record.itemsize  # read whole: a merge on another host may unlink it
        try:
            segment: NDArray[Any] = np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
        except ValueError as error:
            raise UserError(f"embedding cache: {path} is damaged ({error}); delete it") from None
        if segment.dtype != self._record:
            raise UserError(f"embedding cache: {path} holds {segment.dtype}, not {self._record}; delete it")
        return segment

    def _index(self, name: str, segment: NDArray[Any]) -> None:
        self._segments[name] = segment
        stored = np.ascontiguousarray(segment["key"]).tobytes()
        for row in range(len(segment)):
            self._rows[stored[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = (name, row)

    def _write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Store vectors as a new segment; merge when there are many small ones."""
        records = np.empty(len(keys), self._record)
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["vector"] = vectors
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._root / ".lock"):
                self._store(records)
                self._merge_when_crowded()
        except OSError as error:
            raise UserError(
                f"embedding cache: cannot write {self._root}: {error.strerror or error}; "
                "set REPRO_CACHE to a folder that can be written"
            ) from None

    def _store(self, records: NDArray[Any]) -> None:
        """A new segment, whole or not at all; the lock is held."""
        self._folder.mkdir(exist_ok=True)  # again: a clear may have come first
        about = self._folder / "about.json"
        if not about.exists():
            write_atomically(about, json.dumps(self._about, indent=1))
        content = io.BytesIO()
        np.save(content, records, allow_pickle=False)
        name = f"{uuid.uuid4().hex}.npy"
        with replacing(self._folder / name) as partial:
            partial.write_bytes(content.getbuffer())
        self._index(name, self._open(name))

    def _merge_when_crowded(self) -> None:
        """Put many small segments into one; the lock is held, so that none comes or goes meanwhile."""
        if sum(len(segment) < SMALL for segment in self._segments.values()) < CROWD:
            return
        self._refresh()
        on_disk = _segments(self._folder)
        names = [name for name, segment in self._segments.items() if len(segment) < SMALL and name in on_disk]
        if len(names) < CROWD:
            return
        merged = np.concatenate([self._segments[name] for name in names])
        rows = {key.tobytes(): row for row, key in enumerate(merged["key"])}  # a text that two processes encoded: once
        self._store(merged[list(rows.values())])
        for name in names:
            os.unlink(self._folder / name)
        self._refresh()


@dataclass(frozen=True)
class Kept:
    """What the cache holds of one encoder: vectors and bytes on disk."""

    folder: Path
    name: str
    revision: str
    dimension: int
    settings: Mapping[str, str | int | bool]
    vectors: int
    bytes: int


def entries(folder: Path) -> list[Kept]:
    """One entry for each encoder with vectors in the cache, in the order of their names.

    Raises:
        UserError: a file there is damaged.
    """
    kept = []
    for about in sorted(folder.glob("*/about.json")):
        paths = [about.parent / name for name in _segments(about.parent)]
        try:
            vectors = sum(len(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths)
            described = json.loads(about.read_text())
        except (ValueError, EOFError) as error:
            raise UserError(f"embedding cache: {about.parent} is damaged ({error}); delete it") from None
        size = sum(path.stat().st_size for path in paths)
        kept.append(Kept(about.parent, **described, vectors=vectors, bytes=size))
    return kept


def clear(folder: Path, name: str | None = None) -> int:
    """Delete the vectors of the encoders of that name, or of all; how many there were.

    Running processes go on with what they had read.

    Raises:
        UserError: nothing is kept of that encoder.
    """
    kept = entries(folder)
    if name is not None and name not in (entry.name for entry in kept):
        raise UserError(f"no vectors of '{name}' are kept in {folder}{nearest(name, {e.name for e in kept})}")
    doomed = [entry for entry in kept if name in (None, entry.name)]
    if doomed:
        with FileLock(folder / ".lock"):
            for entry in doomed:
                shutil.rmtree(entry.folder)
    return sum(entry.vectors for entry in doomed)


def _key(text: str, role: Role) -> bytes:
    return hashlib.sha256(f"{role}\0{text}".encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def _segments(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if name.endswith(".npy")}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UserError(f"embedding cache: cannot read {folder}: {error.strerror or error}") from None
