"""MicroLM's skills measured on held-out worlds, by generation or, for a quick look in training, by teacher forcing."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.data.text_world.names import Split
from common.models.microlm.recipe import encode_items
from common.models.microlm.skills import SKILLS, Item, Level, draw_world, taught_world
from common.training.supervised import Example, collate


def held_out_items(seed: int | str, split: Split, skill: str, level: Level, count: int) -> list[Item]:
    """`count` items of a skill from worlds of a split, a new world every four items.

    Raises:
        ValueError: a hundred tries in a row gave no item of the skill.
    """
    rng = random.Random(f"items/{seed}/{split}/{skill}/{level}")
    taught = taught_world()
    items: list[Item] = []
    barren = 0
    while len(items) < count:
        if barren == 100:
            raise ValueError(f"no items of skill '{skill}' at {level}")
        before = len(items)
        world = taught if skill == "closed_book" else draw_world(rng, split, level)
        for _ in range(4):
            for _ in range(50):
                if item := SKILLS[skill](rng, world, level):
                    items.append(item)
                    break
        barren = 0 if len(items) > before else barren + 1
    return items[:count]


def last_answers(tokenizer: Any, items: Sequence[Item]) -> list[Example]:
    """The conversations, the last answer of each and its end token as targets."""
    examples = []
    for ids, item in zip(encode_items(tokenizer, items), items, strict=True):
        answer = len(tokenizer(item.answer, add_special_tokens=False).input_ids) + 1
        weights = np.zeros(len(ids), dtype=np.float32)
        weights[-answer:] = 1.0
        examples.append(Example(ids, weights))
    return examples


@torch.no_grad()
def forced_accuracy(model: Any, examples: Sequence[Example], device: str = "cpu") -> float:
    """Share of examples whose every target is the likeliest token: those that greedy decoding answers."""
    was_training = model.training
    model.eval()
    right = 0
    for batch in collate(examples, 0, 8192):
        batch = batch.to(device)
        hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = batch.weights[:, 1:] > 0
        best = model.get_output_embeddings()(hidden[wanted]).argmax(-1)
        wrong = torch.zeros_like(wanted)
        wrong[wanted] = best != batch.ids[:, 1:][wanted]
        right += int((~wrong.any(1)).sum())
    model.train(was_training)
    return right / len(examples)
