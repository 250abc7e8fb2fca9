"""`reports/performance.md`: one section per benchmark, each replaced by the benchmark that wrote it."""

import json
import re
import subprocess

from common.experiments.records import now
from common.experiments.worker import hardware, versions
from common.files import write_atomically
from tests.conftest import ROOT

PAGE = ROOT / "reports" / "performance.md"
HEAD = "# Performance\n\nGenerated, a section by each benchmark of `tests/benchmarks` with `--write`.\n"


def write_section(title: str, module: str, body: str) -> None:
    """Put a section into the page with machine, versions, time and commit; the other sections stay as they are."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    about = (
        f"`python -m {module} --write`, {now()}, commit {commit[:12]}\n\n"
        f"{json.dumps(hardware())}\n\n{json.dumps(versions())}"
    )
    page = PAGE.read_text() if PAGE.exists() else HEAD
    write_atomically(PAGE, with_section(page, title, f"{about}\n\n{body.strip()}\n"))


def with_section(page: str, title: str, body: str) -> str:
    """The page with that section replaced, or appended."""
    section = f"## {title}\n\n{body}"
    head, *sections = re.split(r"(?m)^(?=## )", page)
    titles = [text.split("\n", 1)[0] for text in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = section
    else:
        sections.append(section)
    return "\n".join(part.rstrip("\n") + "\n" for part in (head, *sections))
