"""Agents and episodes for the tests: a task that a toy model learns in seconds, and random episodes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.models.language_model import Completion
from common.training.reinforcement.episodes import Episode, Outcome, Turn
from common.training.reinforcement.rollout import Request


@dataclass
class Writer:
    """Writes a few bytes in each of its turns; sees the instance and what it wrote in the turn before, no more."""

    group: str
    turns: int = 2
    max_tokens: int = 6
    stop: tuple[str, ...] = ()
    wrote: list[Completion] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)

    def ask(self) -> Request | None:
        if len(self.wrote) == self.turns:
            return None
        read = f"-{len(self.wrote)}"
        self.contexts.append(f"{self.group}:{self.wrote[-1].text if self.wrote else ''}{read}")
        return Request(self.contexts[-1], self.stop, self.max_tokens, read)

    def take(self, completion: Completion) -> None:
        self.wrote.append(completion)


LOW = 128  # a token below it is wanted: about half of the vocabulary


class WriteLow:
    """Reward: the share of sampled tokens below `LOW`, turn by turn.

    Args:
        shuffled: rewards go to episodes other than those that earned them: nothing can be learned.
    """

    def __init__(self, instances: int = 4, rollouts: int = 4, shuffled: bool = False, turns: int = 2) -> None:
        self.instances, self.rollouts, self.shuffled, self.turns = instances, rollouts, shuffled, turns
        self.earned: list[float] = []

    def begin(self, step: int) -> list[Writer]:
        names = [f"{step}.{instance}" for instance in range(self.instances)]
        return [Writer(name, self.turns) for name in names for _ in range(self.rollouts)]

    def settle(self, agents: Sequence[Writer]) -> list[Outcome]:
        rewards = [tuple(share_low(one) for one in agent.wrote) for agent in agents]
        self.earned.append(sum(map(sum, rewards)) / len(rewards) / self.turns)
        if self.shuffled:
            random.Random(len(self.earned)).shuffle(rewards)
        return [Outcome(own, {"low": sum(own)}) for own in rewards]


def share_low(completion: Completion) -> float:
    ids = completion.token_ids or ()
    return sum(token < LOW for token in ids) / len(ids)


def random_episodes(seed: int, count: int = 4, vocabulary: int = 256) -> list[Episode]:
    """Episodes in pairs of one group, of one to three turns that share what their contexts begin with."""
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(rng.randint(least, most)))

    episodes = []
    for number in range(count):
        task = tokens(3, 5)
        turns: list[Turn] = []
        for _ in range(rng.randint(1, 3)):
            observation = tokens(2, 4) if turns else ()
            context = task + (turns[-1].token_ids if turns else ()) + observation
            turns.append(Turn(context, tokens(1, 5), observation=observation))
        rewards = tuple(rng.choice([0.0, 0.5, 1.0]) for _ in turns)
        episodes.append(Episode(str(number // 2), tuple(turns), Outcome(rewards)))
    return episodes
