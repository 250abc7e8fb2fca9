"""Corpora D_0..D_n with their queries: a synthetic language, SQuAD paragraphs, Natural Questions, MS MARCO.

Who may see which queries (trap 2 of continual indexing) is decided here and nowhere else: `train` is what a learner may
see and is empty for documents of D_1..D_n; `withheld` are real queries that only the oracle control reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from common.data.lost_in_the_middle import load_nq_oracle
from common.data.ms_marco import stream as stream_ms_marco
from common.data.natural_questions import stream as stream_natural_questions
from common.data.squad import load as load_squad
from common.experiments.errors import UserError
from projects.dsi_pp.settings import Corpus


@dataclass(frozen=True)
class Document:
    """A document and its queries, disjoint by use."""

    text: str
    train: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """Corpora in order of arrival, D_0 first, and documents outside all of them (their queries are in `train`)."""

    corpora: tuple[tuple[Document, ...], ...]
    outside: tuple[Document, ...]

    def union(self, n: int) -> list[Document]:
        """U_n = D_0 + ... + D_n in order of arrival; a document's position in U_n is its number for good."""
        return [document for corpus in self.corpora[: n + 1] for document in corpus]

    def bounds(self, n: int) -> range:
        """Document numbers of D_n."""
        start = sum(len(corpus) for corpus in self.corpora[:n])
        return range(start, start + len(self.corpora[n]))


def load_benchmark(choice: Corpus, seed: int, data: Path | None) -> Benchmark:
    """The benchmark of one seed: which documents, their order of arrival and the split of their queries.

    Raises:
        UserError: missing files, or fewer documents than the settings ask for.
    """
    return SOURCES[choice.name](choice, seed, data)


def split_corpora(documents: Sequence[Document], choice: Corpus) -> tuple[tuple[Document, ...], ...]:
    """Cut shuffled documents into D_0..D_n; real training queries of D_1..D_n become `withheld`.

    Raises:
        UserError: fewer documents than the sizes ask for.
    """
    sizes = [choice.first] + [choice.increment] * choice.increments
    if sum(sizes) > len(documents):
        raise UserError(
            f"corpus '{choice.name}' has {len(documents)} usable documents, the settings ask for {sum(sizes)}"
        )
    ends = np.cumsum(sizes)
    first, *later = (tuple(documents[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    return (first, *(tuple(_withhold(document) for document in corpus) for corpus in later))


def _withhold(document: Document) -> Document:
    return Document(document.text, (), document.train + document.withheld, document.validation, document.test)


# --- synthetic language -------------------------------------------------------------------------------------------


class Language:
    """Topics of words, rare words that any document may use, and for every word a synonym that only queries use."""

    def __init__(self, choice: Corpus) -> None:
        rng = np.random.default_rng([choice.language_seed, 1])
        words = _words(choice.topics * choice.topic_words + choice.rare_words, rng)
        self.choice = choice
        self.rare = words[: choice.rare_words]
        self.rare_set = set(self.rare)
        self.topics = [
            words[start : start + choice.topic_words]
            for start in range(choice.rare_words, len(words), choice.topic_words)
        ]
        self.synonyms = dict(zip(words, (f"{word}i" for word in words), strict=True))

    def text(self, rng: np.random.Generator) -> str:
        """A document: words of a main topic (2/3) and a second topic (1/3), and its rare words, shuffled."""
        main, second = rng.choice(len(self.topics), size=2, replace=False)
        common = self.choice.document_words - self.choice.document_rare
        words = [*rng.choice(self.topics[main], common - common // 3, replace=False)]
        words += [*rng.choice(self.topics[second], common // 3, replace=False)]
        words += [*rng.choice(self.rare, self.choice.document_rare, replace=False)]
        return " ".join(rng.permutation(words))

    def query(self, text: str, rng: np.random.Generator) -> str:
        """Some rare and some other words of the document, shuffled, some of them swapped for their synonyms."""
        rare = [word for word in text.split() if word in self.rare_set]
        common = [word for word in text.split() if word not in self.rare_set]
        words = [*rng.choice(rare, self.choice.query_rare, replace=False)]
        words += [*rng.choice(common, self.choice.query_words - self.choice.query_rare, replace=False)]
        swap = rng.random(len(words)) < self.choice.synonyms
        return " ".join(
            rng.permutation([self.synonyms[word] if other else word for word, other in zip(words, swap, strict=True)])
        )

    def document(self, rng: np.random.Generator) -> Document:
        """A document with distinct queries for training, the oracle, validation and test."""
        text, choice = self.text(rng), self.choice
        sizes = (choice.train_queries, choice.withheld_queries, choice.held_queries, choice.held_queries)
        queries: dict[str, None] = {}
        while len(queries) < sum(sizes):
            queries[self.query(text, rng)] = None
        rest = iter(queries)
        return Document(text, *(tuple(islice(rest, size)) for size in sizes))


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Distinct pronounceable words that end in a consonant, so that a final vowel marks a synonym."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[
            "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeou")) for _ in range(2))
            + rng.choice(list("lmnrst"))
        ] = None
    return list(found)


def synthetic(choice: Corpus, seed: int, data: Path | None = None) -> Benchmark:
    """Corpora drawn with the seed from a language that all seeds share, as real corpora share theirs."""
    language = Language(choice)
    total = choice.first + choice.increment * choice.increments
    rng = np.random.default_rng([seed, 2])
    documents = [language.document(rng) for _ in range(total)]
    outside_rng = np.random.default_rng([choice.language_seed, 3])
    outside = tuple(language.document(outside_rng) for _ in range(choice.outside))
    return Benchmark(split_corpora(documents, choice), outside)


# --- real text ----------------------------------------------------------------------------------------------------


def squad(choice: Corpus, seed: int, data: Path | None) -> Benchmark:
    """SQuAD paragraphs as documents and their questions as queries; NQ passages with questions are the outside.

    A document keeps `train_queries` questions for training and the rest, halved, for validation and test, so it needs
    `train_queries` + 2 of them. The opening that a model reads must be unique (trap 7).
    """
    rng = np.random.default_rng([seed, 2])
    documents = [
        _split_questions(paragraph.context, [question.question for question in paragraph.questions], choice, rng)
        for paragraph in load_squad(data)
    ]
    usable = list({_opening(document.text, choice): document for document in documents if document.test}.values())
    order = rng.permutation(len(usable))
    rows = load_nq_oracle(data)[: choice.outside]
    outside = tuple(Document(f"{row.title} {row.passage}", (row.question,)) for row in rows)
    return Benchmark(split_corpora([usable[i] for i in order], choice), outside)


def _opening(text: str, choice: Corpus) -> str:
    return " ".join(text.split()[: choice.document_tokens // 2])


def _split_questions(text: str, questions: Sequence[str], choice: Corpus, rng: np.random.Generator) -> Document:
    distinct = list(dict.fromkeys(question.strip() for question in questions))
    order = [distinct[i] for i in rng.permutation(len(distinct))]
    train, held = order[: choice.train_queries], order[choice.train_queries :]
    if len(held) < 2:
        return Document(text)
    return Document(text, tuple(train), (), tuple(held[1::2]), tuple(held[::2]))


def natural_questions(choice: Corpus, seed: int, data: Path | None) -> Benchmark:
    """Wikipedia pages with NQ questions: the train split to learn from and to validate, NQ validation as test."""
    rows = {
        split: (
            (row.url, row.text, row.question)
            for row in stream_natural_questions(data, split, words=choice.document_tokens)
        )
        for split in ("train", "validation")
    }
    return published_splits(rows["train"], rows["validation"], choice, seed)


def ms_marco(choice: Corpus, seed: int, data: Path | None) -> Benchmark:
    """MS MARCO passages that were selected for a query; splits as for NQ."""
    rows = {
        split: (
            (passage.text, passage.text, row.query)
            for row in stream_ms_marco(data, split)
            for passage in row.passages
            if passage.selected
        )
        for split in ("train", "validation")
    }
    return published_splits(rows["train"], rows["validation"], choice, seed)


Rows = Iterable[tuple[str, str, str]]  # name of a document, its text, a query


def published_splits(train: Rows, test: Rows, choice: Corpus, seed: int) -> Benchmark:
    """Documents under their names, with four fifths of the train split to learn from and one fifth for validation."""
    rng = np.random.default_rng([seed, 2])
    texts: dict[str, str] = {}
    queries: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    for rows, is_test in ((train, False), (test, True)):
        for name, text, query in rows:
            texts.setdefault(name, text)
            part = "test" if is_test else "validation" if rng.random() < 0.2 else "train"
            queries[part].setdefault(name, []).append(query)
    documents = [
        _disjoint(text, {part: of.get(name, []) for part, of in queries.items()}) for name, text in texts.items()
    ]
    usable = list({_opening(document.text, choice): document for document in documents}.values())
    return Benchmark(split_corpora([usable[i] for i in rng.permutation(len(usable))], choice), ())


def _disjoint(text: str, queries: dict[str, list[str]]) -> Document:
    """A query that occurs in several splits stays in the later one only: test before validation before training."""
    test = tuple(dict.fromkeys(queries["test"]))
    validation = tuple(query for query in dict.fromkeys(queries["validation"]) if query not in test)
    train = tuple(query for query in dict.fromkeys(queries["train"]) if query not in (*validation, *test))
    return Document(text, train, (), validation, test)


SOURCES = {"synthetic": synthetic, "squad": squad, "natural_questions": natural_questions, "ms_marco": ms_marco}
