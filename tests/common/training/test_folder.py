"""The folder of a training: one recipe, a log in which no interruption shows, an end that is whole or not there."""

import json
import os
import time
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.training.folder import begin, finish, fit_logged
from common.training.supervised import Optimization
from tests.common.training.interrupting import Stop, save_often, stop_at
from tests.common.training.test_supervised import Steps, examples, tiny_model

OPTIMIZATION = Optimization(lr=0.01, warmup=2)


def run(folder, model, say=lambda line: None, look=dict):
    begin(folder, {})
    fit_logged(folder, model, Steps(), 6, OPTIMIZATION, every=2, look=look, say=say)


def log(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def test_a_folder_serves_one_recipe(tmp_path):
    recipe = {"optimization": asdict(OPTIMIZATION), "shares": (0.5, 0.5)}  # a tuple, read back as a list
    assert not begin(tmp_path / "model", recipe)
    assert not begin(tmp_path / "model", recipe)
    with pytest.raises(ValueError, match=r"recipe\.json is of another recipe; train into another folder"):
        begin(tmp_path / "model", {**recipe, "shares": (0.4, 0.6)})


def test_the_log_of_an_interrupted_training_is_that_of_a_straight_one(tmp_path, monkeypatch):
    run(tmp_path / "straight", tiny_model(), look=lambda: {"share": 0.5})
    save_often(monkeypatch)

    def slow_until_it_stops(line):
        time.sleep(0.3)
        stop_at(4)(line)

    with pytest.raises(Stop):
        run(tmp_path / "broken", tiny_model(), slow_until_it_stops, look=lambda: {"share": 0.25})
    assert [line["step"] for line in log(tmp_path / "broken")] == [2, 4]  # the line of 4, without its checkpoint
    run(tmp_path / "broken", tiny_model(), look=lambda: {"share": 0.5})
    straight, broken = log(tmp_path / "straight"), log(tmp_path / "broken")
    lengths = [sum(len(example.ids) for example in examples(step)) for step in range(6)]
    assert [line["step"] for line in broken] == [2, 4, 6]
    assert [line["tokens"] for line in broken] == [sum(lengths[:2]), sum(lengths[:4]), sum(lengths)]
    assert [line["share"] for line in broken] == [0.25, 0.5, 0.5]
    assert [broken[i]["loss"] for i in (0, 2)] == [straight[i]["loss"] for i in (0, 2)]
    assert broken[-1]["seconds"] >= 0.3  # that of the first part counts


def test_the_end_is_whole_or_not_there(tmp_path):
    model = tiny_model()
    run(tmp_path, model)

    def broken(into):
        model.save_pretrained(into)
        raise Stop

    with pytest.raises(Stop):
        finish(tmp_path, broken)
    assert not begin(tmp_path, {})

    def save(into):
        model.save_pretrained(into / "adapter")
        model.save_pretrained(into)

    (tmp_path / "adapter").mkdir()  # moved before a kill
    (tmp_path / "adapter" / "of a killed end").touch()
    finish(tmp_path, save)
    (tmp_path / "checkpoint").mkdir()  # left by a kill after the weights were there
    assert begin(tmp_path, {})
    names = {"adapter", "config.json", "generation_config.json", "model.safetensors", "recipe.json", "training.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert not (tmp_path / "adapter" / "of a killed end").exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_weights_are_moved_last(tmp_path, monkeypatch):
    moved = []
    model = tiny_model()
    run(tmp_path, model)
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moved.append(new.name), rename(old, new)))
    finish(tmp_path, model.save_pretrained)
    assert moved[-1] == "model.safetensors"
    assert len(moved) == 3


def test_weights_in_several_files_are_done_when_their_index_is_there(tmp_path):
    model = tiny_model()
    run(tmp_path, model)
    finish(tmp_path, lambda into: model.save_pretrained(into, max_shard_size="20KB"))
    assert not (tmp_path / "model.safetensors").exists() and len(list(tmp_path.glob("model-*"))) > 1
    assert begin(tmp_path, {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
