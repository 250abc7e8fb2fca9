"""BM25 against the formula term by term, against bm25s's own index, and its words."""

import math
import random
import unicodedata
from collections import Counter

import bm25s
import numpy as np
import pytest

from common.experiments.errors import UserError
from common.retrievers.analysis import ENGLISH, Analyser, words
from common.retrievers.bm25 import BM25, top_rows

VOCABULARY = [f"w{i}" for i in range(40)]


def zipf_texts(count, seed):
    rng = random.Random(seed)
    weights = [1 / (i + 1) for i in range(40)]
    return [" ".join(rng.choices(VOCABULARY, weights, k=rng.randint(0, 25))) for _ in range(count)]


def naive(query, passages, k1, b):
    """The formula of the module, in Python's floats."""
    split = [passage.split() for passage in passages]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for terms in split:
        counts, score = Counter(terms), 0.0
        for term in query.split():
            n = sum(term in other for other in split)
            if counts[term]:
                idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
                score += idf * counts[term] / (counts[term] + k1 * (1 - b + b * len(terms) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 0.0), (1.5, 1.0)])
def test_scores_are_the_formulas(k1, b):
    passages = zipf_texts(80, seed=1)
    retriever = BM25(k1, b)
    retriever.build([str(i) for i in range(80)], passages)
    for query in ["w0 w3 w39", "w7 w7 w1", "w20", "w0 unheard"]:
        expected = naive(query, passages, k1, b)
        [row] = retriever.search([query], 80)
        assert {name for name, _ in row} == {str(i) for i, score in enumerate(expected) if score > 0}
        for name, score in row:
            assert score == pytest.approx(expected[int(name)], rel=1e-5)


def test_scores_are_those_of_bm25s_bit_for_bit_after_any_changes():
    passages = zipf_texts(120, seed=2)
    retriever = BM25()
    retriever.build([str(i) for i in range(60)], passages[:60])
    retriever.search(["w1"], 1)
    retriever.delete([str(i) for i in range(0, 60, 3)])
    retriever.add([str(i) for i in range(60, 120)], passages[60:])
    left = [int(name) for name in retriever.ids]
    direct = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    direct.index([passages[i].split() for i in left], show_progress=False)
    for query in ["w0 w3 w39", "w7 w7 w1", "w20"]:
        expected = direct.get_scores(query.split())
        [row] = retriever.search([query], len(left))
        assert {name: np.float32(score) for name, score in row} == {
            str(left[i]): score for i, score in enumerate(expected) if score
        }


def test_a_rare_word_outweighs_a_common_one_and_a_repeated_query_word_counts_twice():
    retriever = BM25()
    retriever.build(["rare", "common", "x", "y"], ["comet day", "sun day", "sun night", "sun noon"])
    assert retriever.search(["comet sun"], 1).rankings() == [["rare"]]
    once, twice = retriever.search(["comet", "comet comet"], 1).scores[:, 0]
    assert twice == 2 * once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada's 2nd river_bank, e.g.", ["ada", "s", "2nd", "river_bank", "e", "g"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("Ｏｓｌｏ oslo", ["oslo", "oslo"]),
        ("caf" + unicodedata.normalize("NFD", "é") + " café", ["café", "café"]),
        ("今日は雪 (2024年)", ["今", "日", "は", "雪", "2024", "年"]),
        ("Привет МИР", ["привет", "мир"]),
        ("a\ud800b", ["a", "b"]),
        ("…!? \n", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_english_stems_and_drops_stop_words():
    retriever = BM25(analyser=ENGLISH)
    retriever.build(["a", "b"], ["The rivers were running", "He is in the house"])
    assert retriever.search(["a river runs", "was in the"], 2).rankings() == [["a"], []]
    assert [ENGLISH.term(word) for word in ("running", "cities", "the", "oslo")] == ["run", "citi", "", "oslo"]


def test_settings_survive_saving(tmp_path):
    retriever = BM25(0.9, 0.4, Analyser(frozenset({"der"}), "german"))
    retriever.build(["a", "b"], ["der Läufer", "die Häuser"])
    retriever.save(tmp_path / "index")
    opened = BM25.load(tmp_path / "index")
    assert (opened.k1, opened.b, opened.analyser) == (0.9, 0.4, retriever.analyser)
    assert opened.search(["Haus der"], 2).rankings() == retriever.search(["Haus der"], 2).rankings() == [["b"]]
    assert isinstance(opened._index.scores["data"], np.memmap)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="unknown stemmer 'englsh'; did you mean 'english'"):
        Analyser(stemmer="englsh")
    with pytest.raises(ValueError, match=r"b in \[0, 1\]"):
        BM25(b=1.5)


def test_top_rows_breaks_ties_by_row_at_the_cut():
    scores = np.array([0, 2, 1, 2, 0, 1, 1, 0], np.float32)
    full = [1, 3, 2, 5, 6]
    for k in range(1, 10):
        assert top_rows(scores, k).tolist() == full[:k]
