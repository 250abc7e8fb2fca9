"""Rollouts: episodes of many turns, each turn a prompt of its own, sampled in batches from any language model.

    class Task:                                     # what a paper brings
        def begin(self, step): return [Searcher(...) for ... in ...]
        def settle(self, agents): return [Outcome(...) for agent in agents]

All agents that wait for an answer are answered in one call of the backend, whatever turn each is at: a batch holds
first turns beside last ones, and an agent that ends makes room for the next. Seeds belong to (seed, agent, turn), so
neither the number of slots nor the other agents change what an agent reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from common.models.language_model import Completion, LanguageModel, Prompt, Sampling, encode, encode_continuation
from common.training.reinforcement.episodes import Episode, Outcome, Turn

Mask = Callable[[Turn], tuple[bool, ...]]


@dataclass(frozen=True)
class Request:
    """What an agent asks the model.

    Attributes:
        prompt: the whole context of this turn.
        stop: strings that end the answer.
        max_tokens: of the answer.
        observation: what of the prompt the environment added after the agent's last answer; only the layout `stitched`
            reads it.
    """

    prompt: Prompt
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    observation: str = ""


class Agent(Protocol):
    """One episode under way.

    Attributes:
        group: rollouts of one task instance share it.
    """

    @property
    def group(self) -> str: ...

    def ask(self) -> Request | None:
        """What the model is to answer now; None: the episode is over."""
        ...

    def take(self, completion: Completion) -> None:
        """The answer to the last request; any text at all must be taken."""
        ...


class Task(Protocol):
    """Episodes to learn from."""

    def begin(self, step: int) -> Sequence[Agent]:
        """Agents of a step, a function of its number; several of one group are rollouts of one instance."""
        ...

    def settle(self, agents: Sequence[Any]) -> Sequence[Outcome]:
        """What the episodes of these agents were worth, once all are over: in one call, for judges that batch."""
        ...


@dataclass(frozen=True)
class Played:
    """An agent at the end, and what it was asked and answered."""

    agent: Any
    turns: tuple[Turn, ...]


def play(
    agents: Sequence[Agent], lm: LanguageModel, tokenizer: Any, sampling: Sampling, slots: int = 0
) -> list[Played]:
    """Let every agent act until its episode is over.

    Args:
        tokenizer: of `lm`, which is given text: contexts are tokenised as the backends do.
        sampling: temperature, nucleus and seed; stop strings and length are the agents'.
        slots: most episodes under way at once; 0 for all.

    Raises:
        ValueError: the backend tells no token ids.
        UserError: of the backend: a context that is too long, a server that is not there.
    """
    turns: list[list[Turn]] = [[] for _ in agents]
    waiting = list(range(len(agents)))[::-1]
    active: list[int] = []
    while True:
        asked = [(index, request) for index in active if (request := agents[index].ask()) is not None]
        while waiting and (not slots or len(asked) < slots):
            if (request := agents[waiting[-1]].ask()) is not None:
                asked.append((waiting[-1], request))
            waiting.pop()
        if not asked:
            break
        samplings = [
            replace(
                sampling,
                stop=request.stop,
                max_tokens=request.max_tokens,
                seed=_seed(sampling.seed, index, len(turns[index])),
            )
            for index, request in asked
        ]
        completions = lm.generate([request.prompt for _, request in asked], samplings, "rollout")
        for (index, request), completion in zip(asked, completions, strict=True):
            turns[index].append(_turn(tokenizer, request, completion))
            agents[index].take(completion)
        active = [index for index, _ in asked]
    return [Played(agent, tuple(own)) for agent, own in zip(agents, turns, strict=True)]


def roll_out(
    task: Task,
    step: int,
    lm: LanguageModel,
    tokenizer: Any,
    sampling: Sampling,
    slots: int = 0,
    mask: Mask | None = None,
) -> list[Episode]:
    """The episodes of one step, in the order of `task.begin`; see `play`.

    Args:
        mask: which tokens of a turn are trained; None for all.

    Raises:
        ValueError: as `play`; or `settle` does not give one outcome for each agent and one reward for each turn.
    """
    played = play(task.begin(step), lm, tokenizer, sampling, slots)
    outcomes = task.settle([one.agent for one in played])
    kept = [one.turns if mask is None else tuple(replace(t, trained=mask(t)) for t in one.turns) for one in played]
    return [
        Episode(one.agent.group, turns, outcome) for one, turns, outcome in zip(played, kept, outcomes, strict=True)
    ]


def _turn(tokenizer: Any, request: Request, completion: Completion) -> Turn:
    if completion.token_ids is None:
        raise ValueError("rollouts need the ids of sampled tokens, which this backend does not tell")
    observation = encode_continuation(tokenizer, request.observation) if request.observation else []
    return Turn(
        tuple(encode(tokenizer, request.prompt)),
        completion.token_ids,
        completion.log_probs or (),
        completion.text,
        completion.finish_reason,
        tuple(observation),
    )


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
