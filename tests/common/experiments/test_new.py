"""`repro new`: the package runs at once, its tests pass, and deleting it leaves nothing behind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.experiments import catalogue
from common.experiments.fingerprint import ROOT


def test_a_new_paper_runs_and_its_tests_pass_and_it_can_be_deleted(checkout):
    before = files(checkout.root)
    made = checkout.repro("new", "toy")
    assert made.returncode == 0, made.stderr
    assert "repro table toy/main" in made.stdout
    done = checkout.repro("table", "toy/main")
    assert done.returncode == 0, done.stderr
    report = checkout.report(folder="reports/toy")
    assert report["claims"][0]["status"] == "holds"
    scores = {cell["row"]: cell["mean"] for cell in report["cells"]}
    assert 0.0 < scores["hebb"] < scores["delta"] < 1.0
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/projects/toy"],
        cwd=checkout.root, env=checkout.variables, capture_output=True, text=True,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    assert "5 passed" in tests.stdout
    made_files = ["projects/toy", "tests/projects/toy"]
    for check in (["ruff", "check"], ["ruff", "format", "--check"]):
        command = [sys.executable, "-m", *check, "--no-cache", "--line-length", "120", *made_files]
        lint = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout
    parts = ["projects/toy", "configs/table/toy", "tests/projects/toy", "reports/toy", "runs/toy"]
    page = " ".join((ROOT / "common" / "guide" / "add_your_paper.md").read_text().split())
    assert all(f"`{part.replace('toy', 'my_paper')}`" in page for part in parts)
    for part in parts:
        shutil.rmtree(checkout.root / part)
    again = checkout.repro("report")
    assert again.returncode == 0, again.stderr
    left = files(checkout.root) - before
    assert {
        path.name for path in left if "toy/main" in path.read_text(errors="replace") or "toy" in path.parts
    } == set()
    assert {path.relative_to(checkout.root).parts[0] for path in left} <= {"reports", "runs"}


def files(root: Path) -> set[Path]:
    """All files but what Python compiles for itself."""
    return {path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize("slug", ["rxt", "clin"])
def test_a_paper_of_the_catalogue_brings_its_title(checkout, slug):
    assert checkout.repro("new", slug).returncode == 0
    text = (checkout.root / "projects" / slug / "expected.yaml").read_text()
    assert catalogue.load()[slug].title in text
