"""The gate before RL: whether the base can do, from right inputs, what an agent does in each turn.

Without these skills a policy that fails beyond the n of its training says nothing about memory.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from common.models.language_model import LanguageModel, Sampling
from projects.mem1.data import JOINER, Made
from projects.mem1.method import Chat, Step, parse, state_of, well_formed
from projects.mem1.settings import Rules, Settings, Skills
from projects.mem1.teachers import turn_of

Measured = dict[str, float]  # name of a skill -> share, in [0, 1]


def measured_skills(
    lm: LanguageModel,
    chat: Chat,
    source: Made,
    settings: Settings,
    objectives: int,
    performed: Callable[[random.Random, Any, Rules, float], list[Step]],
) -> Measured:
    """What the model does greedily, shown the turns of an accumulating teacher without faults.

    state     of states, those that are the teacher's to the letter, where to keep what was known, or to plan, is no
              choice
    query     of turns, those with an action, in tags that match
    found     of actions before the last, those that are the teacher's
    answer    of last ones after a right state, those that are the teacher's

    Args:
        performed: the teacher of such tasks.
    """
    rules = replace(settings.rules, context="pruned")
    rng = random.Random(f"skills/{objectives}")
    shown: list[tuple[list[Step], int]] = []
    prompts = []
    for _ in range(settings.skills.tasks):
        task = source.task(rng, objectives)
        steps = performed(rng, task, rules, 0.0)
        shown += [(steps, number) for number in range(len(steps))]
        prompts += [turn_of(task, steps, number, rules).prompt for number in range(len(steps))]
    stop = (f"</{rules.tags.query}>", f"</{rules.tags.answer}>")
    said = lm.generate(prompts, Sampling(max_tokens=rules.turn_tokens, stop=stop), "skills")
    hits: dict[str, list[bool]] = {name: [] for name in ("state", "query", "found", "answer")}
    for (steps, number), completion in zip(shown, said, strict=True):
        text = chat.text(completion)
        action, wanted = parse(text, rules.tags), parse(steps[number].text, rules.tags)
        state, right = state_of(text, rules.tags), state_of(steps[number].text, rules.tags)
        before = state_of(steps[number - 1].text, rules.tags) if number else ""
        planned = not number and right != "none"
        if not planned and not (right.count(JOINER) and not before.count(JOINER)):
            hits["state"].append(state == right)
        hits["query"].append(bool(action.kind) and well_formed(text, rules.tags))
        if number < len(steps) - 1:
            hits["found"].append(action.argument == wanted.argument)
        elif state == right:
            hits["answer"].append(action.argument == wanted.argument)
    return {name: sum(values) / max(1, len(values)) for name, values in hits.items()}


def lacking(measured: Mapping[int, Measured], asked: Skills) -> list[str]:
    """What of the skills is missing, in words."""
    found = []
    for objectives, state, answer in zip(asked.objectives, asked.state, asked.answer, strict=True):
        least = {"state": state, "query": asked.query, "answer": answer}
        for name, share in least.items():
            if measured[objectives][name] < share:
                found.append(f"{name} {measured[objectives][name]:.3f} < {share} at n = {objectives}")
    return found
