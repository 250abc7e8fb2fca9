"""How the turns of an episode are laid out as rows for a forward pass: one row a turn, or one row for several.

    per_turn         x c₁ y₁ | x c₂ y₂ | ...       one causal row for each turn
    growing          x c₁ y₁ o₁ y₂ o₂ ...          one causal row for turns whose contexts begin with all before
    stitched_dup     x c₁ y₁ c₂ y₂ ...             c, y of a turn see x and each other only; positions restart after x
    stitched         x y₁ o₁ y₂ o₂ ...             y₁ serves as output and as the next turn's context (MEM1, Sec. 3.3)

x is what the contexts of an episode begin with alike, c the rest of a turn's context, y what was sampled, o what the
environment added. The first three give every token the log-probability that it was sampled with, at any depth. Of an
agent that forgets nothing `growing` computes nothing twice, and is `per_turn` where it forgets; `stitched_dup` computes
x once. `stitched` is an approximation where a model has more than one layer or positions: the keys of y₁ were computed
while y₁ saw the context before, and y₁ has one position where it had two.

A layer that does not attend, a convolution say, reads across the turns of a stitched row (see `forward.check_layout`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from common.training.reinforcement.episodes import Episode

Rule = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""(turn [T], part [T] of each token of a row) -> which token each sees beside the causal order, [T, T]."""

Layout = Callable[[Sequence[Episode]], "list[Row]"]

TASK, ANSWER, READ = 0, 1, 2  # parts of a row: what all turns share, what was sampled, what else a turn reads


@dataclass(frozen=True)
class Row:
    """One sequence of a forward pass.

    Attributes:
        ids: token ids, [T].
        targets: places of the sampled tokens, in order; the token before each predicts it, [n], >= 1.
        tokens: which of the batch's generated tokens they are, [n].
        positions: position of each token, [T]; None for 0 to T - 1.
        visible: which token (column) each (row) sees, [T, T]; None for all before it and itself.
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64] | None = None
    visible: NDArray[np.bool_] | None = None


def per_turn(episodes: Sequence[Episode]) -> list[Row]:
    """A row for each turn: exact, of any model."""
    rows, done = [], 0
    for episode in episodes:
        for turn in episode.turns:
            count = len(turn.token_ids)
            targets = len(turn.context) + np.arange(count)
            rows.append(Row(np.array(turn.context + turn.token_ids), targets, done + np.arange(count)))
            done += count
    return rows


def growing(episodes: Sequence[Episode]) -> list[Row]:
    """A row for each run of turns whose contexts begin with all of the turn before: exact, of any model."""
    rows, done = [], 0
    for episode in episodes:
        targets: list[int] = []
        for turn, following in zip_longest(episode.turns, episode.turns[1:]):
            ids = turn.context + turn.token_ids
            targets += range(len(turn.context), len(ids))
            if following is None or following.context[: len(ids)] != ids:
                rows.append(Row(np.array(ids), np.array(targets), done + np.arange(len(targets))))
                done += len(targets)
                targets = []
    return rows


def stitched_dup(episodes: Sequence[Episode]) -> list[Row]:
    """A row for each episode, in which every turn has a context of its own: exact, of models with attention alone."""
    rows, done = [], 0
    for episode in filter(lambda episode: episode.turns, episodes):
        shared = _shared([turn.context for turn in episode.turns])
        ids, positions = list(episode.turns[0].context[:shared]), list(range(shared))
        turns = [-1] * shared
        targets: list[int] = []
        for number, turn in enumerate(episode.turns):
            own = turn.context[shared:] + turn.token_ids
            targets += range(len(ids) + len(turn.context) - shared, len(ids) + len(own))
            ids += own
            positions += range(shared, shared + len(own))
            turns += [number] * len(own)
        turn_of = np.array(turns)
        visible = np.tri(len(ids), dtype=bool) & ((turn_of[:, None] == turn_of) | (turn_of == -1))
        tokens = done + np.arange(len(targets))
        rows.append(Row(np.array(ids), np.array(targets), tokens, np.array(positions), visible))
        done += len(targets)
    return rows


def stitched(episodes: Sequence[Episode], rule: Rule | None = None) -> list[Row]:
    """A row for each episode, its task, answers and observations once each: the layout of MEM1's paper.

    Args:
        rule: who sees whom beside the causal order; None for `consolidated`.
    """
    rows, done = [], 0
    for episode in filter(lambda episode: episode.turns, episodes):
        ids = list(episode.turns[0].context)
        turns, parts = [-1] * len(ids), [TASK] * len(ids)
        targets: list[int] = []
        for number, turn in enumerate(episode.turns):
            if number:  # what the environment answered to the turn before
                ids += turn.observation
                turns += [number - 1] * len(turn.observation)
                parts += [READ] * len(turn.observation)
            targets += range(len(ids), len(ids) + len(turn.token_ids))
            ids += turn.token_ids
            turns += [number] * len(turn.token_ids)
            parts += [ANSWER] * len(turn.token_ids)
        visible = np.tri(len(ids), dtype=bool) & (rule or consolidated)(np.array(turns), np.array(parts))
        tokens = done + np.arange(len(targets))
        rows.append(Row(np.array(ids), np.array(targets), tokens, np.arange(len(ids)), visible))
        done += len(targets)
    return rows


def consolidated(turn: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """An answer sees the task, the turn before and itself; an observation the task and its own turn."""
    behind = turn[:, None] - turn
    answers = (part == ANSWER)[:, None]
    mask: NDArray[np.bool_] = (part == TASK) | (behind == 0) | (answers & (behind == 1))
    return mask


def _shared(contexts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all contexts begin with; of each context at least one is left, which predicts the answer."""
    first, least = contexts[0], min(map(len, contexts)) - 1
    return next((i for i in range(least) if any(context[i] != first[i] for context in contexts)), least)


LAYOUTS: dict[str, Layout] = {
    "per_turn": per_turn,
    "growing": growing,
    "stitched_dup": stitched_dup,
    "stitched": stitched,
}
