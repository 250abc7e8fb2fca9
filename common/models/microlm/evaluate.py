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
    """`count` items of a skill from worlds of a split, a new world every four items."""
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


@torch.no_grad()
def forced_accuracy(
    model: Any, tokenizer: Any, items: Sequence[Item], device: str = "cpu", autocast: bool = False
) -> float:
    """Share of items whose every answer token is the most likely one: exactly when greedy decoding gives the answer."""
    examples = []
    for ids, item in zip(encode_items(tokenizer, items), items, strict=True):
        answer = len(tokenizer(item.answer, add_special_tokens=False).input_ids) + 1
        weights = np.zeros(len(ids), dtype=np.float32)
        weights[-answer:] = 1.0  # the last answer and its end token
        examples.append(Example(ids, weights))
    was_training = model.training
    model.eval()
    right = 0
    for batch in collate(examples, tokenizer.pad_token_id, 32768):
        batch = batch.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1]
            wanted = batch.weights[:, 1:] > 0
            best = model.get_output_embeddings()(hidden[wanted]).argmax(-1)
        wrong = torch.zeros_like(wanted)
        wrong[wanted] = best != batch.ids[:, 1:][wanted]
        right += int((~wrong.any(1)).sum())
    model.train(was_training)
    return right / len(examples)
