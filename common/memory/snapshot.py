"""A store on disk: one JSON file and, where the store has arrays, one safetensors file. Nothing is unpickled.

    memory.json                     line 1: kind, checksum of line 2, name of the arrays file; line 2: the state
    arrays-<hash>.safetensors

The arrays are written first, under the hash of their content, and `memory.json` takes the place of the earlier one by
rename: a reader, or a crash at any moment, sees the old snapshot or the new one whole. One process writes at a time.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.experiments.errors import UserError
from common.files import replacing, write_atomically

FILE = "memory.json"
FORMAT = 1
Arrays = Mapping[str, NDArray[Any]]


def save(folder: Path, kind: str, state: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write a store's state.

    Args:
        kind: of store: `load` asks for the same.
        state: JSON values.
        arrays: by name; none and an empty mapping are the same.

    Raises:
        UserError: the folder cannot be written.
    """
    body = json.dumps(state, allow_nan=False)
    about: dict[str, Any] = {"format": FORMAT, "kind": kind, "sha256": _hash(body.encode()), "arrays": None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if arrays:
            from safetensors.numpy import save as to_bytes

            content = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
            about["arrays"] = f"arrays-{_hash(content)}.safetensors"
            with replacing(folder / about["arrays"]) as partial:
                partial.write_bytes(content)
        write_atomically(folder / FILE, f"{json.dumps(about)}\n{body}\n")
        for path in folder.glob("arrays-*.safetensors"):
            if path.name != about["arrays"]:
                path.unlink()
    except OSError as error:
        raise UserError(f"memory: cannot write {folder}: {error.strerror or error}") from None


def load(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The state and the arrays that were saved.

    Raises:
        UserError: nothing was saved there; a file is damaged or missing; the store is of another kind.
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
    return json.loads(body), _load_arrays(folder, about["arrays"]) if about["arrays"] else {}


def damaged(folder: Path, why: str) -> UserError:
    """The error of a snapshot that cannot be what was saved."""
    return UserError(f"memory: the snapshot in {folder} is damaged ({why}); restore another one")


def _load_arrays(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load as from_bytes

    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise damaged(folder, f"{name}: {error.strerror or error}") from None
    if name != f"arrays-{_hash(content)}.safetensors":
        raise damaged(folder, f"the checksum of {name} does not fit")
    arrays: dict[str, NDArray[Any]] = from_bytes(content)
    return arrays


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
