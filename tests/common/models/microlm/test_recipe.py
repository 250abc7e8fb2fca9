"""Data of training: pure steps, weights of targets, conversations drawn ahead."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from common.models.microlm import train as training
from common.models.microlm.model import Shape, build_model, parameter_count
from common.models.microlm.recipe import (
    REFINE,
    SCHEDULES,
    STAGES,
    PoolData,
    Recipe,
    RecipeData,
    draw_pool,
    microlm_tokenizer,
    stage_at,
    target_weights,
)
from common.models.microlm.skills import SKILLS
from common.models.microlm.train import train
from tests.common.training.interrupting import Stop, save_often, stop_at

TOKENIZER = microlm_tokenizer()
SMALL = Recipe(Shape(width=32, layers=2, inner=32), steps=8, step_tokens=600, micro_tokens=600)


def test_a_step_depends_on_the_recipe_and_its_index_alone() -> None:
    one, other = RecipeData(SMALL, TOKENIZER), RecipeData(SMALL, TOKENIZER)
    other.step(0)
    for a, b in zip(one.step(5), other.step(5), strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.weights, b.weights)
    assert not torch.equal(one.step(5)[0].ids, one.step(6)[0].ids)
    assert not torch.equal(one.step(5)[0].ids, RecipeData(replace(SMALL, seed=1), TOKENIZER).step(5)[0].ids)


def test_a_step_has_its_tokens() -> None:
    for index in range(3):
        tokens = sum(int((batch.ids != 0).sum()) for batch in RecipeData(SMALL, TOKENIZER).step(index))
        assert 600 <= tokens < 600 + 1200  # at most the last conversation more


def test_answers_weigh_one_and_every_fourth_prompt_token_its_share() -> None:
    messages = [
        {"role": "user", "content": "Where does Balman live?"},
        {"role": "assistant", "content": "Alrona"},
        {"role": "user", "content": "Question: Who?"},
        {"role": "assistant", "content": "no"},
    ]
    ids = np.array(TOKENIZER.apply_chat_template(messages)["input_ids"], dtype=np.uint16)
    weights = target_weights(ids, TOKENIZER)
    assert TOKENIZER.decode(ids[weights == 1]) == "Alrona<|end|>no<|end|>"
    assert set(weights.tolist()) == {0.0, 1.0}
    with_prompt = target_weights(ids, TOKENIZER, 0.1, phase=2)
    places = np.flatnonzero(with_prompt == np.float32(0.4))
    assert set(places % 4) == {2}
    assert not set(places) & set(np.flatnonzero(weights))


def test_stages_cover_all_steps_and_name_known_skills() -> None:
    for stages in SCHEDULES.values():
        assert stages[-1].until == 1.0
        assert [stage.until for stage in stages] == sorted(stage.until for stage in stages)
        assert all(set(stage.mixture) <= set(SKILLS) for stage in stages)
    assert stage_at(0.0, STAGES) is STAGES[0]
    assert stage_at(0.999, REFINE) is REFINE[-1]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.safetensors"
    draw_pool(3, [4000, 4000, 4000], path, processes=1)
    return path


def test_every_conversation_of_a_pool_is_seen_once_a_round(pool: Path) -> None:
    data = PoolData(replace(SMALL, steps=4000, step_tokens=2000), TOKENIZER, pool)
    stage = data.stages[1]
    ids = load_file(pool)["stage1"]
    count = int((ids == TOKENIZER.bos_token_id).sum())
    assert sorted(stage.order[:count]) == list(range(count))
    steps = [data.step(stage.first_step + k) for k in range(int(len(ids) // 2000) - 1)]
    rows = [tuple(row[row != 0].tolist()) for step in steps for batch in step for row in batch.ids]
    assert len(set(rows)) >= len(rows) - 2  # the same conversation may have been drawn twice
    assert all(abs(sum(int((batch.ids != 0).sum()) for batch in step) - 2000) < 700 for step in steps)
    assert all(batch.ids.numel() <= 600 or len(batch.ids) == 1 for step in steps for batch in step)


def test_a_pool_carries_the_weights_of_its_stage(pool: Path) -> None:
    data = PoolData(replace(SMALL, steps=100, step_tokens=2000), TOKENIZER, pool)
    early, late = (torch.cat([batch.weights.flatten() for batch in data.step(i)]) for i in (0, 99))
    assert bool(((early > 0) & (early < 1)).any())
    assert set(late.unique().tolist()) == {0.0, 1.0}


def test_fresh_models_are_seeded_and_name_what_vllm_reads() -> None:
    one, same, other = (build_model(Shape(width=64, layers=2), TOKENIZER, seed) for seed in (0, 0, 1))
    assert torch.equal(one.get_input_embeddings().weight, same.get_input_embeddings().weight)
    assert not torch.equal(one.get_input_embeddings().weight, other.get_input_embeddings().weight)
    assert (one.config.conv_dim, one.config.conv_dim_out, one.config.block_dim) == (64, 64, 64)
    assert parameter_count(build_model(Shape("llama", 64, 2), TOKENIZER, 0)) > 0


def test_both_forms_of_a_word_start_alike() -> None:
    table = build_model(Shape(width=64, layers=2), TOKENIZER, 0).get_input_embeddings().weight.detach()
    vocabulary = TOKENIZER.get_vocab()
    pair, stranger = (table[vocabulary["Ġanswer"]], table[vocabulary["answer"]]), table[vocabulary["Ġbaker"]]
    assert torch.cosine_similarity(*pair, dim=0) > 0.9 > 0.5 > torch.cosine_similarity(pair[0], stranger, dim=0)


@pytest.mark.parametrize(("wrong", "message"), [({"width": 100}, "multiple of 32"), ({"kind": "gru"}, "lfm2 or llama")])
def test_shapes_that_cannot_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(**wrong)  # type: ignore[arg-type]


def test_training_writes_a_model_resumes_and_refuses_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PROBES", {"copy": ("copy", training.Level())})
    save_often(monkeypatch)
    recipe = replace(SMALL, steps=4)
    train(recipe, tmp_path / "straight", say=lambda line: None)
    with pytest.raises(Stop):
        train(recipe, tmp_path, say=stop_at(3))
    assert not (tmp_path / "model.safetensors").exists()
    said: list[str] = []
    train(recipe, tmp_path, say=said.append)
    assert [line.split()[1] for line in said if line.startswith("step")] == ["3", "4"]
    files = {path.name for path in tmp_path.iterdir()} - {"straight"}
    assert {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "training.jsonl"} <= files
    assert not files & {"checkpoint", "partial"}
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "straight" / "model.safetensors").read_bytes()
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]
        for path in (tmp_path / "training.jsonl", tmp_path / "straight" / "training.jsonl")
    ]
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4]
    assert logs[0] == logs[1]
    train(recipe, tmp_path, say=said.append)
    assert said[-1].endswith("is trained already")
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    with pytest.raises(ValueError, match="another recipe"):
        train(replace(recipe, seed=7), tmp_path)
    further = tmp_path / "further"
    train(replace(recipe, schedule="refine"), further, start=tmp_path, say=lambda line: None)
    assert json.loads((further / "recipe.json").read_text())["start"].startswith("sha256:")
