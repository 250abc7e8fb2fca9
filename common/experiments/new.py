"""`repro new SLUG`: a package whose tiny table runs at once, with its tests."""

import keyword
import re
from pathlib import Path
from string import Template

from common.experiments import catalogue
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT

TEMPLATE = Path(__file__).parent / "template"


def create(slug: str, root: Path = ROOT) -> list[Path]:
    """Write the package, its configs and its tests; returns the files.

    Raises:
        UserError: the name is no Python identifier in lower case, a keyword, or something by that name exists.
    """
    if keyword.iskeyword(slug):
        raise UserError(f"'{slug}' cannot name a package: it is a Python keyword")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise UserError(f"'{slug}' cannot name a package: use lower-case letters, digits and '_', a letter first")
    targets = {
        "project": root / "projects" / slug,
        "configs": root / "configs" / "table" / slug,
        "tests": root / "tests" / "projects" / slug,
    }
    for folder in targets.values():
        if folder.exists():
            raise UserError(f"{folder.relative_to(root)} exists already; choose another name or delete it")
    paper = catalogue.load().get(slug)
    words = {
        "slug": slug,
        "name": paper.name if paper else slug,
        "title": paper.title if paper else slug,
        "venue": paper.venue if paper else "",
    }
    written = []
    for part, folder in targets.items():
        for source in sorted((TEMPLATE / part).iterdir()):
            path = folder / source.name.removesuffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template(source.read_text()).substitute(words))
            written.append(path)
    return written
