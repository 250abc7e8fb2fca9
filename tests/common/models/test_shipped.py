"""Models that ship with a paper: taken where nobody changed their settings, and the same model in half the bytes."""

import torch
from safetensors.torch import load_file

from common.models.microlm.scratch import Size, closed_tokenizer, fresh
from common.models.shipped import ship, shipped
from common.models.transformers_lm import TransformersLM

SETTINGS = {"size": {"width": 32}, "rest": (1, 2)}


def test_what_ships_is_taken_where_no_setting_differs(tmp_path, capsys):
    trained, folder = tmp_path / "trained", tmp_path / "weights" / "base"
    fresh(Size(width=32, layers=1, inner=32), closed_tokenizer(marks="."), trained)
    (trained / "training.jsonl").write_text("{}\n")
    assert shipped(folder, SETTINGS) is None and capsys.readouterr().out == ""
    ship(trained, SETTINGS, folder)
    assert shipped(folder, SETTINGS) == folder and capsys.readouterr().out == ""
    assert shipped(folder, SETTINGS | {"rest": (1, 3)}) is None
    assert capsys.readouterr().out.startswith("base: trained here or by another cell")
    assert (folder / "training.jsonl").exists()


def test_a_shipped_model_is_the_trained_one_rounded_and_computes_in_single_precision(tmp_path):
    trained, folder = tmp_path / "trained", tmp_path / "weights"
    fresh(Size(width=32, layers=1, inner=32), closed_tokenizer(marks="."), trained)
    ship(trained, SETTINGS, folder)
    exact, rounded = (load_file(path / "model.safetensors") for path in (trained, folder))
    assert exact.keys() == rounded.keys()
    for name, weights in exact.items():
        assert torch.equal(weights.to(torch.bfloat16), rounded[name])
    model = TransformersLM.load(str(folder), device="cpu").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
