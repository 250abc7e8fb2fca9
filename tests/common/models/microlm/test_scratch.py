"""A model that has read nothing: of the size asked for, the same each time, loaded with its tokenizer as any other."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.data.text_world.relations import CLOSED
from common.experiments.errors import UserError
from common.models.hub import folder_revision
from common.models.microlm.scratch import Size, closed_tokenizer, fresh
from common.models.transformers_lm import TransformersLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fresh")
    fresh(Size(width=32, layers=2, inner=64), closed_tokenizer("insert zebra", marks=";"), made)
    return made


def test_it_is_loaded_with_its_tokenizer(folder: Path) -> None:
    lm = TransformersLM.load(str(folder), device="cpu")
    assert lm.tokenizer.get_vocab() == closed_tokenizer(["zebra", "insert"], marks=";").get_vocab()
    config = lm.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 2, 64)
    assert config.vocab_size >= len(lm.tokenizer) and lm.model.dtype == torch.float32


def test_the_weights_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    fresh(Size(width=32, layers=2, inner=64), closed_tokenizer("insert zebra", marks=";"), tmp_path)
    assert folder_revision(tmp_path) == folder_revision(folder)


def test_words_digits_and_marks_are_single_tokens_and_the_rest_is_spelled() -> None:
    tokenizer = closed_tokenizer("insert {field} zebra", marks=";")
    for word in ("insert", "zebra", ";", "7", CLOSED["pet"][0]):
        assert len(tokenizer(f" {word}").input_ids) == 1, word
    for other in ("field", "zebras", "日本"):
        ids = tokenizer(other).input_ids
        assert len(ids) > 1 and tokenizer.decode(ids) == other


def test_a_size_in_settings_imports_no_torch() -> None:
    code = "import sys; from common.models.microlm.scratch import Size; Size(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"width": 50}, "width of a model from scratch must be a multiple of 32, not 50$"),
        ({"width": 0}, "must be a multiple of 32, not 0$"),
        ({"layers": 0}, "layers and inner of a model must be at least 1, not 0 and 192$"),
    ],
)
def test_a_size_that_no_model_has_is_told_in_one_line(size: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Size(**size)
