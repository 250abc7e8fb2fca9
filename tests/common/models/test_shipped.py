"""Models that ship with a paper: taken where nobody changed their settings, and the same model in half the bytes."""

import json

import pytest
import torch
from safetensors.torch import load_file

from common.experiments.errors import UserError
from common.models.microlm.scratch import Size, closed_tokenizer, fresh
from common.models.shipped import ship, shipped
from common.models.transformers_lm import TransformersLM

SETTINGS = {"size": {"width": 32}, "faults": 0.1, "rest": (1, 2)}


@pytest.fixture
def trained(tmp_path):
    fresh(Size(width=32, layers=1, inner=32), closed_tokenizer(marks="."), tmp_path / "trained")
    (tmp_path / "trained" / "training.jsonl").write_text("{}\n")
    return tmp_path / "trained"


def test_what_ships_is_taken_where_no_setting_differs(trained, tmp_path, capsys):
    folder = tmp_path / "weights" / "base"
    assert shipped(folder, "sha256:0", SETTINGS) is None and capsys.readouterr().out == ""
    revision = ship(trained, SETTINGS, {2: 0.9}, folder)
    assert shipped(folder, revision, SETTINGS) == folder and capsys.readouterr().out == ""
    assert shipped(folder, revision, SETTINGS | {"rest": (1, 3), "faults": 0.2}) is None
    assert shipped(folder, revision, {"size": SETTINGS["size"], "faults": 0.1, "rest": [1, 2], "more": 1}) is None
    assert capsys.readouterr().out.splitlines() == [
        "the shipped base is not taken: it was trained with other settings of faults, rest",
        "the shipped base is not taken: it was trained with other settings of more",
    ]


def test_other_files_than_those_that_were_shipped_are_refused(trained, tmp_path):
    folder = tmp_path / "base"
    revision = ship(trained, SETTINGS, {}, folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"base is not what was shipped, {revision}, but sha256:.* brings it back$"):
        shipped(folder, revision, SETTINGS)


def test_a_model_takes_the_place_of_the_one_before_with_its_logs_and_what_it_could_do(trained, tmp_path):
    folder, log = tmp_path / "base", tmp_path / "log"
    log.write_text("first\n")
    first = ship(trained, SETTINGS, {}, folder)
    (folder / "old.txt").write_text("")
    assert ship(trained, SETTINGS, {2: 0.9}, folder, {"before": log}) != first
    assert json.loads((folder / "measured.json").read_text()) == {"2": 0.9}
    assert (folder / "training.before.jsonl").read_text() == "first\n" and (folder / "training.jsonl").exists()
    assert not (folder / "old.txt").exists() and {path.name for path in tmp_path.iterdir()} == {
        "trained",
        "log",
        "base",
    }


def test_a_shipped_model_is_the_trained_one_rounded_and_computes_in_single_precision(trained, tmp_path):
    ship(trained, SETTINGS, {}, tmp_path / "base")
    exact, rounded = (load_file(path / "model.safetensors") for path in (trained, tmp_path / "base"))
    assert exact.keys() == rounded.keys()
    for name, weights in exact.items():
        assert torch.equal(weights.to(torch.bfloat16), rounded[name])
    model = TransformersLM.load(str(tmp_path / "base"), device="cpu").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
