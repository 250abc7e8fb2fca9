"""Rewards on turns: at the end of an episode, or dealt out anew as a control."""

import random

import pytest

from common.training.reinforcement.episodes import Outcome, at_end, shuffled

LENGTHS = (3, 0, 1, 2, 4)
GROUPS = ("a", "a", "b", "b", "c")


def outcomes(seed: int = 0) -> list[Outcome]:
    rng = random.Random(seed)
    return [Outcome(tuple(float(rng.randint(0, 99)) for _ in range(n)), {"own": float(n)}) for n in LENGTHS]


def test_the_last_turn_gets_the_reward_of_an_episode() -> None:
    assert [at_end(2.0, n) for n in (0, 1, 3)] == [(), (2.0,), (0.0, 0.0, 2.0)]


def test_turns_are_dealt_the_rewards_of_all_turns() -> None:
    dealt = shuffled(outcomes(), GROUPS, 0, "turn")
    assert tuple(len(one.rewards) for one in dealt) == LENGTHS
    rewards = [value for one in outcomes() for value in one.rewards]
    random.Random(f"0/{list(GROUPS)}").shuffle(rewards)
    assert [value for one in dealt for value in one.rewards] == rewards
    assert [one.parts for one in dealt] == [one.parts for one in outcomes()]


def test_episodes_are_dealt_the_whole_rewards_of_episodes() -> None:
    totals = [sum(one.rewards) for one in outcomes()]
    random.Random(f"0/{list(GROUPS)}").shuffle(totals)
    assert totals != [sum(one.rewards) for one in outcomes()]
    dealt = shuffled(outcomes(), GROUPS, 0)
    assert [one.rewards for one in dealt] == [at_end(total, n) for total, n in zip(totals, LENGTHS, strict=True)]
    assert [one.parts for one in dealt] == [one.parts for one in outcomes()]


@pytest.mark.parametrize("unit", ["episode", "turn"])
def test_seed_and_groups_decide_who_gets_what(unit: str) -> None:
    def rewards(seed: int, groups: tuple[str, ...]) -> list[tuple[float, ...]]:
        return [one.rewards for one in shuffled(outcomes(), groups, seed, unit)]

    assert rewards(0, GROUPS) == rewards(0, GROUPS)
    assert rewards(0, GROUPS) != rewards(1, GROUPS) and rewards(0, GROUPS) != rewards(0, GROUPS[::-1])


def test_another_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="by episode or turn, not by token"):
        shuffled(outcomes(), GROUPS, 0, "token")
