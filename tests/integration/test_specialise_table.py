"""A paper with templates of its own in the engine: rows that are taught the same share one specialised model."""

import json
import shutil

import pytest

from tests.conftest import ROOT, Checkout

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAPER = ROOT / "tests" / "fixtures" / "templates"


@pytest.fixture
def templates(checkout: Checkout) -> Checkout:
    """The checkout with the paper of templates; its teachers are those of the toy paper."""
    project = checkout.root / "projects" / "templates"
    shutil.copytree(PAPER / "project", project, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "common" / "models" / "microlm" / "toy_paper.py", project)
    shutil.copytree(PAPER / "configs", checkout.root / "configs" / "table" / "templates")
    return checkout


def models(checkout: Checkout) -> dict[str, dict[str, dict[str, int]]]:
    """Folder of every specialised model -> which faults it was taught, by source."""
    folders = (checkout.root / "runs" / "templates" / "artifacts").glob("generator-*")
    found = {}
    for folder in folders:
        if folder.is_dir():
            shown = json.loads((folder / "recipe.json").read_text())["demonstrations"]
            found[folder.name] = {source: shown[source] for source in ("rewrite", "route")}
    return found


def test_two_commands_at_once_train_each_model_once_and_later_rows_load_it(templates):
    commands = [templates.start("table", "templates/main", OMP_NUM_THREADS="1") for _ in range(2)]
    outputs = [command.communicate(timeout=500) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], outputs
    perfect, faulty = {"rewrite": {"": 20}, "route": {"": 20}}, {
        "rewrite": {"": 10, "malformed": 10}, "route": {"": 15, "misrouted": 5},
    }  # fmt: skip
    made = models(templates)
    assert sorted(made.values(), key=str) == sorted([perfect, faulty], key=str)
    revisions: dict[str, set[str]] = {}
    for cell in (templates.root / "runs" / "templates" / "cells").glob("*"):
        row = json.loads((cell / "result.json").read_text())["row"]
        items = (cell / "items" / "answers.jsonl").read_text().splitlines()
        revisions.setdefault(row, set()).update(json.loads(line)["revision"] for line in items)
    assert {row: len(found) for row, found in revisions.items()} == dict.fromkeys(
        ("base", "greedy", "sampled", "faulty"), 1
    )
    assert revisions["greedy"] == revisions["sampled"]
    assert len(set.union(*revisions.values())) == 3

    weights = {path: path.stat().st_mtime_ns for path in (templates.root / "runs").rglob("model.safetensors")}
    more = templates.repro("table", "templates/main", "--seeds", "3", "--rows", "greedy", OMP_NUM_THREADS="1")
    assert more.returncode == 0, more.stderr
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert models(templates) == made


def test_a_mistake_in_the_teaching_is_one_line(templates):
    made = templates.repro("table", "templates/main", "settings.tuning.metod=lora")
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "did you mean" in made.stderr
    assert "method" in made.stderr


def test_plans_and_lists_import_no_torch(templates):
    made = templates.repro("plan", "templates/main", PYTHONPROFILEIMPORTTIME="1")
    assert made.returncode == 0
    assert "settings" in made.stderr
    assert not [line for line in made.stderr.splitlines() if line.split("|")[-1].strip() in ("torch", "transformers")]
