"""Global generators: seeded for a cell, isolated for a shared piece."""

import random

import numpy as np
import torch

from common.experiments.context import Context
from common.experiments.randomness import isolated, seed_everything


def draw():
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_seed_fixes_all_three_generators():
    seed_everything(3)
    first = draw()
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_an_isolated_block_draws_the_same_and_leaves_no_trace():
    seed_everything(0)
    expected = draw(), draw()
    for start in (0, 1):
        seed_everything(start)
        draw()
        with isolated(7):
            inside = draw()
        if start == 0:
            assert draw() == expected[1]
            first_inside = inside
    assert inside == first_inside


def test_building_a_shared_piece_does_not_change_what_a_cell_draws(tmp_path):
    """The key must name the result whether this cell built the piece or found it."""

    def build(folder):
        (folder / "draw.txt").write_text(str(draw()))

    after, pieces = [], []
    for seed, folder in ((0, tmp_path / "a"), (0, tmp_path / "a"), (0, tmp_path / "b")):
        seed_everything(seed)
        context = Context(seed, folder, artifacts=folder)
        pieces.append((context.artifact("piece", {}, build) / "draw.txt").read_text())
        after.append(draw())
    assert after[0] == after[1] == after[2]
    assert pieces[0] == pieces[2]
    seed_everything(1)  # another cell builds the same piece
    assert (
        Context(1, tmp_path / "c", artifacts=tmp_path / "c").artifact("piece", {}, build) / "draw.txt"
    ).read_text() == pieces[0]
