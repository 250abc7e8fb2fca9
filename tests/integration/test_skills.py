"""`repro skills` as a user calls it: the whole table of the shipped weights, offline, and its page."""

import json
from pathlib import Path

import pytest

from common.models.microlm.skill_table import HOPS, PASSAGES, Row
from common.models.microlm.skills import SKILLS
from tests.conftest import make_checkout

pytestmark = pytest.mark.integration

CONTROLS = 6


def test_the_whole_table_of_the_shipped_weights_offline(tmp_path: Path) -> None:
    checkout, page = make_checkout(tmp_path / "checkout"), tmp_path / "skills.md"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = checkout.repro("skills", "--items", "2", "--write", str(page), **offline)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [Row(**figures) for figures in json.loads(page.with_suffix(".json").read_text())]
    assert len({row.name for row in rows}) == len(rows) == len(SKILLS) + len(HOPS) * len(PASSAGES) + CONTROLS
    told = page.read_text()
    for row in rows:
        assert f"  {row.name}  " in done.stdout
        assert f"| {row.name} | " in told
    for words in (" core seconds)", "Trained on ", "Targets, in parentheses: "):
        assert words in done.stdout
        assert words in told
    assert sum(row.right for row in rows if row.part == "skills") >= 20  # of 40; the report: four of five
