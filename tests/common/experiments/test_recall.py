"""`repro recall`: its figures on a corpus of a few sentences, its page, its mistakes."""

import json
from itertools import permutations

import pytest
from click.testing import CliRunner

from common.data import gold_passages
from common.data.gold_passages import GoldCorpus, GoldQuestion
from common.data.rows import Passage
from common.evaluators.ranking import recall_at_k
from common.experiments import recall
from common.experiments.cli import cli
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT
from common.models import encoders
from common.models.encoders import HashedWords

TEXTS = ["Ada lives in Oslo", "Bo is at sea", "Cy reads", "Oslo lies in Norway", *["nothing"] * 26]
PASSAGES = {f"p{i}": Passage("", text) for i, text in enumerate(TEXTS)}


def question(number, text, *gold):
    return GoldQuestion(str(number), text, (), gold, tuple(PASSAGES), "")


CORPUS = GoldCorpus("tiny", PASSAGES, (question(1, "Where lies Oslo?", "p0", "p3"), question(2, "Who reads?", "p2")))


def test_recall_of_several_gold_passages():
    assert recall_at_k([["a", "b", "c"], ["d"]], [{"b", "c", "x"}, ["d"]], 2) == [1 / 3, 1]
    assert recall_at_k([["a", "b"], []], [["b"], ["b"]], 1) == [0, 0]
    for rankings, gold, k, message in [
        ([[]], [["a"]], 0, "k = 0"),
        ([[]], [[]], 1, "no gold"),
        ([[]], [], 1, "1 rankings for 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            recall_at_k(rankings, gold, k)


def test_chance_is_the_mean_over_all_orders():
    small = GoldCorpus("small", dict(list(PASSAGES.items())[:5]), CORPUS.questions)
    orders = [list(order) for order in permutations(small.ids)]
    row = recall.chance("small", [small])
    for k in (1, 2, 5):
        shares = [recall_at_k([order] * 2, [q.gold for q in small.questions], k) for order in orders]
        assert row.recall[k][0] == pytest.approx(sum(map(sum, shares)) / 2 / len(orders))
        complete = [share == 1 for pair in shares for share in pair]
        assert row.complete[k] == pytest.approx(sum(complete) / len(complete))


def test_the_command_writes_a_page_with_its_figures(tmp_path, monkeypatch):
    monkeypatch.setitem(gold_passages.SETS, "musique", lambda data: [CORPUS])
    monkeypatch.setattr(encoders, "build", lambda name: HashedWords(64))
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    page = tmp_path / "out" / "page.md"
    done = CliRunner().invoke(cli, ["recall", "musique", "--write", str(page)], catch_exceptions=False)
    assert done.exit_code == 0
    figures = json.loads(page.with_suffix(".json").read_text())
    rows = {row["retriever"]: row for row in figures["rows"]}
    assert rows["BM25"]["recall"]["2"][0] == 1 and rows["BM25"]["recall"]["1"][0] == 0.75
    assert rows["random order"]["recall"]["5"][0] == pytest.approx(5 / 30)
    assert list(rows) == ["random order", *recall.contenders(HashedWords())]
    assert [d["other"] for d in figures["differences"]] == list(recall.PARTS)
    text = page.read_text()
    assert "2 questions, 30 passages" in text and "| BM25 | 75.0 [" in text and "CC BY 4.0" in text


def test_mistakes(tmp_path):
    for arguments, message in [
        (["musik"], "did you mean 'musique'"),
        (["--write", str(tmp_path / "page.txt")], "--write takes a Markdown file"),
    ]:
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(cli, ["recall", *arguments], catch_exceptions=False)


def test_the_committed_report_has_every_set_and_retriever():
    page = ROOT / "reports" / "retrievers.md"
    figures = json.loads(page.with_suffix(".json").read_text())
    found = [(row["set"], row["retriever"]) for row in figures["rows"]]
    titles = ["random order", *recall.contenders(HashedWords())]
    assert found == [(name, title) for name in gold_passages.SETS for title in titles]
    text = page.read_text()
    for row in figures["rows"]:
        assert f"| {row['retriever']} | {recall._share(*row['recall']['1'])} |" in text
