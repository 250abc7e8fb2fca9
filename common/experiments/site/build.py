"""The report site: static pages below `reports/`, made from committed files alone.

    index.html  <slug>/index.html  matrix.html  costs.html  changes.html
    guide.html  <slug>/readme.html  and each other Markdown file (`documents`)

Each page stands by itself: style and script are inlined and allowed by their hash, nothing is loaded from outside, and
without scripts everything can be read. All text is escaped where it enters a page (`environment`); links lead only to
files that are there.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.experiments.catalogue import SCALES, Paper, implemented, tables
from common.experiments.claims import NOT_TESTED
from common.experiments.fingerprint import ROOT
from common.experiments.render import BOUNDS, EFFECT, LEGEND, STATUSES, VERDICTS, Report, plain
from common.experiments.site.changes import changes, load
from common.experiments.site.components import components
from common.experiments.site.documents import Document, beside, guide, linker
from common.experiments.site.documents import render as render_document
from common.experiments.site.untested import Untested, untested
from common.experiments.site.views import Entry, ReportView, view
from common.experiments.verdicts import NOT_RUN
from common.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"
BAD_REPORT = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
ENOUGH = 2  # seeds: one has no interval, so it decides nothing
RULE = (
    "A claim or published figure counts once: at the largest scale that was run with at least two seeds, "
    "or where there is none at the largest that was run."
)
GLOSS = {  # scales for who sees them first
    "tiny": "tiny scale (small models, offline)",
    "small": "small scale (small models, real data)",
    "paper": "paper scale (the paper's own models and data)",
}
CONTROL = "K"  # how ids of claims of our own about controls begin; the others are of the paper
URGENCY = ("fails", "underpowered", "holds", "not tested")  # as the index lists claims of a paper
HEADLINE = "headline"  # the table that a paper's page begins with
STATES = ("reported", "implemented", "not implemented")  # as the index lists them
SITE_PAGES = ("index.html", "matrix.html", "costs.html", "changes.html")
EXPLAINED = "common/guide/verdicts.md"  # its tables say what each status and verdict means
GUIDE_PAGE = "guide.html"
GENERATOR = '<meta name="generator" content="repro report">'  # near the top of every page
OTHER_PAGES = (
    "first_hour.md",
    "performance.md",
    "retrievers.md",
    "microlm/skills.md",
    "microlm/ten_minutes.md",
    "microlm/facts.md",
)


@dataclass(frozen=True)
class PaperView:
    """A paper with its reports.

    Attributes:
        state: one of `STATES`.
        scales: table -> its scales.
        page: whether it has a page of its own.
        notes: files beside the reports that people wrote.
        readme: whether its package has one.
        untested: what it claims or published that no report has, or why this is not known.
    """

    paper: Paper
    state: str
    scales: Mapping[str, list[str]]
    reports: list[ReportView]
    notes: list[Document]
    readme: bool
    untested: Untested

    @property
    def page(self) -> bool:
        return self.state != "not implemented"

    @property
    def ran(self) -> set[tuple[str, str]]:
        """Table and scale of every report with a finished cell."""
        return {(report.table, report.scale) for report in self.reports if report.cells}

    @property
    def progress(self) -> str:
        """The state, or of how many tables there are figures: `1 of 6 tables`."""
        ran = {table for table, _ in self.ran}
        tables = ran | self.scales.keys()
        return f"{len(ran)} of {len(tables)} table{'' if len(tables) == 1 else 's'}" if ran else self.state

    @property
    def statuses(self) -> Counter[str]:
        """Of the paper's claims, each counted once."""
        return Counter(claim.word for claim in self._claims if not claim.name.startswith(CONTROL))

    def outcomes(self, controls: bool) -> list[tuple[str, list[tuple[str, str]]]]:
        """Of the paper's claims, or of ours about controls: each status, what fails first, with id and anchor of those
        that have it."""
        found: dict[str, list[tuple[str, str]]] = {}
        for claim in sorted(self._claims, key=lambda claim: _natural(claim.name)):
            if claim.name.startswith(CONTROL) == controls:
                found.setdefault(claim.word, []).append((plain(claim.name, 30), claim.place))
        order = [*URGENCY, *sorted(found.keys() - set(URGENCY))]
        return [(word, found[word]) for word in order if word in found]

    @property
    def controls(self) -> Counter[str]:
        """Of our own claims about controls, each counted once."""
        return Counter(claim.word for claim in self._claims if claim.name.startswith(CONTROL))

    @property
    def verdicts(self) -> Counter[str]:
        """Of the published figures, each counted once."""
        figures = counted((report.table, report.compared) for report in self.reports)
        return Counter(figure.word for figure in figures) + Counter({NOT_RUN: self.untested.figures.total()})

    @property
    def _claims(self) -> list[Entry]:
        waiting = [Entry(claim.id, NOT_TESTED, 0, claim.anchor) for claim in self.untested.claims]
        return counted((report.table, report.claims) for report in self.reports) + waiting

    @property
    def cells(self) -> dict[str, tuple[float, float]]:
        """Minutes of wall and CPU time of every cell, once however many tables share it."""
        return {name: minutes for report in self.reports for name, minutes in report.minutes.items()}

    @property
    def wall_minutes(self) -> float:
        return sum(wall for wall, _ in self.cells.values())

    @property
    def cpu_minutes(self) -> float:
        return sum(cpu for _, cpu in self.cells.values())


def build(reports: Path, catalogue: Mapping[str, Paper], root: Path = ROOT) -> Path:
    """Write every page from the catalogue, the sources of the papers and every `<slug>/<table>.<scale>.json`.

    An `expected.yaml` that cannot be understood is named on its paper's page, and printed.

    Args:
        root: the repository whose run functions, configs and imports say what is implemented, and of what.

    Returns:
        The index: papers by `STATES`, then as in the catalogue; packages outside it (`repro new`) after those.
    """
    running = implemented(root)
    raw: dict[str, Report] = {}
    found = {folder.name: _views(folder, raw) for folder in sorted(reports.glob("*")) if folder.is_dir()}
    extra = [slug for slug in sorted({*running, *found} - catalogue.keys()) if slug in running or found[slug]]
    own = [Paper(slug, slug, "", "", "", "Outside the catalogue", "", "") for slug in extra]
    papers = []
    for paper in [*catalogue.values(), *own]:
        views = found.get(paper.slug, [])
        state = "reported" if views else "implemented" if paper.slug in running else "not implemented"
        scales = dict(sorted(tables(paper.slug, root).items(), key=lambda entry: _place(entry[0])))
        notes = beside(_notes(reports, paper.slug, views), paper.slug)
        readme = root.joinpath("projects", paper.slug, "README.md").is_file()
        waiting = untested(root / "projects" / paper.slug / "expected.yaml", scales, views)
        if waiting.error:
            print(waiting.error)
        papers.append(PaperView(paper, state, scales, views, notes, readme, waiting))
    shown = [paper for paper in papers if paper.page]
    release = load(reports)
    others = beside(name for name in OTHER_PAGES if (reports / name).is_file())
    documents = [*guide(root), *others, *(each for paper in shown for each in _documents(paper))]
    groups = list(dict.fromkeys((view.paper.group, view.paper.group_title) for view in papers))
    listed = sorted(papers, key=lambda view: STATES.index(view.state))
    guided = any(each.page == GUIDE_PAGE for each in documents)
    explained = next((quote(each.page) for each in documents if each.source == EXPLAINED), "")
    shared: dict[str, Any] = {"papers": listed, "shown": shown, "known": catalogue, "guide": guided}
    said = opening(papers, catalogue)
    _write(reports / "index.html", "index.html", said=said, groups=groups, others=others, explained=explained, **shared)
    _write(reports / "costs.html", "costs.html", **shared)
    slugs = [paper.paper.slug for paper in shown if paper.paper.slug in running]
    _write(reports / "matrix.html", "matrix.html", slugs=slugs, matrix=components(slugs, root), **shared)
    _write(reports / "changes.html", "changes.html", release=release, changes=changes(release, raw), **shared)
    for each in shown:
        values = {"view": each, "guide": guided, "explained": explained}
        _write(reports / each.paper.slug / "index.html", "paper.html", up="../", **values)
    pages = {each.source: quote(each.page) for each in documents} | _report_pages(shown)
    names = {paper.paper.slug: paper.paper.name for paper in shown}
    for document in documents:
        text = _read(document, reports, root)
        title, body = render_document(text, linker(document, pages, reports, root), document.source)
        about = {"title": title, "body": body, "document": document, "paper": names.get(document.paper, "")}
        _write(reports / document.page, "document.html", up=document.up, guide=guided, **about)
    written = {*SITE_PAGES, *(f"{each.paper.slug}/index.html" for each in shown), *(each.page for each in documents)}
    _remove_others(reports, {reports / page for page in written})
    return reports / "index.html"


def opening(papers: Sequence[PaperView], known: Mapping[str, Paper]) -> str:
    """What has been run and what came of it, for who sees the index first; the numbers are those of the index.

    Args:
        known: the catalogue; papers outside it are told apart.
    """
    ran = [paper for paper in papers if paper.ran]
    inside = sum(paper.paper.slug in known for paper in ran)
    outside = f", and {len(ran) - inside} outside the catalogue" if len(ran) > inside else ""
    said = f"Run so far: {inside or 'none'} of the {len(known)} papers{outside}"
    if not ran:
        return f"{said}."
    at = {scale: sum(any(scale == run for _, run in paper.ran) for paper in ran) for scale in SCALES}
    tiny, small, paper = (f"{at[scale] or 'none'} at {GLOSS[scale]}" for scale in SCALES)
    said += f"; {tiny}, {small} and {paper}"
    if at["paper"]:
        said += ". Only at paper scale can a published figure be confirmed or refuted."
    else:
        said += ", so no published figure is confirmed or refuted yet."
    statuses = sum((paper.statuses for paper in papers), Counter())
    tested = sum(statuses[word] for word in ("holds", "fails", "underpowered"))
    rest = statuses["not tested"]
    waiting = f"; {rest} more {'is' if rest == 1 else 'are'} not tested" if rest else ""
    if not tested:
        return f"{said} No claim of a paper has been tested yet."
    where = "" if at["paper"] else " in small models"
    ends = [_of(statuses["holds"], "hold"), _of(statuses["fails"], "fail"), _of(statuses["underpowered"], "stay")]
    return (
        f"{said} Of the {tested} claim{'s' * (tested != 1)} tested{where}, {ends[0]}, {ends[1]} and {ends[2]} "
        f"undecided (underpowered: more seeds would tell){waiting}."
    )


def _of(count: int, verb: str) -> str:
    """`3 hold`, `1 holds`, `none holds`."""
    return f"{count or 'none'} {verb}{'s' * (count < 2)}"


def _remove_others(reports: Path, written: set[Path]) -> None:
    """Pages of earlier builds that this one did not write, of a README that is gone, say; and no other file."""
    for path in sorted(reports.rglob("*.html")):
        if path not in written and GENERATOR in path.read_text(encoding="utf-8", errors="replace")[:500]:
            path.unlink()


def _documents(view: PaperView) -> list[Document]:
    """The README of a paper and the notes beside its reports."""
    slug = view.paper.slug
    return [
        *([Document(f"projects/{slug}/README.md", f"{slug}/readme.html", slug)] if view.readme else []),
        *view.notes,
    ]


def _read(document: Document, reports: Path, root: Path) -> str:
    below = document.source.removeprefix("reports/")
    path = root / document.source if below == document.source else reports / below
    return path.read_text(encoding="utf-8", errors="replace")


def _report_pages(shown: Iterable[PaperView]) -> dict[str, str]:
    """File in the folder of the reports -> page, for the pages themselves and the Markdown of each report."""
    pages = {f"reports/{name}": name for name in SITE_PAGES}
    for each in shown:
        page = f"{each.paper.slug}/index.html"
        pages[f"reports/{page}"] = quote(page)
        for report in each.reports:
            pages[f"reports/{each.paper.slug}/{report.stem}.md"] = f"{quote(page)}#{quote(report.stem)}"
    return pages


def _views(folder: Path, raw: dict[str, Report]) -> list[ReportView]:
    """One per report file: the headline, tables by name, scales from tiny to paper; readable ones go into `raw` too."""
    views = []
    for path in sorted(folder.glob("*.*.json"), key=lambda p: (*_place(p.name.split(".")[0]), _scale_order(p), p.name)):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            views.append(view(report, path))
            raw[f"{folder.name}/{path.stem}"] = report
        except BAD_REPORT as error:
            reason = plain(f"unreadable report ({type(error).__name__}: {error})", 200)
            views.append(ReportView(path.stem, error=reason, files=(("JSON", quote(path.name)),)))
    return views


def _place(table: str) -> tuple[bool, str]:
    """Among the tables of its paper."""
    return table != HEADLINE, table


def counted(reports: Iterable[tuple[str, Iterable[Entry]]]) -> list[Entry]:
    """Each claim or figure of a table once: at the largest scale that was run with at least `ENOUGH` seeds, with none
    such at the largest that was run; `reports`: table and entries, from tiny to paper.
    """
    found: dict[tuple[str, str], Entry] = {}
    for table, entries in reports:
        for entry in entries:
            before = found.setdefault((table, entry.name), entry)
            if min(entry.seeds, ENOUGH) >= min(before.seeds, ENOUGH):
                found[table, entry.name] = entry
    return list(found.values())


def _natural(name: str) -> tuple[str, int, str]:
    """C2 before C10."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :][:9] or 0), name


def _scale_order(path: Path) -> int:
    words = path.stem.split(".")[-1].split("+")
    return SCALES.index(words[0]) if words[0] in SCALES else len(SCALES)


def _notes(reports: Path, slug: str, views: Iterable[ReportView]) -> list[str]:
    """Markdown beside the reports of a paper that no report wrote."""
    written = {report.stem for report in views}
    return sorted(f"{slug}/{path.name}" for path in (reports / slug).glob("*.md") if path.stem not in written)


def _write(path: Path, template: str, up: str = "", **values: Any) -> None:
    """Render a page; one that is there already and equal is left alone."""
    page = environment().get_template(template).render(up=up, here="" if up else path.name, **values)
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != page:
        write_atomically(path, page, durable=False)  # a later build compares, and mends it


@cache
def environment() -> Environment:
    """Templates in which every printed value is one line without control characters, then escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (TEMPLATES.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    made.globals |= {
        "style": Markup(style),  # ours, and constant
        "script": Markup(script),
        "generator": Markup(GENERATOR),
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "zero": Counter(),
        "BOUNDS": BOUNDS,
        "EFFECT": EFFECT,
        "LEGEND": LEGEND,
        "RULE": RULE,
        "MEANINGS": meanings((ROOT / EXPLAINED).read_text(encoding="utf-8")),
        "STATES": list(STATES),
        "STATUSES": list(STATUSES),
        "VERDICTS": list(VERDICTS),
    }
    made.filters |= {"badges": _badges, "css": _css, "sortable": _sortable, "url": quote}
    return made


def meanings(page: str) -> dict[str, str]:
    """Status or verdict -> when it is given, a sentence for each of its rows in the tables of a Markdown page."""
    found: dict[str, list[str]] = {}
    for word, when in re.findall(r"^\| ([a-z ]+) \| (.+) \|$", page, re.MULTILINE):
        if word in STATUSES or word in VERDICTS:
            found.setdefault(word, []).append(f"{when[0].upper()}{when[1:]}.")
    return {word: " ".join(sentences) for word, sentences in found.items()}


def _clean(value: Any) -> Any:
    return value if isinstance(value, Markup | int | float) else plain(value)


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inlined text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _badges(counter: Counter[str], known: Iterable[str]) -> list[tuple[int, str]]:
    """Count and word, in the order of `known`; words that we do not know come last."""
    return [(counter[name], name) for name in [*known, *sorted(counter.keys() - set(known))] if counter[name]]


def _css(word: str) -> str:
    """The class of a status or verdict; a word we do not know gets none."""
    return word.replace(" ", "-") if word in STATUSES or word in VERDICTS else "unknown"


def _sortable(value: float | None) -> str:
    """A number as the script reads it, empty for none."""
    return "" if value is None else f"{value:.6g}"
