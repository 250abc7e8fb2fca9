"""Identifiers are unique and stable; beam search over the trie equals exhaustive scoring."""

import numpy as np
import pytest
import torch

from projects.dsi_pp.docids import Docids, Special, allowed_tokens, issue, rank
from projects.dsi_pp.seq2seq import IGNORED, build_model, seq2seq_logits
from projects.dsi_pp.settings import DocidChoice, Model

SPECIAL = Special(first=10, eos=1, pad=0)


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    return [" ".join(rng.choice(words[10 * (n % 6) : 10 * (n % 6) + 10], 6)) for n in range(count)]


@pytest.mark.parametrize("kind", ["atomic", "naive", "semantic"])
def test_identifiers_differ_and_stay_when_documents_arrive(kind):
    choice = DocidChoice(kind=kind, branching=4, leaf=5)
    docids = issue(choice, texts(90), 60, 0, SPECIAL)
    assert len(set(docids.symbols)) == 90
    assert max(symbol for row in docids.symbols for symbol in row) < docids.count
    again = issue(choice, texts(90), 60, 0, SPECIAL)
    assert docids == again
    if kind == "semantic":  # routed and appended: what arrives later renames nothing
        assert issue(choice, texts(70), 60, 0, SPECIAL).symbols == docids.symbols[:70]


def test_no_string_identifier_is_ambiguous_once_it_has_ended():
    docids = issue(DocidChoice(kind="semantic", branching=3, leaf=2), texts(90), 30, 0, SPECIAL)
    ended = [tuple(docids.tokens(document)) for document in range(90)]
    assert not any(a != b and b[: len(a)] == a for a in ended for b in ended)


def test_semantic_neighbours_share_a_prefix_more_often_than_strangers():
    docids = issue(DocidChoice(kind="semantic", branching=6, leaf=10), texts(60), 60, 0, SPECIAL)
    first = np.array([row[0] for row in docids.symbols])
    topic = np.arange(60) % 6
    same = np.equal.outer(first, first)
    related = np.equal.outer(topic, topic)
    assert same[related].mean() > 2 * same[~related].mean()


def test_naive_integers_do_not_tell_the_order_of_arrival():
    docids = issue(DocidChoice(kind="naive"), texts(90), 60, 0, SPECIAL)
    numbers = [int("".join(map(str, row))) for row in docids.symbols]
    assert sorted(numbers) == list(range(90))
    assert numbers != sorted(numbers)
    assert docids.tokens(numbers.index(17)) == [11, 17, 1]  # one token per digit, then EOS


def test_only_atomic_rows_of_later_documents_are_masked():
    assert issue(DocidChoice(kind="atomic"), texts(9), 6, 0, SPECIAL).unissued(6).tolist() == [16, 17, 18]
    assert issue(DocidChoice(kind="naive"), texts(9), 6, 0, SPECIAL).unissued(6).tolist() == []


def test_labels_are_padded():
    docids = Docids(((1,), (1, 2)), 3, False, SPECIAL)
    assert docids.labels().tolist() == [[11, 1, IGNORED], [11, 12, 1]]


# --- ranking ---


def small_model(tokens: int):
    torch.manual_seed(0)
    return build_model(Model(d_model=16, d_kv=8, d_ff=16, heads=2), tokens).eval()


def exhaustive(model, inputs, docids, issued):
    """log p(docid | input) of every issued identifier, token by token from the full softmax."""
    scores = torch.zeros(len(inputs), issued)
    for document in range(issued):
        labels = torch.tensor([docids.tokens(document)]).expand(len(inputs), -1)
        log_probs = seq2seq_logits(model, inputs, labels).log_softmax(-1)
        scores[:, document] = log_probs.gather(2, labels[..., None]).sum((1, 2))
    return scores


@pytest.mark.parametrize("kind", ["naive", "semantic"])
@torch.no_grad()
def test_wide_beams_equal_exhaustive_scoring(kind):
    docids = issue(DocidChoice(kind=kind, branching=3, leaf=3), texts(30), 20, 0, SPECIAL)
    model, inputs = small_model(25), torch.randint(2, 10, (6, 5))
    scores = exhaustive(model, inputs, docids, issued=24)
    rankings = rank(model, inputs, docids, issued=24, k=24, beams=40)
    for ranking, row in zip(rankings, scores, strict=True):
        assert sorted(ranking) == list(range(24))
        assert row[ranking].tolist() == pytest.approx(row.sort(descending=True).values.tolist(), abs=1e-5)


@torch.no_grad()
def test_ten_beams_return_ten_issued_identifiers_best_first():
    docids = issue(DocidChoice(kind="naive"), texts(30), 20, 0, SPECIAL)
    model, inputs = small_model(25), torch.randint(2, 10, (16, 5))
    scores = exhaustive(model, inputs, docids, issued=20)
    for ranking, row in zip(rank(model, inputs, docids, issued=20, k=10, beams=10), scores, strict=True):
        assert len(set(ranking)) == 10
        assert row[ranking].tolist() == sorted(row[ranking].tolist(), reverse=True)


@torch.no_grad()
def test_atomic_ranking_is_the_top_of_one_softmax_over_issued_rows():
    docids = issue(DocidChoice(kind="atomic"), texts(12), 8, 0, SPECIAL)
    model, inputs = small_model(22), torch.randint(2, 10, (5, 4))
    scores = exhaustive(model, inputs, docids, issued=8)
    assert rank(model, inputs, docids, issued=8, k=3, beams=1) == scores.topk(3).indices.tolist()
    assert rank(model, inputs, docids, issued=2, k=10, beams=1) == scores[:, :2].topk(2).indices.tolist()


@torch.no_grad()
def test_batch_equals_one_by_one_despite_padding():
    docids = issue(DocidChoice(kind="naive"), texts(30), 20, 0, SPECIAL)
    model = small_model(25)
    padded = torch.tensor([[5, 6, 1, 0, 0], [7, 8, 9, 3, 1]])
    together = rank(model, padded, docids, 20, 5, 10)
    assert together == [rank(model, row[None], docids, 20, 5, 10)[0] for row in (padded[0, :3], padded[1])]


def test_the_trie_allows_exactly_what_continues_an_issued_identifier():
    docids = Docids(((1,), (1, 2), (2, 2)), 3, False, SPECIAL)
    allowed = allowed_tokens(docids, issued=2)
    start = [0]
    assert allowed(0, torch.tensor(start)) == [11]
    assert allowed(0, torch.tensor([*start, 11])) == [1, 12]
    assert allowed(0, torch.tensor([*start, 11, 12])) == [1]
    assert allowed(0, torch.tensor([*start, 12])) == [0]  # the third document has not arrived
