"""The tokenizer of the tiny scale's policy, which begins with random weights.

A tag is one token, a name two, another word one: turns are short, and a closed vocabulary is soon learned.
"""

import random
from typing import Any

from tokenizers import AddedToken

from common.data.text_world.questions import UNKNOWN
from common.data.text_world.relations import CLOSED, RELATIONS
from common.models.microlm.lexicon import words_of
from common.models.microlm.scratch import closed_tokenizer
from projects.mem1.method import PROMPTS, hint
from projects.mem1.settings import Tags
from projects.mem1.shopping import BRANDS, CATEGORIES, NEXT, OPTIONS, Shop, Shopping, catalogue, draw_goal


def world_tokenizer(tags: Tags, shop: bool = False) -> Any:
    """Whole words of the text world, of prompts and of hints, or of a shop; any other text is spelled in bytes."""
    said = [text for r in RELATIONS.values() for text in (*r.statements, *r.questions, *r.phrases)]
    capitals = [word.capitalize() for word in words_of(*CLOSED.values())]
    texts = [said, capitals, PROMPTS.values(), hint(1), hint(2), UNKNOWN, "none"]
    if shop:
        texts += [shop_texts()]
    tokenizer = closed_tokenizer(*texts, marks="[];:,.?!<>" if shop else "[];:,.?!")
    marks = [f"<{slash}{name}>" for name in vars(tags).values() for slash in ("", "/")]
    tokenizer.add_tokens([AddedToken(mark, lstrip=True, normalized=False) for mark in marks])
    return tokenizer


def shop_texts() -> list[str]:
    """Texts that have every word of a shop: of its products, and of a page of each kind."""
    products = catalogue("words", len(CATEGORIES))
    trip = Shopping(Shop(products), draw_goal(random.Random(0), products))
    pages = [trip.goal.text, trip.observe()]
    first = products[0]
    for action in (
        f"search[{first.query}]",
        f"click[{first.id}]",
        "click[features]",
        "click[< prev]",
        "click[buy now]",
    ):
        trip.act(action)
        pages += [action, trip.observe()]
    values = [value for values in OPTIONS.values() for value in values]
    return [
        *pages,
        *CATEGORIES,
        *(word for words in CATEGORIES.values() for word in words),
        *OPTIONS,
        *values,
        *BRANDS,
        NEXT,
        products[0].id.lower(),
    ]
