"""A policy as a folder: what `train` makes of the same model, loadable, and no more; an interruption does not show."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.models.hub import folder_revision
from common.models.settings import LanguageModelSettings
from common.models.toy import toy_checkpoint
from common.models.transformers_lm import TransformersLM
from common.training import preemption
from common.training.preemption import CHECKPOINT, Preempted
from common.training.reinforcement.policy import train_policy
from common.training.reinforcement.settings import Reinforcement
from common.training.reinforcement.train import CURVE, train
from tests.common.training.reinforcement.acting import WriteLow

SETTINGS = Reinforcement(steps=3, lr=3e-3, warmup=1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> LanguageModelSettings:
    return LanguageModelSettings(str(toy_checkpoint("llama", tmp_path_factory.mktemp("toy"))), device="cpu")


def go(
    speaker: LanguageModelSettings, folder: Path, stop: bool = False, settings: Reinforcement = SETTINGS
) -> dict[str, Any]:
    """Train; the weights of what the folder then holds."""

    def on_step(line: dict[str, float], episodes: Sequence[Any]) -> None:
        if stop and line["step"] == 1:
            preemption.request()

    train_policy(speaker, lambda lm: WriteLow(2, 2), settings, folder, on_step=on_step)
    weights: dict[str, Any] = TransformersLM.load(str(folder), device="cpu").model.state_dict()
    return weights


def test_it_is_what_train_makes_and_the_start_stays(
    speaker: LanguageModelSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = folder_revision(Path(speaker.name))
    found = go(speaker, tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert [line.partition("  reward ")[0] for line in told] == ["step 1/3", "step 2/3", "step 3/3"]
    start = TransformersLM.load(speaker.name, device="cpu")
    assert any(not torch.equal(found[name], value) for name, value in start.model.state_dict().items())
    train(start.model, start, start.tokenizer, WriteLow(2, 2), SETTINGS)
    assert all(torch.equal(found[name], value) for name, value in start.model.state_dict().items())
    assert folder_revision(Path(speaker.name)) == before
    assert (tmp_path / CURVE).is_file() and not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_adapters_are_trained_alone_and_end_up_in_the_weights(
    algorithm: str, speaker: LanguageModelSettings, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, algorithm=algorithm, lora_rank=2, lr=0.05)
    start = TransformersLM.load(speaker.name, device="cpu").model
    found = go(replace(speaker, dtype="bfloat16"), tmp_path, settings=settings)
    assert found.keys() == start.state_dict().keys()
    changes = {name: found[name] - value.bfloat16().float() for name, value in start.state_dict().items()}
    linear = {f"{name}.weight" for name, part in start.model.named_modules() if isinstance(part, torch.nn.Linear)}
    assert {name for name, change in changes.items() if change.any()} == {f"model.{name}" for name in linear}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_an_interruption_does_not_show(
    lora_rank: int, speaker: LanguageModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, lora_rank=lora_rank)
    monkeypatch.setattr(preemption, "_requested", False)
    with pytest.raises(Preempted):
        go(speaker, tmp_path / "a", stop=True, settings=settings)
    assert (tmp_path / "a" / CHECKPOINT).is_file()
    monkeypatch.setattr(preemption, "_requested", False)
    resumed, straight = (go(speaker, tmp_path / name, settings=settings) for name in "ab")
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
