"""Topic streams (summaries): chunks of filler in which topics come up, to be listed in order of first appearance."""

from common.data.text_world.relations import CLOSED, FILLERS

TOPICS = (
    *CLOSED["product"], *CLOSED["food"], *CLOSED["language"], *CLOSED["currency"],
    "trade", "taxes", "ships", "wine", "schools", "floods", "wolves", "bridges", "temples", "horses", "gold", "salt",
)  # fmt: skip
TOPIC_SENTENCES = (
    "Then people talked about {topic}.", "Next came the story of {topic}.", "Much was said about {topic}.",
    "There was talk of {topic}.",
)  # fmt: skip
QUESTION = "Which topics came up?"

WORDS = (*TOPICS, *TOPIC_SENTENCES, QUESTION, *FILLERS)
