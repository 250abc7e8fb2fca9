"""The guide does what it says: its Python prints what stands beside it, its commands run, and no figure is typed.

Pages whose commands need minutes or a cluster are followed in `integration/test_guide.py`.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.data.catalogue import all_datasets
from common.experiments.fingerprint import ROOT
from tests.conftest import Checkout

GUIDE = ROOT / "common" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))


@dataclass(frozen=True)
class Step:
    """What a page tells its reader to do: type a command (`kind` is sh), change a file or write one."""

    kind: str
    text: str
    path: str = ""


def steps(page: str) -> list[Step]:
    """Indented commands and fenced blocks in order; a block is about the file that was last named before it."""
    found, path, fence, block = [], "", "", [""]
    for line in page.splitlines():
        if fence and line == "```":
            found.append(Step(fence, "\n".join(block) + "\n", path))
            fence = ""
        elif fence:
            block.append(line)
        elif line.startswith("```"):
            fence, block = line[3:], []
        elif line.startswith("    "):
            found.append(Step("sh", line.split("  #")[0].strip()))
        else:
            named = re.findall(r"`((?:projects|configs|tests)/[\w/]+\.\w+)`", line)
            path = named[-1] if named else path
    return found


def changed(text: str, diff: str) -> str:
    """A file after a diff without line numbers; one that only adds is for its end."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] != "+")
    new = "".join(line[1:] for line in lines if line[0] != "-")
    if not old:
        return text + new
    assert text.count(old) == 1, f"{text.count(old)} places for:\n{diff}"
    return text.replace(old, new)


def follow(page: Path, checkout: Checkout) -> None:
    """Do what a page says, in order; every command must succeed."""
    for step in steps(page.read_text()):
        target = checkout.root / step.path
        if step.kind == "diff":
            target.write_text(changed(target.read_text(), step.text))
        elif step.kind == "yaml":
            target.write_text(step.text)
        elif step.kind == "sh":
            words = shlex.split(step.text)
            assert words[0] in ("repro", "python"), step.text
            command = ["-m", "common.experiments", *words[1:]] if words[0] == "repro" else words[1:]
            done = subprocess.run(
                [sys.executable, *command], cwd=checkout.root, env=checkout.variables, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{step.text}\n{done.stdout}{done.stderr}"


def test_pages_of_the_guide_lead_to_the_report_site_from_where_they_are_built(tmp_path):
    built = tmp_path / "some" / "where"
    some = ["extensions=myst_parser,sphinx.ext.autodoc", "include_patterns=README.md,common/guide/*.md"]
    options = [word for option in some for word in ("-D", option)]  # a part of the pages, no reference: seconds
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", str(GUIDE), *options, str(ROOT), str(built)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (built / "README.html", built / "common" / "guide" / "quick_start.html"):
        [link] = re.findall(r'href="([^"#]*reports/index\.html)"', page.read_text())
        assert (page.parent / link).resolve() == ROOT / "reports" / "index.html"
    assert not list(built.glob("_downloads/**/*.html"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_python_of_a_page_prints_what_stands_beside_it(page, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    code = "\n".join(step.text for step in steps(page.read_text()) if step.kind == "python")
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    printed: list[str] = []
    names: dict[str, Any] = {"__name__": page.stem, "print": lambda *values: printed.append(" ".join(map(str, values)))}
    exec(compile(code, page.name, "exec"), names)
    assert said and printed == said


def test_a_new_paper_made_by_following_the_page_has_a_verdict(checkout):
    follow(GUIDE / "add_your_paper.md", checkout)
    report = checkout.report(folder="reports/my_paper")
    assert {claim["id"]: claim["status"] for claim in report["claims"]} == {"C1": "holds", "C2": "holds"}
    assert {cell["row"] for cell in report["cells"] if cell["mean"] is not None} == {"hebb", "delta", "gated"}
    made = ["projects/my_paper", "tests/projects/my_paper"]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), *made]
        lint = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout


def test_the_table_of_data_sets_is_that_of_the_loaders():
    rows = [
        f"| `{name}` | {entry.title} | {entry.licence}{' **(non-commercial)**' if entry.non_commercial else ''} |"
        for name, entry in all_datasets().items()
    ]
    shown = [line for line in (GUIDE / "data.md").read_text().splitlines() if line.startswith("| `")]
    assert shown == rows, "\n".join(rows)


FIGURE = re.compile(r"(?<![\w.:])[+-]?\d+(?:\.\d+)?%|(?<![\w.:])[+-]?\d+\.\d+(?![\w.])")
SOURCES = ("reports/{}/*.md", "configs/table/{}/**/*.yaml", "projects/{}/expected.yaml")


def prose(text: str) -> str:
    """A page without code, links' targets, and what is a name rather than a figure."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"^    .*$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.M)
    return re.sub(r"95% interval|Python \d+\.\d+|(Apache-|CC BY\S* )\d\.\d|v\d\.\d", "", text)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_no_figure_is_typed_into_the_guide(page):
    assert FIGURE.findall(prose(page.read_text())) == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("projects/*/README.md")), ids=lambda page: page.parent.name)
def test_every_figure_of_a_papers_outcome_stands_in_a_report_a_config_or_the_paper(page):
    """`expected.yaml` and configs have fractions where a page has percent."""
    [*_, outcome] = ["", *re.findall(r"^## What came out\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S)]
    sources = "\n".join(
        path.read_text() for pattern in SOURCES for path in sorted(ROOT.glob(pattern.format(page.parent.name)))
    )
    known = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", sources)}
    for figure in FIGURE.findall(prose(outcome)):
        value = float(figure.strip("+-%"))
        assert value in known or (figure.endswith("%") and round(value / 100, 6) in known), figure
