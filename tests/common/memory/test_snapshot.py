"""Snapshot files: what comes back, what is left over."""

import json

import pytest

from common.memory.snapshot import load, save


def test_a_state_comes_back_from_one_file(tmp_path):
    save(tmp_path / "new", "notes", {"now": 0})
    save(tmp_path / "new", "notes", {"now": 1, "text": "\ud800 é"})
    assert load(tmp_path / "new", "notes") == {"now": 1, "text": "\ud800 é"}
    [path] = (tmp_path / "new").iterdir()
    header, body = map(json.loads, path.read_text("ascii").splitlines())
    assert header.keys() == {"format", "kind", "sha256"} and body["now"] == 1


def test_a_state_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "new", "notes", {"x": float("nan")})
    assert not (tmp_path / "new").exists()
