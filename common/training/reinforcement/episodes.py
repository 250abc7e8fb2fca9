"""What reinforcement learning is computed from: episodes of turns, each a context and the tokens sampled in it.

Contexts need not grow: a memory agent's next context is what it wrote, not all that it saw. All per-token quantities of
a batch of episodes are vectors [N] over its generated tokens, episode by episode and turn by turn: log-probabilities,
values, rewards, advantages. Tokens that the model only read are in no vector, so no loss, KL or entropy counts them.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from common.models.language_model import FinishReason


@dataclass(frozen=True)
class Turn:
    """One sampled answer.

    Attributes:
        context: token ids of the prompt, as the model read them.
        token_ids: what was sampled, stop string and end included; at least one.
        log_probs: of each sampled token, as the sampling backend computed them; empty where it tells none.
        text: as the agent read it.
        finish_reason: of the completion.
        observation: token ids of what the context has that is neither the task nor the agent's own last answer.
        trained: which tokens are trained, [len(token_ids)]; None for all.

    Raises:
        ValueError: no context, no sampled token, or another number of `log_probs` or `trained` than of tokens.
    """

    context: tuple[int, ...]
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    text: str = ""
    finish_reason: FinishReason = "stop"
    observation: tuple[int, ...] = ()
    trained: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if not self.context or not self.token_ids:
            raise ValueError("a turn has a context and at least one sampled token")
        for name, values in (("log_probs", self.log_probs or self.token_ids), ("trained", self.trained)):
            if values is not None and len(values) != len(self.token_ids):
                raise ValueError(f"{len(self.token_ids)} sampled tokens and {len(values)} of {name}")


@dataclass(frozen=True)
class Outcome:
    """What an episode was worth.

    Attributes:
        rewards: one for each turn, placed on its last token; an outcome reward is zero but for the last.
        parts: what the reward is made of, for the learning curve.
    """

    rewards: tuple[float, ...]
    parts: Mapping[str, float] = field(default_factory=dict)


def at_end(reward: float, turns: int) -> tuple[float, ...]:
    """The rewards of so many turns of which the last gets all; none for an episode without a turn."""
    return (*[0.0] * (turns - 1), reward)[:turns]


def shuffled(outcomes: Sequence[Outcome], groups: Iterable[str], seed: int, unit: str = "episode") -> list[Outcome]:
    """The rewards of a step dealt out anew, parts left where they were: a control that must not learn.

    Args:
        groups: of the episodes; with `seed` they decide who gets what.
        unit: `episode`: an episode gets at its end the whole reward of one of them; `turn`: a turn that of one of all.

    Raises:
        ValueError: another unit.
    """
    if unit not in ("episode", "turn"):
        raise ValueError(f"rewards are shuffled by episode or turn, not by {unit}")
    whole = unit == "episode"
    rewards = [value for o in outcomes for value in ([sum(o.rewards, 0.0)] if whole else o.rewards)]
    random.Random(f"{seed}/{list(groups)}").shuffle(rewards)
    dealt, lengths = iter(rewards), [len(o.rewards) for o in outcomes]
    own = [at_end(next(dealt), n) if whole else tuple(next(dealt) for _ in range(n)) for n in lengths]
    return [replace(outcome, rewards=given) for outcome, given in zip(outcomes, own, strict=True)]


@dataclass(frozen=True)
class Episode:
    """Turns of one agent on one task.

    Attributes:
        group: of the task instance: rollouts of one instance share it.

    Raises:
        ValueError: the outcome has not one reward for each turn.
    """

    group: str
    turns: tuple[Turn, ...]
    outcome: Outcome

    def __post_init__(self) -> None:
        if len(self.outcome.rewards) != len(self.turns):
            raise ValueError(f"{len(self.turns)} turns and {len(self.outcome.rewards)} rewards")

    @property
    def reward(self) -> float:
        """Of the whole episode."""
        return sum(self.outcome.rewards)

    @property
    def generated(self) -> int:
        """Tokens sampled in all turns."""
        return sum(len(turn.token_ids) for turn in self.turns)


@dataclass(frozen=True)
class Tokens:
    """Where each generated token of a batch of episodes stands, [N] each.

    Attributes:
        episode: index of its episode.
        turn: index of its turn, counted through all episodes.
        last: whether it is the last of its turn.
        trained: whether the policy is trained on it.
    """

    episode: Tensor
    turn: Tensor
    last: Tensor
    trained: Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Tokens":
        """The generated tokens of `episodes`, in order."""
        turns = [(index, turn) for index, episode in enumerate(episodes) for turn in episode.turns]
        lengths = np.array([len(turn.token_ids) for _, turn in turns], dtype=np.int64)
        last = np.zeros(lengths.sum(), dtype=bool)
        last[lengths.cumsum() - 1] = True
        trained = [kept for _, turn in turns for kept in (turn.trained or (True,) * len(turn.token_ids))]
        return cls(
            torch.from_numpy(np.repeat(np.array([index for index, _ in turns], dtype=np.int64), lengths)),
            torch.from_numpy(np.repeat(np.arange(len(turns)), lengths)),
            torch.from_numpy(last),
            torch.tensor(trained, dtype=torch.bool),
        )

    def take(self, index: Tensor) -> "Tokens":
        """Those of `index`."""
        return Tokens(self.episode[index], self.turn[index], self.last[index], self.trained[index])


def sampled_log_probs(episodes: Sequence[Episode]) -> Tensor | None:
    """Log-probability of each generated token as the backend computed it, [N]; None where a turn has none."""
    turns = [turn for episode in episodes for turn in episode.turns]
    if not all(turn.log_probs for turn in turns):
        return None
    return torch.tensor([value for turn in turns for value in turn.log_probs])


def tokens_within(
    tokenizer: PreTrainedTokenizerFast, turn: Turn, where: Callable[[str], Sequence[tuple[int, int]]]
) -> tuple[bool, ...]:
    """Which tokens of a turn write the parts of its text that `where` finds: memory, action, answer.

    A token counts where any character of it lies inside. Characters are those of the decoded tokens, stop string
    included, special tokens left out.

    Args:
        where: the text to (start, end) pairs of characters.
    """
    stream = DecodeStream(ids=list(turn.context), skip_special_tokens=True)
    text, spans = "", []
    waiting = 0  # tokens whose characters are not complete yet
    for token in turn.token_ids:
        new = stream.step(tokenizer._tokenizer, token)
        waiting += 1
        if new is not None:
            spans += [(len(text), len(text) + len(new))] * waiting
            text, waiting = text + new, 0
    spans += [(len(text), len(text))] * waiting
    inside = where(text)
    return tuple(any(start < b and a < end for a, b in inside) for start, end in spans)
