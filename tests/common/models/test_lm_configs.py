"""configs/lm: every file is a model that exists, with settings that its backend has, and tables can take it."""

import shutil
from dataclasses import dataclass, field

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from common.experiments.compose import CONFIGS
from common.models.checkpoints import CHECKPOINTS
from common.models.settings import SHIPPED, LanguageModelSettings

NAMES = sorted(path.stem for path in (CONFIGS / "lm").iterdir())


@dataclass
class Settings:
    """Of a paper with two language models."""

    lm: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings("none"))
    judge: LanguageModelSettings = field(default_factory=lambda: LanguageModelSettings("none"))


@pytest.fixture
def composed(tmp_path):
    """Settings of a table that takes MicroLM, and at paper scale another, composed as the engine does."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    table = tmp_path / "configs" / "table" / "pair"
    table.mkdir()
    (table / "main.yaml").write_text("# @package _global_\ndefaults: [/lm: microlm, _self_]\npaper: pair\n")
    (table / "main_paper.yaml").write_text(
        "# @package _global_\n"
        "defaults: [pair/main, /lm@settings.judge: qwen3_8b, override /lm: gpt2_xl, _self_]\n"
        "settings: {lm: {batch_size: 7}}\n"
    )
    schema = {"settings": OmegaConf.structured(Settings)}
    for model in schema["settings"].values():
        OmegaConf.set_readonly(model, False)  # as `open_schema` does
    ConfigStore.instance().store(group="schema", name="pair", node=schema, package="_global_")

    def settings(table, *overrides):
        with initialize_config_dir(str(tmp_path / "configs"), version_base="1.3"):
            config = compose("repro", overrides=["schema=pair", f"table=pair/{table}", *overrides])
        found = OmegaConf.to_object(config.settings)
        assert isinstance(found, Settings)
        return found

    return settings


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_model_that_exists(composed, name):
    lm = composed("main", f"lm={name}").lm
    if lm.name in SHIPPED:
        assert (SHIPPED[lm.name] / "model.safetensors").is_file()
        return
    checkpoint = CHECKPOINTS[lm.name]
    assert lm.revision == (checkpoint.revision or "") and not checkpoint.pickled
    assert lm.dtype == ("float32" if lm.backend == "openai" else checkpoint.stored)
    text = (CONFIGS / "lm" / f"{name}.yaml").read_text()
    assert checkpoint.gated == ("gated" in text)


def test_a_table_takes_one_and_its_paper_scale_another(composed):
    assert composed("main").lm == LanguageModelSettings("microlm", device="cpu")
    paper = composed("main_paper")
    assert (paper.lm.name, paper.lm.batch_size, paper.lm.device) == ("openai-community/gpt2-xl", 7, "")
    assert (paper.judge.name, paper.judge.backend) == ("Qwen/Qwen3-8B", "vllm")
    assert composed("main_paper", "lm=microlm", "settings.lm.batch_size=2").lm.batch_size == 2


def test_an_unknown_key_stops_the_composition(composed, tmp_path):
    file = tmp_path / "configs" / "lm" / "microlm.yaml"
    file.write_text(file.read_text() + "batch: 3\n")
    with pytest.raises(ConfigCompositionException, match="Key 'batch' not in"):
        composed("main")
