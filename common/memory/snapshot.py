"""A store on disk: one JSON file. Nothing is unpickled.

    memory.json     line 1: kind, checksum of line 2; line 2: the state

It takes the place of the earlier one by rename: a reader, or a crash at any moment, sees the old snapshot or the new
one whole.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.experiments.errors import UserError
from common.files import write_atomically

FILE = "memory.json"
FORMAT = 1


def save(folder: Path, kind: str, state: Mapping[str, Any]) -> None:
    """Write a store's state.

    Args:
        kind: of store: `load` asks for the same.
        state: JSON values.

    Raises:
        UserError: the folder cannot be written.
    """
    body = json.dumps(state, allow_nan=False)
    about = {"format": FORMAT, "kind": kind, "sha256": _hash(body.encode())}
    try:
        write_atomically(folder / FILE, f"{json.dumps(about)}\n{body}\n")
    except OSError as error:
        raise UserError(f"memory: cannot write {folder}: {error.strerror or error}") from None


def load(folder: Path, kind: str) -> dict[str, Any]:
    """The state that was saved.

    Raises:
        UserError: nothing was saved there; the file is damaged; the store is of another kind.
    """
    path = folder / FILE
    try:
        header, _, body = path.read_text(encoding="ascii").partition("\n")
        body = body.removesuffix("\n")
        about = json.loads(header)
        intact = about["format"] == FORMAT and about["sha256"] == _hash(body.encode())
    except FileNotFoundError:
        raise UserError(f"no memory was saved in {folder}") from None
    except OSError as error:
        raise UserError(f"memory: cannot read {path}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError):
        intact = False
    if not intact:
        raise damaged(folder, "its checksum does not fit")
    if about["kind"] != kind:
        raise UserError(f"{folder} holds a memory of kind '{about['kind']}', not '{kind}'")
    state: dict[str, Any] = json.loads(body)
    return state


def damaged(folder: Path, why: str) -> UserError:
    """The error of a snapshot that cannot be what was saved."""
    return UserError(f"memory: the snapshot in {folder} is damaged ({why}); restore another one")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
