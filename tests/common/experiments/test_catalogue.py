"""The catalogue: fifty papers, and their state read from files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.experiments.catalogue import implemented, load, tables
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT


def test_fifty_papers_in_six_groups() -> None:
    papers = load()
    assert len(papers) == 50
    sizes = {letter: sum(paper.group == letter for paper in papers.values()) for letter in "ABCDEF"}
    assert sizes == {"A": 4, "B": 20, "C": 7, "D": 7, "E": 10, "F": 2}
    assert len({(paper.group, paper.group_title) for paper in papers.values()}) == 6


def test_every_paper_is_described_in_single_lines() -> None:
    for slug, paper in load().items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", slug), slug
        assert slug == paper.slug
        assert re.search(r"\b20\d\d$", paper.venue), slug
        for text in (paper.name, paper.title, paper.claim, paper.substrate):
            assert text and text == " ".join(text.split()), slug


def test_known_entry() -> None:
    paper = load()["dsi_pp"]
    assert (paper.name, paper.venue, paper.group) == ("DSI++", "EMNLP 2023", "A")
    assert paper.title == "DSI++: Updating Transformer Memory with New Documents"
    assert "+21.1% average Hits@10" in paper.claim


def test_state_is_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "projects" / "toy").mkdir(parents=True)
    (tmp_path / "projects" / "toy" / "run.py").touch()
    (tmp_path / "projects" / "planned").mkdir()
    folder = tmp_path / "configs" / "table" / "toy"
    folder.mkdir(parents=True)
    for name in ("main", "main_paper", "main_tiny", "long_name", "long_name_small", "orphan_tiny", "notes_tiny_old"):
        (folder / f"{name}.yaml").touch()
    assert implemented(tmp_path) == ["toy"]
    assert tables("toy", tmp_path) == {
        "main": ["tiny", "paper"],
        "long_name": ["small"],
        "orphan_tiny": [],
        "notes_tiny_old": [],
    }
    assert tables("planned", tmp_path) == {}


ENTRY = """
groups:
  A:
    title: t
    papers:
      x: {name: n, title: t, venue: '2024', claim: c, substrate: s}
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("groups: [", "catalogue"),
        ("", "catalogue"),
        ("papers: {}", "groups"),
        (ENTRY.replace("claim", "claims"), "paper x: field claim"),
        (ENTRY.replace("'2024'", "2024"), "paper x: field venue"),
    ],
)
def test_a_broken_catalogue_is_one_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(ENTRY)
    assert load(path)["x"].claim == "c"
    path.write_text(text)
    with pytest.raises(UserError, match=named) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_catalogue_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the catalogue"):
        load(tmp_path / "none.yaml")


def test_listing_and_rendering_import_nothing_heavy() -> None:
    code = (
        "import sys; from common.experiments import catalogue, plots, render, site; catalogue.load();"
        "print(sorted({'matplotlib', 'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
