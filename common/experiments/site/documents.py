"""Markdown of the repository as pages of the site: the guide, READMEs, and what stands beside the reports.

A text is hostile: none of its HTML is let through, no image of it is loaded, and no address but one of the web or of a
file that is there becomes a link; every other link is its words alone.
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

GUIDE = ("common/guide/*.md", "README.md", "common/**/README.md", "slurm/*.md")
WEB = ("http", "https", "mailto")
LABELS = ("text", "code_inline")


@dataclass(frozen=True)
class Document:
    """A page made of a Markdown file.

    Attributes:
        source: the file, from the root of the repository; page: from the folder of the reports.
        paper: the slug of the paper that it belongs to, empty where it belongs to none.
    """

    source: str
    page: str
    paper: str = ""

    @property
    def up(self) -> str:
        """From the folder of the page to that of the reports."""
        return "../" * self.page.count("/")


def guide(root: Path) -> list[Document]:
    """The guide and the READMEs beside it, as `guide.html` and `guide-<name>.html`, where no folder of a paper is."""
    found = dict.fromkeys(path.relative_to(root) for pattern in GUIDE for path in sorted(root.glob(pattern)))
    return [Document(path.as_posix(), _guide_page(path)) for path in found]


def _guide_page(path: Path) -> str:
    parts = path.with_suffix("").parts
    name = "-".join(parts[2:] if parts[:2] == ("common", "guide") else parts).lower()
    return "guide.html" if name == "index" else f"guide-{name}.html"


def beside(notes: Iterable[str], paper: str = "") -> list[Document]:
    """Markdown in the folder of the reports, each beside its file; a name that another page has stays a file."""
    return [
        Document(f"reports/{note}", f"{note.removesuffix('.md')}.html", paper)
        for note in notes
        if Path(note).stem not in ("index", "readme")
    ]


def linker(document: Document, pages: dict[str, str], reports: Path, root: Path) -> Callable[[str], str]:
    """What a link of the document becomes on its page; empty where it leads nowhere.

    Args:
        pages: file -> page, as in `Document`, with `#fragment` where the file is a part of a page.
    """

    def link(address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
            return address if parts.scheme in WEB else ""
        fragment = f"#{quote(unquote(parts.fragment))}" if parts.fragment else ""
        if not parts.path:
            return fragment
        target = posixpath.normpath(posixpath.join(posixpath.dirname(document.source), unquote(parts.path)))
        folder_page = pages.get(f"{target}/README.md")
        if page := pages.get(target, folder_page):
            return document.up + (page if "#" in page else page + fragment)
        below = target.removeprefix("reports/")
        if target.startswith(("/", "../")) or not (root / target if below == target else reports / below).is_file():
            return ""
        return document.up + quote(f"../{target}" if below == target else below)

    return link


def render(text: str, link: Callable[[str], str], name: str) -> tuple[str, Markup]:
    """Title and body of a page.

    Args:
        link: what an address of the text becomes; empty: no link.
        name: the title where the text has no heading of the first level.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    tokens = [token for token in parser.parse(text) if not (token.type == "fence" and token.info.startswith("{"))]
    title, used = "", {"main"}
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            words = "".join(part.content for part in tokens[place + 1].children or [] if part.type in LABELS)
            title = title or (words if token.tag == "h1" else "")
            token.attrs["id"] = _identity(words, used)
        elif token.type in ("th_open", "td_open"):  # the page's policy would refuse the parser's style
            right = "right" in str(token.attrs.pop("style", ""))
            token.attrs |= ({"scope": "col"} if token.tag == "th" else {}) | ({"class": "num"} if right else {})
        elif token.type == "inline":
            token.children = _linked(token.children or [], link)
    body = _clean(parser.renderer.render(tokens, parser.options, {}))
    top = Markup() if title else Markup("<h1>{}</h1>\n").format(name)
    return title or name, top + Markup(body)  # the renderer escapes every text and attribute


def _table_open(self: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    return '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n'


def _table_close(self: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    return "</table></div>\n"


def _identity(words: str, used: set[str]) -> str:
    """Id of a heading as GitHub makes it; one that is taken gets a number."""
    base = re.sub(r"[^\w\- ]", "", _clean(words).lower()).strip().replace(" ", "-") or "section"
    name = next(name for i in range(len(used) + 1) if (name := f"{base}-{i}" if i else base) not in used)
    used.add(name)
    return name


def _linked(children: list[Token], link: Callable[[str], str]) -> list[Token]:
    """The tokens of a line with their links led on; those that lead nowhere are taken off their words."""
    shown: list[Token] = []
    led = ""
    for token in children:
        if token.type == "link_open":
            led = link(str(token.attrs["href"]))
            token.attrs = {"href": led}
        if led or token.type not in ("link_open", "link_close"):
            shown.append(token)
    return shown


def _clean(text: str) -> str:
    """Without control and direction-changing characters, from references (`&#x202e;`) as well; lines stay."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c == "\n" or c.isprintable() else _space(c) for c in text)


def _space(character: str) -> str:
    return " " if character == "\t" or unicodedata.category(character)[0] == "Z" else ""
