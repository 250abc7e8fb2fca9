"""Sections of the performance page: each benchmark replaces its own and leaves the others."""

from tests.benchmarks.report import HEAD, PAGE, with_section


def test_a_section_is_appended_then_replaced_and_the_others_stay():
    page = with_section(HEAD, "One", "first\n\n| a |\n")
    page = with_section(page, "Two", "second\n")
    assert page == f"{HEAD}\n## One\n\nfirst\n\n| a |\n\n## Two\n\nsecond\n"
    assert with_section(page, "One", "changed\n") == f"{HEAD}\n## One\n\nchanged\n\n## Two\n\nsecond\n"
    assert with_section(page, "Two", "second\n") == page


def test_the_committed_page_has_a_section_for_each_benchmark():
    page = PAGE.read_text()
    assert page.startswith(HEAD)
    for name in ("editing", "engine", "language_models", "retrievers", "slurm", "specialisation"):
        assert f"`python -m tests.benchmarks.{name} --write`" in page
