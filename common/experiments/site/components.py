"""The matrix of components and papers: which modules of `common/` the code of each paper imports by name."""

import ast
from collections.abc import Iterable
from pathlib import Path

LEFT_OUT = ("experiments", "guide")  # the engine, which every paper stands on, and the guide: no components


def components(slugs: Iterable[str], root: Path) -> dict[str, dict[str, list[str]]]:
    """Folder of `common/` -> module, as `bm25` -> slugs of the papers whose own files import it, in order."""
    folders = sorted(path.name for path in root.joinpath("common").glob("*") if path.is_dir())
    found: dict[str, dict[str, list[str]]] = {folder: {} for folder in folders if folder not in LEFT_OUT}
    for slug in slugs:
        names: set[str] = set()
        for path in sorted(root.joinpath("projects", slug).rglob("*.py")):
            names |= _imported(ast.parse(path.read_text(encoding="utf-8")))
        for name in sorted(names):
            top, _, rest = name.partition(".")
            folder, _, module = rest.partition(".")
            if top == "common" and folder in found and module and is_module(name, root):
                found[folder].setdefault(module, []).append(slug)
    return {folder: dict(sorted(modules.items())) for folder, modules in found.items() if modules}


def is_module(name: str, root: Path) -> bool:
    """Whether a dotted name is a file of the repository; packages are shown by their modules."""
    return root.joinpath(*name.split(".")).with_suffix(".py").is_file()


def _imported(tree: ast.AST) -> set[str]:
    """Every dotted name that an absolute import could mean as a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
