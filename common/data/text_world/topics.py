"""Topic streams (summaries): chunks of filler in which topics come up, to be listed in order of first appearance."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from common.data.text_world.names import Split
from common.data.text_world.relations import CLOSED, FILLERS

TOPICS = (
    *CLOSED["product"], *CLOSED["food"], *CLOSED["language"][1:], *CLOSED["currency"],  # Aric is part of Faric
    "trade", "taxes", "ships", "wine", "schools", "floods", "wolves", "bridges", "temples", "horses", "gold", "salt",
)  # fmt: skip
TOPIC_SENTENCES = (
    "Then people talked about {topic}.", "Next came the story of {topic}.", "Much was said about {topic}.",
    "There was talk of {topic}.",
)  # fmt: skip
QUESTION = "Which topics came up?"

WORDS = (*TOPICS, *TOPIC_SENTENCES, QUESTION, *FILLERS)


@dataclass(frozen=True)
class TopicDials:
    """Length and difficulty of a topic stream.

    Attributes:
        chunks: number of chunks, at least 1.
        topics: topics that come up in a chunk, each once.
        fillers: sentences of a chunk without a topic.
        repeats: probability, in [0, 1], that a topic came up in an earlier chunk; a stream that has used all topics
            goes on in repeats.

    Raises:
        ValueError: a number or a probability out of range, or more topics than the text world has.
    """

    chunks: int = 3
    topics: int = 2
    fillers: int = 3
    repeats: float = 0.2

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise ValueError(f"chunks must be at least 1, not {self.chunks}")
        if not 1 <= self.topics <= len(TOPICS):
            raise ValueError(f"topics must be 1 to {len(TOPICS)}, not {self.topics}")
        if self.fillers < 0:
            raise ValueError(f"fillers must not be negative, not {self.fillers}")
        if not 0 <= self.repeats <= 1:
            raise ValueError(f"repeats must lie in [0, 1], not {self.repeats}")


@dataclass(frozen=True)
class TopicChunk:
    """Sentences, and the topics that come up in them, in order."""

    sentences: tuple[str, ...]
    topics: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True)
class TopicStream:
    """Chunks in order; the question is QUESTION, the answer `topics()`."""

    chunks: tuple[TopicChunk, ...]

    def topics(self, chunks: int | None = None) -> tuple[str, ...]:
        """Topics of the first `chunks` chunks (None: of all), in order of first appearance."""
        return tuple(dict.fromkeys(topic for chunk in self.chunks[:chunks] for topic in chunk.topics))

    def states(self) -> Iterator[tuple[str, ...]]:
        """The gold summary after each chunk: its topics so far."""
        for i in range(len(self.chunks)):
            yield self.topics(i + 1)


def make_topics(seed: int | str, split: Split, dials: TopicDials | None = None) -> TopicStream:
    """The topic stream of a seed: the same arguments give the same stream."""
    dials = dials or TopicDials()
    rng = random.Random(f"topics/{split}/{seed}")
    unused = rng.sample(TOPICS, len(TOPICS))
    used: list[str] = []
    chunks = []
    for _ in range(dials.chunks):
        topics: list[str] = []
        while len(topics) < dials.topics:
            earlier = [topic for topic in used if topic not in topics]
            again = earlier and (not unused or rng.random() < dials.repeats)
            topics.append(rng.choice(earlier) if again else unused.pop())
        sentences: list[str] = [rng.choice(TOPIC_SENTENCES).format(topic=topic) for topic in topics]
        for _ in range(dials.fillers):
            sentences.insert(rng.randint(0, len(sentences)), rng.choice(FILLERS))
        used += [topic for topic in topics if topic not in used]
        chunks.append(TopicChunk(tuple(sentences), tuple(topics)))
    return TopicStream(tuple(chunks))
