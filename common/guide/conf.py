"""Sphinx: the guide, the READMEs, the reports and an API reference from docstrings. `make docs`; see build/docs.

The source directory is the repository's root, so that links between pages are the ones that work in the repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = "Memory reproductions"
root_doc = "common/guide/index"
include_patterns = [
    "common/**/*.md",
    "projects/*/README.md",
    "slurm/*.md",
    "reports/**/*.md",
    "build/api/*.rst",
]
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
apidoc_modules = [
    {
        "path": "../../common",
        "destination": "build/api",
        "max_depth": 2,
        "exclude_patterns": ["../../common/guide"],
        "automodule_options": {"members", "show-inheritance"},
    },
]
toc_object_entries = False  # thousands: they would dwarf the pages
napoleon_use_ivar = True
default_role = "code"
highlight_language = "none"
html_theme = "furo"
