"""What `python -m projects.mem_alpha.ship` leaves is what the tables take: whole, cut down; reader, then writer."""

import json

import pytest
from click.testing import CliRunner

from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.settings import to_settings
from projects.mem_alpha import run, ship

pytestmark = pytest.mark.usefixtures("one_thread")

CUT = (
    "settings.size={width: 32, layers: 2, inner: 32}",
    "settings.warm={count: 12, tuning: {steps: 1}}",
    "settings.reading={count: 12, tuning: {steps: 1}}",
    "settings.gate={count: 1, oracle: 0, empty: 1}",
    "settings.streams.count=1",
    "settings.rules.turn_tokens=4",
    "settings.rules.answer_tokens=4",
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    table = compose_table("mem_alpha/headline", "tiny", [*CUT, f"paths.runs={tmp_path / 'runs'}"])
    monkeypatch.setattr(run, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(run, "REVISIONS", {"reader": "", "writer": ""})
    monkeypatch.setattr(ship, "compose_table", lambda name, scale: {("mem_alpha/headline", "tiny"): table}[name, scale])
    return table


def shipped(name):
    """The revision that the command prints; it leaves the name to be set again."""
    done = CliRunner().invoke(ship.main, [name], catch_exceptions=False)
    return done.output.split()[-1]


def test_what_ships_is_taken_at_its_revision(table, tmp_path, monkeypatch):
    settings = to_settings("mem_alpha", table.cells(["mem_alpha"])[0].settings)
    context = Context(seed=0, folder=tmp_path / "cell", artifacts=tmp_path / "artifacts")
    run.REVISIONS["reader"] = shipped("reader")
    run.REVISIONS["writer"] = shipped("writer")
    monkeypatch.setattr(run, "specialise", None)
    weights = tmp_path / "weights"
    assert run.reader(settings, context) == str(weights / "reader")
    assert run.base(settings, context) == str(weights / "writer")
    measured = {name: json.loads((weights / name / "measured.json").read_text()) for name in run.REVISIONS}
    assert set(measured["reader"]) == {"oracle", "empty"}
    assert "mean" in measured["writer"] and "seconds" not in measured["writer"]
    monkeypatch.setattr(run, "shipped", None)  # nor is what ships taken for it when it is made anew
    assert shipped("reader").startswith("sha256:")
