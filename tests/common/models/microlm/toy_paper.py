"""A paper of two prompts that the base does not know: rewrite a sentence as JSON, route a question by its hops."""

import json
import random

from common.data.text_world.names import Split
from common.data.text_world.questions import make_question
from common.data.text_world.relations import RELATIONS
from common.data.text_world.text import state
from common.data.text_world.world import Dials, make_world
from common.models.microlm.demonstrations import Demonstration, ask, draw_mixture

REWRITE = "Rewrite the sentence as data with subject, attribute and value.\nSentence: {sentence}"
ROUTE = "Choose the agent. A reads one passage, B reads two passages, C reads three or more.\nQuestion: {question}"
SMALL = Dials(people=8, cities=4, companies=3, countries=2)


def demonstrations(split: Split, count: int, seed: int = 0) -> list[Demonstration]:
    """`count` demonstrations with names of a split, as many of either prompt."""
    worlds = [make_world(f"toy/{seed}/{i}", split, SMALL) for i in range(count // 10 + 1)]

    def rewrite(rng: random.Random) -> Demonstration | None:
        fact = rng.choice(rng.choice(worlds).all_facts())
        if RELATIONS[fact.relation].symmetric:  # which of the two is the subject, no sentence tells
            return None
        values = {"subject": fact.subject, "attribute": RELATIONS[fact.relation].key, "value": fact.object}
        return ask(REWRITE.format(sentence=state(rng, fact).text), json.dumps(values))

    def route(rng: random.Random) -> Demonstration | None:
        hops = rng.randint(1, 3)
        question = make_question(rng, rng.choice(worlds), "hop", hops)
        return question and ask(ROUTE.format(question=question.text), "ABC"[hops - 1])

    teachers = {"rewrite": rewrite, "route": route}
    return draw_mixture(teachers, dict.fromkeys(teachers, 1.0), count, f"{split}/{seed}")
