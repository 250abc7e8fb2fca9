"""The guide does what it says: its Python prints what stands beside it, its commands run, and no figure is typed.

Pages whose commands need minutes or a cluster are followed in `integration/test_guide.py`.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

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
            named = re.findall(r"`((?:projects|configs|tests)/[\w/]+\.\w+|README\.md)`", line)
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


def follow(page: str, checkout: Checkout) -> None:
    """Do what a page says, in order; every command must succeed."""
    for step in steps(page):
        target = checkout.root / step.path
        if step.kind == "diff":
            target.write_text(changed(target.read_text(), step.text))
        elif step.kind == "yaml":
            target.write_text(step.text)
        elif step.kind == "sh":
            words = shlex.split(step.text)
            if words[0] == "make":  # style and types are checked by the test; it needs no environment of its own
                continue
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


def test_the_reference_is_made_from_the_installed_package():
    """`make docs` installs it; a search path of its own could show other code than a user imports."""
    assert "sys.path" not in (GUIDE / "conf.py").read_text()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_python_of_a_page_prints_what_stands_beside_it(page, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where a page writes files
    code = "\n".join(step.text for step in steps(page.read_text()) if step.kind == "python")
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    printed: list[str] = []
    names: dict[str, Any] = {"__name__": page.stem, "print": lambda *values: printed.append(" ".join(map(str, values)))}
    exec(compile(code, page.name, "exec"), names)
    assert said and printed == said


def test_a_new_paper_made_by_following_the_page_has_a_verdict(checkout):
    shutil.copy(ROOT / "README.md", checkout.root)
    page, away, rest = (GUIDE / "add_your_paper.md").read_text().partition("## 10. To take it away again\n")
    follow(page, checkout)
    check_pages(checkout)
    report = checkout.report(folder="reports/my_paper")
    assert {claim["id"]: claim["status"] for claim in report["claims"]} == {"C1": "holds", "C2": "holds"}
    assert {cell["row"] for cell in report["cells"] if cell["mean"] is not None} == {"hebb", "delta", "gated"}
    made = ["projects/my_paper", "tests/projects/my_paper"]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), *made]
        lint = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout
    check_docs(checkout)
    assert [step.text for step in steps(away + rest)] == ["repro report"]  # not typed: it would mend stale pages


def check_pages(checkout: Checkout) -> None:
    """The site's own test of its pages: none is stale where the page ends."""
    copy = shutil.copy(ROOT / "tests" / "common" / "experiments" / "test_site.py", checkout.root / "tests")
    name = "test_committed_pages_are_those_of_the_committed_reports"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{copy}::{name}"],
        cwd=checkout.root, env=checkout.variables, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def check_docs(checkout: Checkout) -> None:
    """The tests of documents that a new paper concerns, in a checkout that is completed by links to this one."""
    shutil.rmtree(checkout.root / "projects" / "lab")
    for folder in (".", "projects", "reports", "configs/table"):
        for path in (ROOT / folder).iterdir():
            if not path.name.startswith((".", "__")) and not (checkout.root / folder / path.name).exists():
                (checkout.root / folder / path.name).symlink_to(path)
    shutil.copy(ROOT / "tests" / "test_docs.py", checkout.root / "tests")
    chosen = "my_paper or listed or fits_a_page or (links and README)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py", "-k", chosen],
        cwd=checkout.root, env=checkout.variables, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_table_of_data_sets_is_that_of_the_loaders():
    rows = [
        f"| `{name}` | {entry.title} | {entry.licence}{' **(non-commercial)**' if entry.non_commercial else ''} |"
        for name, entry in all_datasets().items()
    ]
    shown = [line for line in (GUIDE / "data.md").read_text().splitlines() if line.startswith("| `")]
    assert shown == rows, "\n".join(rows)


FIGURE = re.compile(r"(?<![\w.:])[+-]?(?:\d*\.)?\d+%|(?<![\w.:])[+-]?\d*\.\d+(?!\w|\.\d)")


def prose(text: str) -> str:
    """A page without code, links' targets, and what is a name rather than a figure."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"^    .*$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.M)
    return re.sub(r"95% interval|Python \d+\.\d+|(Apache-|CC BY\S* )\d\.\d|v\d\.\d", "", text)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_no_figure_is_typed_into_the_guide(page):
    text = page.read_text()
    assert FIGURE.findall(prose(text)) == []
    planted, places = re.subn(r"^(?=## )|\Z", "\nOurs is better, 43.7 against 12%, and .45.\n\n", text, flags=re.M)
    assert FIGURE.findall(prose(planted)) == ["43.7", "12%", ".45"] * places  # wherever it stands


def typed(text: str, settings: Iterable[Any]) -> list[str]:
    """Figures that are no setting where a README tells what we did: what we measured stands in reports, which it links.

    That is its status, and every section but the tables and those about the paper.
    """
    opening, *sections = re.split(r"^## (.*)\n", text, flags=re.M)
    told = [
        part
        for title, part in zip(sections[::2], sections[1::2], strict=True)
        if title != "Tables" and "paper" not in title
    ]
    outcome = "\n\n".join([*re.findall(r"^\*\*Status.*?(?=\n\n)", opening, re.M | re.S), *told])
    known = {round(number * scale, 6) for number in numbers(settings) for scale in (1, 100)}
    return [figure for figure in FIGURE.findall(prose(outcome)) if float(figure.strip("+-%")) not in known]


def numbers(value: Any) -> Iterator[float]:
    """Every number in nested mappings and lists."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)


@pytest.mark.parametrize("page", sorted(ROOT.glob("projects/*/README.md")), ids=lambda page: page.parent.name)
def test_no_figure_of_ours_is_typed_into_a_papers_outcome(page):
    """Nor a wrong one: of planted figures, and of means in its reports, few look like a setting."""
    text = page.read_text()
    settings = [yaml.safe_load(path.read_text()) for path in ROOT.glob(f"configs/table/{page.parent.name}/**/*.yaml")]
    assert settings and typed(text, settings) == []
    means = [
        cell["mean"]
        for path in ROOT.glob(f"reports/{page.parent.name}/*.*.json")
        for cell in json.loads(path.read_text())["cells"]
        if cell["mean"] and 0.01 < cell["mean"] < 0.99
    ]
    tenths = [f"{tenths / 10:.1f}" for tenths in range(1, 1000)]
    for figures in (tenths, [f"{mean:.1%}" for mean in means], [f"{mean:.3f}"[1:] for mean in means]):
        planted = f"{text}\n## What came out, and what is open\n\n{'; '.join(figures)}\n"
        assert len(typed(planted, settings)) >= 0.75 * len(figures)
