"""`repro new`: the package runs at once, its tests pass, and deleting it leaves nothing behind."""

import subprocess
import sys

import pytest

from common.experiments import catalogue


def test_a_new_paper_runs_and_its_tests_pass_and_it_can_be_deleted(checkout):
    before = set(checkout.root.rglob("*.py"))
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
        command = [sys.executable, "-m", *check, "--line-length", "120", *made_files]
        lint = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout
    after = set(checkout.root.rglob("*.py")) - before
    assert {path.parts[-2] for path in after} == {"toy"}


@pytest.mark.parametrize("slug", ["rxt", "clin"])
def test_a_paper_of_the_catalogue_brings_its_title(checkout, slug):
    assert checkout.repro("new", slug).returncode == 0
    text = (checkout.root / "projects" / slug / "expected.yaml").read_text()
    assert catalogue.load()[slug].title in text
