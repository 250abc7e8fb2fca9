"""What training says is its own: no bars of transformers, and on a CPU no advice to install kernels for a GPU."""

import io
import logging
from dataclasses import replace

import pytest
import transformers

from common.models.microlm import train as training
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.fact_model import FactRecipe, train_facts
from common.models.microlm.facts import FactDials
from common.models.microlm.model import Shape
from common.models.microlm.recipe import Recipe
from common.models.microlm.specialise import specialise
from common.models.microlm.train import train
from common.models.microlm.tuning import Tuning
from tests.common.models.microlm.toy_paper import EQUAL, taught

SHAPE = Shape(width=32, layers=2, inner=32)
RECIPE = Recipe(SHAPE, steps=1, step_tokens=200, micro_tokens=200)
FACTS = FactRecipe(SHAPE, dials=FactDials(people=4, cities=4, companies=3, places=3, countries=2), rounds=1)


def test_training_from_nothing_again_and_from_weights(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "PROBES", {"copy": ("copy", training.Level())})
    for _ in range(2):
        train(RECIPE, tmp_path / "model", say=lambda line: None)
    train(replace(RECIPE, schedule="refine"), tmp_path / "further", start=tmp_path / "model", say=lambda line: None)
    assert terminal() == ""


def test_training_of_facts_and_again(terminal, tmp_path):
    for _ in range(2):
        train_facts(FACTS, tmp_path, say=lambda line: None)
    assert terminal() == ""


def test_specialisation(terminal, tmp_path):
    specialise(
        "microlm", taught(Teaching(4, EQUAL)), Tuning(steps=1, step_tokens=64, replay=0.0), tmp_path, device="cpu"
    )
    assert terminal() == ""


@pytest.fixture
def terminal(capsys, monkeypatch):
    """What has reached the terminal, in a process where transformers says all that it has to say."""
    logger, heard = logging.getLogger("transformers.integrations.hub_kernels"), io.StringIO()
    handler = logging.StreamHandler(heard)
    monkeypatch.setattr(logger, "filters", [])
    transformers.utils.logging.warning_once.cache_clear()
    transformers.utils.logging.enable_progress_bar()
    logger.addHandler(handler)
    yield lambda: heard.getvalue() + capsys.readouterr().err
    logger.removeHandler(handler)
    assert transformers.utils.logging.is_progress_bar_enabled()
