"""The code of a paper as it is now, copied into the runs folder: what queued jobs import, whatever is edited meanwhile.

runs/<paper>/code/<hash>/    common/  projects/<paper>/
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT, code_fingerprint
from common.experiments.records import Store


def take(store: Store, code_hash: str, root: Path = ROOT) -> Path:
    """Folder with a copy of `common` and the paper's package, made once for each state of the working tree.

    Raises:
        UserError: the code is no longer what `code_hash` was computed from.
    """
    files = _contents(store.paper, root)
    folder = _place(store, files)
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        for path, content in files.items():
            copy = partial / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        try:
            partial.rename(folder)
        except OSError:  # another shell was faster
            shutil.rmtree(partial)
    if code_fingerprint(f"projects.{store.paper}.run", folder) != code_hash:
        raise UserError("the code changed while the cells were composed; run the command again")
    return folder


def place(store: Store, code_hash: str, root: Path = ROOT) -> Path:
    """Where `take` would put the copy; nothing is written."""
    return _place(store, _contents(store.paper, root))


def _contents(paper: str, root: Path) -> dict[str, bytes]:
    return {path: root.joinpath(path).read_bytes() for path in sorted(_files(paper, root))}


def _place(store: Store, files: Mapping[str, bytes]) -> Path:
    state = hashlib.sha256()
    for path, content in files.items():
        state.update(f"{path}\0{len(content)}\0".encode() + content)
    return store.runs.absolute() / store.paper / "code" / state.hexdigest()[:12]


def _files(paper: str, root: Path) -> Iterator[str]:
    """What git tracks or would track; without git every file that is no cache."""
    wanted = ("common", f"projects/{paper}", "projects/__init__.py", "projects/catalogue.yaml")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        listed = None
    if listed is not None and listed.returncode == 0 and listed.stdout:
        yield from (name for name in listed.stdout.split("\0") if name and root.joinpath(name).is_file())
        return
    for start in wanted:
        paths = [root / start] if root.joinpath(start).is_file() else root.joinpath(start).rglob("*")
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(root))
