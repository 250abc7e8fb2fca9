"""Training from nothing learns: the loss of the recipe's own data falls."""

from dataclasses import replace

import pytest

from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.train import cpu_recipe, step_data
from common.training.supervised import fit


@pytest.mark.usefixtures("one_thread")
def test_thirty_steps_lower_the_loss_by_two_nats() -> None:
    """By three when it was written; by nothing at a learning rate of 1e-9."""
    recipe = replace(cpu_recipe(Shape(width=64, layers=2)), steps=30)
    tokenizer, losses = microlm_tokenizer(), []
    optimization = replace(recipe.optimization, warmup=5)
    model, data = build_model(recipe.shape, tokenizer, recipe.seed), step_data(recipe, tokenizer, "cpu", None)
    fit(model, data, recipe.steps, optimization, on_step=lambda step, figures: losses.append(figures["loss"]))
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 2
