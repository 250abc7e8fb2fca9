"""Topic streams (summaries): chunks of filler in which topics come up, to be listed in order of first appearance."""

from common.data.text_world.relations import CLOSED, FILLERS

TOPICS = (
    *CLOSED["product"], *CLOSED["food"], *CLOSED["language"], *CLOSED["currency"],
    "trade", "taxes", "ships", "wine", "schools", "floods", "wolves", "bridges", "temples", "horses", "gold", "salt",
)  # fmt: skip
STATEMENTS = (
    "Then people talked about {t}.", "Next came the story of {t}.", "Much was said about {t}.",
    "There was talk of {t}.",
)  # fmt: skip
QUESTION = "Which topics came up?"

WORDS = (*TOPICS, *STATEMENTS, QUESTION, *FILLERS)
