"""Snapshot files with arrays: what comes back, what is left over, what damage says."""

import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from common.experiments.errors import UserError
from common.memory.snapshot import load, save

ARRAYS = {"keys": np.arange(6, dtype=np.float32).reshape(2, 3).T, "ages": np.array([3, 1], np.int64)}


def test_arrays_come_back_with_type_and_shape(tmp_path):
    save(tmp_path, "vectors", {"now": 1, "text": "\ud800 é"}, ARRAYS)
    state, arrays = load(tmp_path, "vectors")
    assert state == {"now": 1, "text": "\ud800 é"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_only_the_arrays_of_the_last_snapshot_stay(tmp_path):
    save(tmp_path, "vectors", {}, ARRAYS)
    save(tmp_path, "vectors", {}, {"keys": np.zeros(2)})
    assert len(list(tmp_path.iterdir())) == 2
    save(tmp_path, "vectors", {})
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]
    assert load(tmp_path, "vectors") == ({}, {})


def test_a_crash_between_the_two_files_leaves_the_old_snapshot(tmp_path, monkeypatch):
    save(tmp_path, "vectors", {"turn": 1}, ARRAYS)
    replace, names = os.replace, []

    def crash_at_the_second(source, target):
        names.append(target.name)
        if len(names) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash_at_the_second)
    with pytest.raises(UserError, match=r"cannot write .*: Input/output error"):
        save(tmp_path, "vectors", {"turn": 2}, {"keys": np.zeros(2)})
    assert names[1] == "memory.json"
    state, arrays = load(tmp_path, "vectors")
    assert state == {"turn": 1}
    assert_array_equal(arrays["keys"], ARRAYS["keys"])


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:90] + b"?" + b[91:], None])
def test_damaged_arrays_are_one_clear_error(tmp_path, damage):
    save(tmp_path, "vectors", {}, ARRAYS)
    [path] = tmp_path.glob("arrays-*")
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(UserError, match=rf"the snapshot in {tmp_path} is damaged \(.*{path.name}.*\); restore another"):
        load(tmp_path, "vectors")


def test_a_state_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "new", "vectors", {"x": float("nan")})
    assert not (tmp_path / "new").exists()
