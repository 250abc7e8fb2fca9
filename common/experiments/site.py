"""The index page of all papers (`reports/index.html`): one file without scripts or outside assets.

State is read from what exists: run functions and configs in the repository, reports in the reports folder. All
text is escaped; links lead only to files that are there.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from common.experiments.catalogue import SCALES, Paper, implemented, tables
from common.experiments.fingerprint import ROOT
from common.experiments.render import STATUSES, VERDICTS, counts, plain, plot_names, stem, tally
from common.files import write_atomically


@dataclass(frozen=True)
class Entry:
    """What the page says about one report file.

    Attributes:
        links: label -> path relative to the reports folder, of files that exist.
        error: why the file could not be read; the counts are then empty.
    """

    heading: str
    statuses: Counter[str]
    verdicts: Counter[str]
    failures: int
    written: str
    links: Mapping[str, str]
    error: str = ""


def build(reports: Path, catalogue: Mapping[str, Paper], root: Path = ROOT) -> Path:
    """Write `index.html` into the reports folder from the catalogue and every `<slug>/*.json` below it.

    Args:
        root: the repository whose run functions and configs say what is implemented.

    Returns:
        The page. Packages outside the catalogue (`repro new`) come last, under a heading of their own.
    """
    running = implemented(root)
    found = {folder.name: _entries(folder) for folder in sorted(reports.glob("*")) if folder.is_dir()}
    extra = [slug for slug in sorted({*running, *found} - catalogue.keys()) if slug in running or found[slug]]
    own = [Paper(slug, slug, "", "", "", "Outside the catalogue", "", "") for slug in extra]
    sections = []
    for (letter, title), members in groupby([*catalogue.values(), *own], key=lambda p: (p.group, p.group_title)):
        papers = list(members)
        cards = [
            _card(paper, paper.slug in running, tables(paper.slug, root), found.get(paper.slug, [])) for paper in papers
        ]
        done = sum(paper.slug in running for paper in papers)
        name = f"{letter}. {title}" if letter else title
        head = f"<h2>{_text(name)} <small>{done} of {len(papers)} implemented</small></h2>"
        sections.append(f"<section>\n{head}\n<div class=cards>\n{''.join(cards)}</div>\n</section>\n")
    page = PAGE.replace("{totals}", _totals(catalogue, running, found)).replace("{sections}", "".join(sections))
    path = reports / "index.html"
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != page:
        write_atomically(path, page)
    return path


def _entries(folder: Path) -> list[Entry]:
    """One entry per report file, tables in order of name, scales from tiny to paper."""
    entries = []
    for path in sorted(folder.glob("*.json"), key=lambda p: (p.name.split(".")[0], _scale_order(p), p.name)):
        try:
            entries.append(_entry(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"unreadable report ({type(error).__name__}: {error})"
            links = {"JSON": f"{folder.name}/{path.name}"}
            entries.append(Entry(path.stem, Counter(), Counter(), 0, "", links, plain(reason, 200)))
    return entries


def _scale_order(path: Path) -> int:
    words = path.stem.split(".")[-1].split("+")
    return SCALES.index(words[0]) if words[0] in SCALES else len(SCALES)


def _entry(path: Path) -> Entry:
    report = json.loads(path.read_text(encoding="utf-8"))
    statuses, verdicts = counts(report)
    plots = {f"plot: {', '.join(metrics) or 'claims'}": name for name, metrics in plot_names(report).items()}
    names = {"report": f"{path.stem}.md", **plots, "JSON": path.name}
    commit = f"{report['commit'] or 'no commit'}"[:10] + (" with uncommitted changes" if report["dirty"] else "")
    seeds = len(report["seeds"])
    return Entry(
        heading=f"{stem(report)} · {seeds} seed{'' if seeds == 1 else 's'}",
        statuses=statuses,
        verdicts=verdicts,
        failures=len(report["failures"]),
        written=f"{report['generated_at']} · {commit}",
        links={label: f"{path.parent.name}/{name}" for label, name in names.items() if (path.parent / name).is_file()},
    )


def _totals(catalogue: Mapping[str, Paper], running: Iterable[str], found: Mapping[str, list[Entry]]) -> str:
    entries = [entry for group in found.values() for entry in group]
    statuses = sum((entry.statuses for entry in entries), Counter[str]())
    verdicts = sum((entry.verdicts for entry in entries), Counter[str]())
    facts = {
        "papers implemented": f"{len(catalogue.keys() & set(running))} of {len(catalogue)}",
        "reports": str(len(entries)),
        "claims": tally(statuses, STATUSES) or "none yet",
        "published figures": tally(verdicts, VERDICTS) or "none yet",
    }
    return "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())


def _card(paper: Paper, runs: bool, scales: Mapping[str, list[str]], entries: Iterable[Entry]) -> str:
    state = "implemented" if runs else "not implemented"
    lines = [
        f"<article id={_quoted(paper.slug)} class={_quoted(state.replace(' ', '-'))}>",
        f"<h3>{_text(paper.name)} <span class=state>{state}</span></h3>",
        f"<p class=title>{_text(' · '.join(part for part in (paper.title, paper.venue, paper.slug) if part))}</p>",
        f"<p>{_text(paper.claim)}</p>" if paper.claim else "",
        f"<p class=quiet>Tiny scale stands on: {_text(paper.substrate)}</p>" if paper.substrate else "",
    ]
    for table, names in scales.items():
        lines.append(f"<p>Table <code>{_text(table)}</code>: {_text(', '.join(names) or 'no scales yet')}</p>")
    lines += [_report(entry) for entry in entries]
    return "\n".join(line for line in lines if line) + "\n</article>\n"


def _report(entry: Entry) -> str:
    links = " · ".join(f"<a href={_quoted(quote(path))}>{_text(label)}</a>" for label, path in entry.links.items())
    head = f"<div class=report><h4>{_text(entry.heading)}</h4>"
    if entry.error:
        return f"{head}<p class=fails>{_text(entry.error)}</p><p>{links}</p></div>"
    failed = f"<p class=fails>Failed cells: {entry.failures}</p>" if entry.failures else ""
    return (
        f"{head}<p>Claims: {_badges(entry.statuses, STATUSES)}</p><p>Figures: {_badges(entry.verdicts, VERDICTS)}</p>"
        f"{failed}<p>{links}</p><p class=quiet>{_text(entry.written)}</p></div>"
    )


def _badges(counter: Counter[str], known: Iterable[str]) -> str:
    """`3 holds` `1 fails`, each in the colour of its status; a word we do not know gets no colour."""
    order = [*known, *sorted(counter.keys() - set(known))]
    badges = []
    for name in order:
        color = f"badge {name.replace(' ', '-')}" if name in known else "badge"
        badges += [f"<span class={_quoted(color)}>{counter[name]} {_text(name)}</span>"] if counter[name] else []
    return " ".join(badges) or "none"


def _text(value: str) -> str:
    return escape(plain(value, 400))


def _quoted(value: str) -> str:
    """An attribute's value with its quotes."""
    return f'"{escape(plain(value), quote=True)}"'


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Reproductions: fifty papers on memory</title>
<style>
:root { --ink: #1c1c1e; --quiet: #5d5d63; --page: #fff; --card: #f6f6f8; --line: #d8d8de; --link: #0b57a4;
  --green: #0a6b4b; --red: #a8330c; --amber: #7a5200; --blue: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --quiet: #a5a5ad; --page: #141416; --card: #1f1f23; --line: #3a3a40; --link: #7db9f5;
    --green: #5fd0a5; --red: #ff9a75; --amber: #f0c060; --blue: #7db9f5 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
a { color: var(--link) }
h1 { font-size: 1.5rem; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem }
h3 { font-size: 1.05rem; margin: 0 }
h4 { font-size: .95rem; margin: 0 0 .2rem }
p { margin: .3rem 0 }
small, .quiet, .title { color: var(--quiet); font-size: .85rem; font-weight: normal }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); gap: .5rem; margin: 1rem 0 }
dt { color: var(--quiet); font-size: .85rem }
dd { margin: 0; font-weight: 600 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: .75rem }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem }
article.implemented { border-left: .3rem solid var(--green) }
.state { font-size: .8rem; font-weight: normal; color: var(--quiet) }
.implemented .state { color: var(--green) }
.report { border-top: 1px solid var(--line); margin-top: .6rem; padding-top: .5rem }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .5rem;
  font-size: .85rem; color: var(--quiet) }
.holds, .reproduced { color: var(--green) }
.fails, .not-reproduced { color: var(--red) }
.underpowered { color: var(--amber) }
.direction-only { color: var(--blue) }
</style>
</head>
<body>
<h1>Reproductions: fifty papers on memory</h1>
<p>Each paper's state, its tables and scales, what its claims came to, and the published figures beside ours.</p>
<dl>{totals}</dl>
{sections}</body>
</html>
"""
