"""Who sees which queries, and what the synthetic language promises."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.experiments.compose import compose_table
from common.experiments.errors import UserError
from projects.dsi_pp.data import Document, Language, load_benchmark, published_splits, split_corpora
from projects.dsi_pp.settings import Corpus

SMALL = Corpus(first=30, increment=10, increments=2, outside=20)


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark(SMALL, 3, None)


def every_document(benchmark):
    return [document for corpus in benchmark.corpora for document in corpus]


def test_sizes_and_numbers(benchmark):
    assert [len(corpus) for corpus in benchmark.corpora] == [30, 10, 10]
    assert benchmark.bounds(1) == range(30, 40)
    assert benchmark.union(1)[30] is benchmark.corpora[1][0]


def test_later_corpora_have_no_training_query(benchmark):
    assert all(document.train == () for corpus in benchmark.corpora[1:] for document in corpus)
    assert all(len(document.train) == SMALL.train_queries for document in benchmark.corpora[0])
    assert all(len(document.withheld) == 10 for document in benchmark.corpora[1])


def test_queries_are_disjoint_by_use(benchmark):
    for document in every_document(benchmark):
        parts = (*document.train, *document.withheld, *document.validation, *document.test)
        assert len(set(parts)) == len(parts) == 14


def test_queries_come_from_the_document_with_synonyms_that_no_document_uses():
    language = Language(SMALL)
    rng = np.random.default_rng(0)
    known = {synonym: word for word, synonym in language.synonyms.items()}
    assert not set(known) & set(language.synonyms)
    swapped = total = 0
    for _ in range(300):
        text = language.text(rng)
        query = language.query(text, rng).split()
        originals = [known.get(word, word) for word in query]
        assert set(originals) <= set(text.split())
        assert len(set(originals)) == len(query) == SMALL.query_words
        assert sum(word in language.rare_set for word in originals) == SMALL.query_rare
        swapped += sum(word in known for word in query)
        total += len(query)
    assert swapped / total == pytest.approx(SMALL.synonyms, abs=4 * np.sqrt(0.3 * 0.7 / total))


def test_seeds_share_the_language_and_the_outside_but_not_the_documents(benchmark):
    other = load_benchmark(SMALL, 4, None)
    assert other.outside == benchmark.outside
    assert not {document.text for document in every_document(other)} & {d.text for d in every_document(benchmark)}
    assert load_benchmark(SMALL, 3, None) == benchmark


def test_too_few_documents_and_unknown_corpora_are_said_in_one_line():
    with pytest.raises(UserError, match="2 usable documents"):
        split_corpora([Document("a"), Document("b")], SMALL)
    with pytest.raises(UserError, match="did you mean 'squad'"):
        load_benchmark(replace(SMALL, name="sqad"), 0, None)


@pytest.mark.parametrize("name", ["squad", "natural_questions", "ms_marco"])
def test_missing_real_data_is_said_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as error:
        load_benchmark(replace(SMALL, name=name), 0, Path(tmp_path))
    assert "\n" not in str(error.value)


def test_published_splits_go_to_their_uses():
    train = [(f"page {n}", f"text of page {n}", f"query {n} {i}") for n in range(40) for i in range(5)]
    test = [("page 3", "text of page 3", "query 3 0"), ("page 50", "text of page 50", "new")]
    choice = replace(SMALL, increment=5)
    benchmark = published_splits(train, test, choice, seed=0)
    documents = {document.text: document for document in every_document(benchmark)}
    assert len(documents) == 40
    for document in documents.values():
        parts = (*document.train, *document.withheld, *document.validation, *document.test)
        assert len(set(parts)) == len(parts)
    assert [d.train for corpus in benchmark.corpora[1:] for d in corpus] == [()] * 10
    validation = sum(len(document.validation) for document in documents.values())
    assert 0.1 < validation / (5 * 40) < 0.3
    if "text of page 3" in documents:
        assert documents["text of page 3"].test == ("query 3 0",)


@pytest.mark.skipif(not os.environ.get("REPRO_DATA"), reason="REPRO_DATA names no data mirror")
def test_real_paragraphs_keep_every_question_in_one_place():
    choice = compose_table("dsi_pp/continual", "small").settings.corpus
    choice = Corpus(**{name: choice[name] for name in choice})
    benchmark = load_benchmark(choice, 0, Path(os.environ["REPRO_DATA"]))
    assert [len(corpus) for corpus in benchmark.corpora] == [112, 20, 20, 20, 20, 20]
    documents = every_document(benchmark)
    for document in documents:
        parts = [document.train, document.withheld, document.validation, document.test]
        assert document.validation and document.test
        assert len(set().union(*parts)) == sum(map(len, parts))
    assert all(len(document.train) == 2 for document in benchmark.corpora[0])
    assert not any(document.train for corpus in benchmark.corpora[1:] for document in corpus)
    openings = {" ".join(document.text.split()[:16]) for document in documents}
    assert len(openings) == len(documents)
    asked = {query for document in documents for query in (*document.validation, *document.test)}
    assert not asked & {query for document in benchmark.outside for query in document.train}
