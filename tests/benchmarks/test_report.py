"""Sections of the performance page: each benchmark replaces its own and leaves the others."""

import re

from tests.benchmarks.report import HEAD, PAGE, with_section
from tests.conftest import ROOT

BENCHMARKS = [
    path
    for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py"))
    if path.stem not in ("__init__", "report") and not path.stem.startswith("test_")
]


def test_a_section_is_appended_then_replaced_and_the_others_stay():
    page = with_section(HEAD, "One", "first\n\n| a |\n")
    page = with_section(page, "Two", "second\n")
    assert page == f"{HEAD}\n## One\n\nfirst\n\n| a |\n\n## Two\n\nsecond\n"
    assert with_section(page, "One", "changed\n") == f"{HEAD}\n## One\n\nchanged\n\n## Two\n\nsecond\n"
    assert with_section(page, "Two", "second\n") == page


def test_the_committed_page_has_a_section_for_each_benchmark():
    page = PAGE.read_text()
    assert page.startswith(HEAD)
    written = [path.stem for path in BENCHMARKS if "write_section(" in path.read_text()]
    assert len(written) == page.count("\n## ")
    for name in written:
        assert f"`python -m tests.benchmarks.{name} --write`" in page


def test_make_bench_runs_each_benchmark():
    """But for the first hour, which makes an environment of its own."""
    run = re.findall(r"-m tests\.benchmarks\.(\w+)", (ROOT / "Makefile").read_text())
    assert sorted(run) == sorted(path.stem for path in BENCHMARKS if path.stem != "first_hour")
