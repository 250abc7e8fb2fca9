"""Sphinx: the guide, the READMEs, the reports and a reference of `common` from its docstrings, by `make docs`.

The source directory is the repository's root, so that a link between pages is the one that works in the repository.
"""

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[2]

project = "Memory reproductions"
root_doc = "common/guide/index"
include_patterns = [
    "README.md",
    "common/**/*.md",
    "projects/*/README.md",
    "slurm/*.md",
    "reports/*.md",
    "reports/*/*.md",
    "build/api/common*.rst",
]
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
apidoc_modules = [
    {
        "path": "../../common",
        "destination": "build/api",
        "exclude_patterns": ["../../common/guide"],
        "automodule_options": {"members", "show-inheritance"},
    },
]
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has the types
default_role = "code"
highlight_language = "none"
toc_object_entries = False  # thousands: they would dwarf the pages
suppress_warnings = ["ref.python"]  # attributes that are named as a built-in type
html_theme = "furo"
html_title = project

SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


def literal_blocks(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have indented code, equations and tables as Markdown has them; reST wants `::` before each."""
    shown: list[str] = []
    inside = section = False
    for previous, line in zip(["", *lines], lines, strict=False):
        block = line.startswith(("    ", "|")) and not section
        if block and not inside and (not previous or line.startswith("|")):
            shown += ["", "::", ""]
            inside = True
        elif line and not block:
            inside = False
            section = line in SECTIONS or (section and line.startswith(" "))
        shown.append(f"    {line}" if block and line.startswith("|") else line if inside else inline(line))
    lines[:] = shown


def inline(line: str) -> str:
    """A line of prose with its code in double backticks, as reST has it, and `|` for itself."""
    parts = re.split(r"(`[^`]+`)", line)
    code = [f"``{part[1:-1].strip()}``" for part in parts[1::2]]
    text = [part.replace("|", r"\|") for part in parts[0::2]]
    joined = [before + "\\ " * after[:1].isalnum() for before, after in zip(code, text[1:], strict=True)]
    return text[0] + "".join(a + b for a, b in zip(joined, text[1:], strict=True))


def folder_links(app: Any, docname: str, source: list[str]) -> None:
    """A link to a folder leads to its README, else to its part of the reference, else nowhere."""

    def link(found: re.Match[str]) -> str:
        folder = (ROOT / docname).parent.joinpath(found[2]).resolve()
        if not folder.is_dir():
            return found[0]
        if (folder / "README.md").exists():
            return f"[{found[1]}](/{(folder / 'README.md').relative_to(ROOT)})"
        if (folder / "__init__.py").exists():
            return f"[{found[1]}](/build/api/{'.'.join(folder.relative_to(ROOT).parts)}.rst)"
        return found[1]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^):#]+)\)", link, source[0])


def page_links(app: Any, doctree: nodes.document) -> None:
    """A link to a page of the report site leads there from where the guide is built; no copy would have neighbours."""
    built = Path(app.builder.get_outfilename(app.env.current_document.docname)).parent
    for link in list(doctree.findall(addnodes.download_reference)):
        _, page = app.env.relfn2path(link["reftarget"])
        if page.endswith(".html"):
            link.replace_self(nodes.reference("", "", *link.children, refuri=os.path.relpath(page, built)))


def setup(app: Any) -> None:
    """Connect what this file does to pages to the events of Sphinx."""
    app.connect("doctree-read", page_links, priority=100)  # before downloads are collected
    app.connect("autodoc-process-docstring", literal_blocks, priority=100)  # before napoleon reads the sections
    app.connect("source-read", folder_links)
