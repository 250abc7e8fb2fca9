"""Content hashes: of settings, and of the code a module can reach inside this repository.

Two checkouts with the same settings hash and code hash compute the same cell. Comments, docstrings and
formatting do not count: a file's hash is that of its syntax tree without docstrings.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "projects")  # the import closure stays inside these


def digest(value: Any, length: int = 12) -> str:
    """Short hash of a JSON-serialisable value, independent of the order of mapping keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def code_fingerprint(module: str, root: Path = ROOT) -> str:
    """Hash of every file that `module` can reach by imports inside the repository (see `code_files`)."""
    return digest(code_files(module, root), length=8)


def code_files(module: str, root: Path = ROOT) -> dict[str, str]:
    """Path (relative to `root`) -> hash for `module` and its import closure.

    Imports inside functions count too. Text files under `prompts/` beside a reached module are part of
    the method and count byte by byte.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        path = _module_path(waiting.pop(), root)
        if path is None or str(path.relative_to(root)) in found:
            continue
        tree_hash, imports = _parse(path, path.relative_to(root).parent, _stamp(path))
        found[str(path.relative_to(root))] = tree_hash
        for prompt in sorted(path.parent.glob("prompts/**/*")):
            if prompt.is_file() and prompt.suffix not in (".py", ".pyc") and not prompt.name.startswith("."):
                found[str(prompt.relative_to(root))] = _hash(prompt, _stamp(prompt))
        waiting += imports
    return dict(sorted(found.items()))


def pin() -> None:
    """From now on this process answers with each file as it was first read.

    A worker calls it before it imports a paper: edits of the source amid its life change neither the code that it
    runs nor the keys that it computes.
    """
    global _pinned
    _pinned = True


_pinned = False


def _stamp(path: Path) -> tuple[int, int]:
    """Modification time in ns and size in bytes: what a cached reading of a file is good for."""
    stat = path.stat()
    return (0, 0) if _pinned else (stat.st_mtime_ns, stat.st_size)


@cache
def _hash(path: Path, stamp: tuple[int, int]) -> str:
    """Hash of a file byte by byte."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _module_path(module: str, root: Path) -> Path | None:
    """File of a dotted module, None when it is no module of this repository (`from x import function`)."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _parse(path: Path, package: Path, stamp: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Hash of a file's syntax tree without docstrings, and the modules it names in imports."""
    tree = ast.parse(path.read_text(), filename=str(path))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    text = ast.dump(tree, include_attributes=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12], tuple(_imports(tree, package.parts))


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Every dotted name that an import statement in `package` could mean as a module, and the packages above it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
