"""What `python -m projects.mem1.ship` leaves is what the tables take: whole, cut down, with the log of each stage."""

import json

import pytest
from click.testing import CliRunner

from common.experiments.compose import compose_table
from common.experiments.settings import to_settings
from projects.mem1 import run as cell
from projects.mem1 import ship

pytestmark = pytest.mark.usefixtures("one_thread")

CUT = (
    "settings.scratch={width: 32, layers: 2, inner: 32}",
    "settings.taught.count=12",
    "settings.tuning.steps=1",
    "settings.rules.turn_tokens=4",
    "settings.skills.tasks=1",
    "settings.skills.query=0",
)
STAGES = ("settings.longer={count: 8, tuning: {steps: 2}}", "settings.answering={count: 8, tuning: {steps: 3}}")


@pytest.mark.parametrize(
    ("source", "begins", "cut", "objectives", "logs"),
    [
        (
            "text_world",
            "headline",
            (*CUT, *STAGES),
            [2, 8, 16],
            {"training": 3, "training.base": 1, "training.longer": 2},
        ),
        ("shop", "webshop", CUT, [1], {"training": 1}),
    ],
)
def test_what_ships_is_taken_at_its_revision(source, begins, cut, objectives, logs, tmp_path, monkeypatch):
    none = [0.0] * len(objectives)
    asked = (f"settings.skills.state={none}", f"settings.skills.answer={none}")
    table = compose_table(f"mem1/{begins}", "tiny", [*cut, *asked, f"paths.runs={tmp_path / 'runs'}"])
    for module in (ship, cell):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(ship, "compose_table", lambda name, scale: {(f"mem1/{begins}", "tiny"): table}[name, scale])
    done = CliRunner().invoke(ship.main, [source], catch_exceptions=False)
    folder, revision = tmp_path / "weights" / source, done.output.split()[-1]
    monkeypatch.setattr(cell, "REVISIONS", {source: revision})
    assert cell.ours(to_settings("mem1", table.cells()[0].settings)) == folder
    assert list(json.loads((folder / "measured.json").read_text())) == [str(n) for n in objectives]
    steps = {path.stem: json.loads(path.read_text().splitlines()[-1])["step"] for path in folder.glob("*.jsonl")}
    assert steps == logs


def test_a_source_that_no_warm_start_ships_for_is_named():
    done = CliRunner().invoke(ship.main, ["shops"])
    assert done.exit_code == 2 and "'shops' is not one of 'text_world', 'shop'" in done.output
