"""Label streams (test-time learning): samples whose label hangs on a hidden keyword, the map drawn anew each time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from common.data.text_world.names import Split
from common.data.text_world.relations import CLOSED

SAMPLE = "{words} -> label {label}"
QUESTION = "Which label has {words}?"
VOCABULARY = tuple(dict.fromkeys(word for words in CLOSED.values() for word in words))

WORDS = (SAMPLE, QUESTION, *VOCABULARY)


@dataclass(frozen=True)
class LabelDials:
    """Length and difficulty of a label stream.

    Attributes:
        chunks: number of chunks, at least 1.
        samples: samples of a chunk.
        labels: number of labels, at least 2; they are called 0, 1, ...
        keywords: keywords of each label.
        words: words of a sample, at least 2: one keyword, the rest mean nothing.
        neutral: number of words that mean nothing, from which those of samples and questions are drawn.
        noise: probability, in [0, 1), that a sample bears a wrong label; the right one keeps the majority of each
            keyword, so that high noise on few samples is less than it says.
        questions: number of questions.

    Raises:
        ValueError: a number or a probability out of range, more words than the vocabulary has, or fewer samples than
            keywords.
    """

    chunks: int = 3
    samples: int = 6
    labels: int = 3
    keywords: int = 1
    words: int = 3
    neutral: int = 6
    noise: float = 0.0
    questions: int = 6

    def __post_init__(self) -> None:
        for name, least in (("chunks", 1), ("samples", 1), ("labels", 2), ("keywords", 1), ("words", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.neutral < self.words - 1:
            raise ValueError(f"neutral must be at least words - 1 = {self.words - 1}, not {self.neutral}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must lie in [0, 1), not {self.noise}")
        if self.questions < 0:
            raise ValueError(f"questions must not be negative, not {self.questions}")
        needed = self.labels * self.keywords
        if needed + self.neutral > len(VOCABULARY):
            raise ValueError(
                f"labels * keywords + neutral must not exceed the {len(VOCABULARY)} words of the vocabulary, "
                f"not {needed + self.neutral}"
            )
        if self.chunks * self.samples < needed:
            raise ValueError(f"samples of all chunks must be at least {needed}, one for each keyword")


@dataclass(frozen=True)
class Sample:
    """Words, one of them a keyword, and the label that they are shown with."""

    words: tuple[str, ...]
    label: str

    @property
    def text(self) -> str:
        return SAMPLE.format(words=" ".join(self.words), label=self.label)


@dataclass(frozen=True)
class LabelQuestion:
    """A combination of words that no sample shows.

    Attributes:
        answer: label of its keyword.
        chunks: numbers of the chunks that show the keyword with this label.
    """

    words: tuple[str, ...]
    answer: str
    chunks: tuple[int, ...]

    @property
    def text(self) -> str:
        return QUESTION.format(words=" ".join(self.words))


@dataclass(frozen=True)
class LabelStream:
    """Chunks of samples.

    Attributes:
        labels: the hidden map, keyword -> label: what a perfect memory holds after the last chunk.
    """

    labels: dict[str, str]
    chunks: tuple[tuple[Sample, ...], ...]
    questions: tuple[LabelQuestion, ...]

    def text(self, chunk: int) -> str:
        """A line for each sample of a chunk."""
        return "\n".join(sample.text for sample in self.chunks[chunk])

    def state(self, chunks: int | None = None) -> dict[str, str]:
        """Keywords of the first `chunks` chunks (None: of all), in the order shown, with their true labels."""
        words = (word for chunk in self.chunks[:chunks] for sample in chunk for word in sample.words)
        return {word: self.labels[word] for word in words if word in self.labels}


def make_labels(seed: int | str, split: Split, dials: LabelDials | None = None) -> LabelStream:
    """The label stream of a seed: the same arguments give the same stream.

    Each keyword is shown at least once. The neutral words of a question were each shown under two true labels, so that
    without noise the samples alone tell which of its words is the keyword.

    Raises:
        ValueError: 100 draws gave no such questions: ask for more samples, fewer questions or another `neutral`.
    """
    dials = dials or LabelDials()
    rng = random.Random(f"labels/{split}/{seed}")
    count = dials.chunks * dials.samples
    for _ in range(100):
        drawn = rng.sample(VOCABULARY, dials.labels * dials.keywords + dials.neutral)
        keywords, neutral = drawn[: -dials.neutral], drawn[-dials.neutral :]
        labels = {word: str(i % dials.labels) for i, word in enumerate(keywords)}
        shown = keywords + [rng.choice(keywords) for _ in range(count - len(keywords))]
        rng.shuffle(shown)
        combined = [_combine(rng, word, neutral, dials.words) for word in shown]
        questions = _unseen(rng, labels, shown, combined, neutral, dials)
        if len(questions) == dials.questions:
            break
    else:
        raise ValueError(
            f"{count} samples over {dials.neutral} neutral words do not leave {dials.questions} questions: "
            "ask for more samples, fewer questions or another neutral"
        )
    given = _with_noise(rng, labels, shown, dials)
    samples = [Sample(words, label) for words, label in zip(combined, given, strict=True)]
    chunks = tuple(tuple(samples[i : i + dials.samples]) for i in range(0, count, dials.samples))
    asked = []
    for keyword, words in questions:
        places = [
            i for i, chunk in enumerate(chunks) if any(keyword in s.words and s.label == labels[keyword] for s in chunk)
        ]
        asked.append(LabelQuestion(words, labels[keyword], tuple(places)))
    return LabelStream(labels, chunks, tuple(asked))


def _combine(rng: random.Random, keyword: str, neutral: Sequence[str], count: int) -> tuple[str, ...]:
    words = [keyword, *rng.sample(neutral, count - 1)]
    rng.shuffle(words)
    return tuple(words)


def _unseen(
    rng: random.Random,
    labels: dict[str, str],
    shown: Sequence[str],
    combined: Sequence[tuple[str, ...]],
    neutral: Sequence[str],
    dials: LabelDials,
) -> list[tuple[str, tuple[str, ...]]]:
    """Keywords and new combinations around them, as many as wanted or as were found."""
    under: dict[str, set[str]] = {word: set() for word in neutral}
    for keyword, words in zip(shown, combined, strict=True):
        for word in words:
            if word in under:
                under[word].add(labels[keyword])
    clear = [word for word in neutral if len(under[word]) > 1]
    if len(clear) < dials.words - 1:
        return []
    seen = {frozenset(words) for words in combined}
    found: list[tuple[str, tuple[str, ...]]] = []
    for _ in range(20 * dials.questions):
        if len(found) == dials.questions:
            break
        keyword = rng.choice(list(labels))
        words = _combine(rng, keyword, clear, dials.words)
        if frozenset(words) not in seen:
            seen.add(frozenset(words))
            found.append((keyword, words))
    return found


def _with_noise(rng: random.Random, labels: dict[str, str], shown: Sequence[str], dials: LabelDials) -> list[str]:
    """The label that each sample bears."""
    given = []
    wrong = dict.fromkeys(labels, 0)
    for keyword in shown:
        label = labels[keyword]
        if rng.random() < dials.noise and 2 * (wrong[keyword] + 1) < shown.count(keyword):
            wrong[keyword] += 1
            label = rng.choice([str(i) for i in range(dials.labels) if str(i) != label])
        given.append(label)
    return given
