"""Judges: any function, a cross-encoder, a language model."""

import numpy as np
import pytest
import torch

from common.experiments.errors import UserError
from common.models.microlm.skill_table import WEIGHTS
from common.models.transformers_lm import TransformersLM
from common.retrievers.bm25 import BM25
from common.retrievers.rerank import RerankedRetriever, cross_encoder, query_likelihood

PASSAGES = ["ada", "ada met bo", "bo and ada met in oslo"]


def longest(query, passages):
    return [len(passage) for passage in passages]


def test_the_judge_sees_the_query_with_the_best_of_the_first_and_decides():
    seen = []

    def judge(query, passages):
        seen.append((query, list(passages)))
        return longest(query, passages)

    retriever = RerankedRetriever(BM25(), judge, depth=2)
    retriever.build(["a", "b", "c"], PASSAGES)
    assert BM25.search(retriever.retriever, ["ada"], 3).rankings() == [["a", "b", "c"]]
    hits = retriever.search(["ada", "unheard"], 1)
    assert hits.rankings() == [["b"], []] and hits.scores[0, 0] == len("ada met bo")
    assert seen == [("ada", PASSAGES[:2])]
    assert retriever.search(["ada"], 3).rankings() == [["c", "b", "a"]]


def test_what_the_judge_holds_equal_stands_in_the_order_of_adding():
    retriever = RerankedRetriever(BM25(), lambda query, passages: [0.5] * len(passages))
    retriever.build(["c", "b", "a"], PASSAGES[::-1])
    assert retriever.retriever.search(["ada"], 3).rankings() == [["a", "b", "c"]]
    assert retriever.search(["ada"], 2).rankings() == [["c", "b"]]


@pytest.mark.parametrize("scores", [[1.0, float("nan"), 0.0], [1.0], [[1.0], [2.0], [3.0]]])
def test_a_judge_must_give_a_number_for_each(scores):
    retriever = RerankedRetriever(BM25(), lambda query, passages: scores)
    retriever.build(["a", "b", "c"], PASSAGES)
    with pytest.raises(ValueError, match="the judge must give 3 numbers"):
        retriever.search(["ada"], 1)


def test_it_starts_empty():
    full = BM25()
    full.build(["a"], ["ada"])
    with pytest.raises(ValueError, match="must be empty"):
        RerankedRetriever(full, longest)


@pytest.fixture(scope="module")
def tiny_cross_encoder(tmp_path_factory):
    """A BERT of random weights with one output, in the format of any cross-encoder."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("cross-encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "met", "bo", "and", "in", "oslo"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.5, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


def test_a_cross_encoder_scores_pairs(tiny_cross_encoder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judge = cross_encoder(str(tiny_cross_encoder), device="cpu")
    found = np.asarray(judge("ada met", PASSAGES))
    tokenizer = AutoTokenizer.from_pretrained(tiny_cross_encoder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_cross_encoder)
    with torch.no_grad():
        inputs = tokenizer(["ada met"] * 3, PASSAGES, padding=True, return_tensors="pt")
        expected = model(**inputs).logits[:, 0].sigmoid().numpy()
    assert found == pytest.approx(expected, abs=1e-5) and len(set(found.round(4))) == 3
    retriever = RerankedRetriever(BM25(), judge)
    retriever.build(["a", "b", "c"], PASSAGES)
    assert retriever.search(["ada met"], 3).rankings() == [[list("abc")[i] for i in np.argsort(-found)]]


def test_a_cross_encoder_that_is_not_here_or_pickled_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="hf download cross-encoder/none"):
        cross_encoder("cross-encoder/none")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="no safetensors"):
        cross_encoder(str(tmp_path))


def test_a_language_model_ranks_by_the_likelihood_of_the_query():
    lm = TransformersLM.load(str(WEIGHTS))
    judge = query_likelihood(lm, "{passage}")
    passages = ["The employer of Balman is Dertex.", "The city is large."]
    found = judge("Balman", passages)
    scores = lm.score(passages, [" Balman"] * 2)
    assert found == [score.total / len(score.log_probs) for score in scores]
    with pytest.raises(ValueError, match="the prompt must hold"):
        query_likelihood(lm, "no place")
