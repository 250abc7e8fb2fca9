"""A paper of two prompts that the base does not know: rewrite a sentence as JSON, route a question by its hops."""

import json
import random
from collections.abc import Sequence

from common.data.text_world.names import Split
from common.data.text_world.questions import make_question
from common.data.text_world.relations import RELATIONS
from common.data.text_world.text import state
from common.data.text_world.world import Dials, make_world
from common.models.microlm.demonstrations import FAULTS, Demonstration, Teacher, Teaching, ask, teach

REWRITE = "Rewrite the sentence as data with subject, attribute and value.\nSentence: {sentence}"
ROUTE = "Choose the agent. A reads one passage, B reads two passages, C reads three or more.\nQuestion: {question}"
SMALL = Dials(people=8, cities=4, companies=3, countries=2)
EQUAL = {"rewrite": 1.0, "route": 1.0}


def teachers(split: Split, worlds: int, seed: int | str = 0) -> dict[str, Teacher]:
    """The teacher of either prompt, with names of a split."""
    drawn = [make_world(f"toy/{seed}/{i}", split, SMALL) for i in range(worlds)]

    def rewrite(rng: random.Random) -> Demonstration | None:
        fact = rng.choice(rng.choice(drawn).all_facts())
        if RELATIONS[fact.relation].symmetric:  # which of the two is the subject, no sentence tells
            return None
        values = {"subject": fact.subject, "attribute": RELATIONS[fact.relation].key, "value": fact.object}
        return ask(REWRITE.format(sentence=state(rng, fact).text), json.dumps(values))

    def route(rng: random.Random) -> Demonstration | None:
        hops = rng.randint(1, 3)
        question = make_question(rng, rng.choice(drawn), "hop", hops)
        return question and ask(ROUTE.format(question=question.text), "ABC"[hops - 1])

    return {"rewrite": rewrite, "route": route}


def misrouted(rng: random.Random, shown: Demonstration, others: Sequence[Demonstration]) -> str | None:
    """A fault of the paper's own: the agent with one reading more, or with one where there is none."""
    return {"A": "B", "B": "C", "C": "A"}[shown.answer]


def taught(teaching: Teaching) -> list[Demonstration]:
    """Demonstrations with names for training."""
    known = teachers("train", teaching.count // 10 + 1, teaching.seed)
    return teach(known, teaching, {**FAULTS, "misrouted": misrouted})


def held_out(count: int, seed: int = 0) -> list[Demonstration]:
    """Perfect demonstrations with names that no training saw."""
    return teach(teachers("test", count // 10 + 1, seed), Teaching(count, EQUAL, seed=seed))
