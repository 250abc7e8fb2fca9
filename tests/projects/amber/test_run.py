"""Whole cells, cut down, on an untrained MicroLM of two layers: pieces shared, figures complete, mistakes told."""

import json
import math
from dataclasses import replace

import pytest

from common.experiments.context import Context
from common.experiments.errors import UserError
from common.models.microlm.demonstrations import Teaching
from common.models.microlm.model import Shape, build_model
from common.models.microlm.recipe import microlm_tokenizer
from common.models.microlm.tokenizer import save_tokenizer
from common.models.microlm.tuning import Tuning
from common.models.settings import LanguageModelSettings
from projects.amber import answering, data, labels
from projects.amber.baselines import BASELINES
from projects.amber.data import Asked, Corpus, Hop, QuestionSet
from projects.amber.run import run
from projects.amber.settings import (
    GENERATOR,
    METHODS,
    FilterTraining,
    Limits,
    Loop,
    Questions,
    RouterTraining,
    Settings,
    TextWorld,
)

SHORT = Tuning(steps=1, step_tokens=128, replay=0.0, warmup=1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def one_code(monkeypatch):
    """Keys of artifacts that do not change when someone edits the code amid a test; nor need they be computed."""
    monkeypatch.setattr("common.experiments.context.code_fingerprint", lambda module: "one")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = microlm_tokenizer()
    build_model(Shape(width=32, layers=2, inner=32), tokenizer, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return Settings(
        questions=Questions(sets=["hotpotqa", "asqa"], count=3),
        world=TextWorld(train_worlds=1, look_alikes=0.5, homonyms=0.4),
        limits=Limits(answer=4, memory=4, critique=4, query=4, sentences=4, word=1),
        lm=LanguageModelSettings(str(folder)),
        taught=Teaching(40, dict(GENERATOR)),
        tuning=SHORT,
        filter=FilterTraining(questions=30, tuning=SHORT),
        router=RouterTraining(questions=30, tuning=SHORT),
    )


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def go(settings, folder, artifacts, seed=0):
    return run(settings, Context(seed=seed, folder=folder, artifacts=artifacts))


SHARED = {"mean", "acc", "f1", "str_em", "str_hit", "gain", "gain_multi", "calls", "tokens", "seconds"}
RECALLS = {"recall_first", "recall_blind", "recall_right"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_reports_its_metrics(method, settings, tmp_path, artifacts):
    metrics = go(replace(settings, method=method), tmp_path, artifacts).metrics
    steps = {"rounds", "repeated", "chunk_accuracy"} if method == "amber" else set()
    assert (SHARED | RECALLS | steps) - {"gain_multi"} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    rows = [json.loads(line) for line in (tmp_path / "items" / "hotpotqa.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert ("rounds" in rows[0]) == (method == "amber")


def test_calls_of_a_row_are_counted_by_role_and_the_reference_is_not_among_them(settings, tmp_path, artifacts):
    result = go(replace(settings, method="no_retrieval"), tmp_path, artifacts)
    assert set(result.tokens) == {"closed_book"}
    assert result.metrics["calls"] == 1
    assert go(replace(settings, method="vanilla_rag"), tmp_path, artifacts).metrics["gain"] == 0


def test_copies_of_a_pinned_base_are_trained_from_its_revision(settings, tmp_path, monkeypatch):
    pinned = replace(settings, lm=LanguageModelSettings("org/base", revision="abc"))
    assert pinned.lm.of("org/base").revision == "abc"
    assert pinned.lm.of("/a/copy of it").revision == ""
    seen = []
    for name in ("build_lm", "training_sets", "judged_passages", "filter_demonstrations"):
        monkeypatch.setattr(labels, name, lambda *given: None)
    monkeypatch.setattr(labels, "specialise", lambda *given: seen.append(given[-1]))
    monkeypatch.setattr(labels, "artifact_key", lambda *given: {"revision": given[-1]})
    context = Context(seed=0, folder=tmp_path)
    first = labels.content_filter(pinned, context, "org/base")
    other = replace(pinned, lm=replace(pinned.lm, revision="def"))
    assert labels.content_filter(other, context, "org/base") != first
    assert seen == ["abc", "def"]


def test_the_filter_by_itself(settings, tmp_path, artifacts):
    metrics = go(replace(settings, method="filter"), tmp_path, artifacts).metrics
    assert {"chunk_accuracy", "eliminated", "chunk_recall", "answer_gold", "answer_unfiltered"} <= set(metrics)


def test_rows_share_one_generator_and_answers_are_computed_once(settings, tmp_path, artifacts, monkeypatch):
    first = go(settings, tmp_path / "a", artifacts).metrics
    names = sorted(path.name.rsplit("-", 1)[0] for path in artifacts.iterdir() if path.is_dir())
    assert names.count("generator") == names.count("filter") == 1

    def never(*arguments):
        raise AssertionError("answered again")

    monkeypatch.setattr(answering, "answered", never)
    assert go(settings, tmp_path / "b", artifacts).metrics == first
    one = replace(settings, questions=replace(settings.questions, sets=["hotpotqa"]))
    assert go(one, tmp_path / "c", artifacts).metrics["calls"] > 0  # its set was answered for the column of all


def test_answers_are_kept_apart_by_all_that_a_method_reads_and_by_no_more(settings, tmp_path):
    def key(**changes):
        return answering.key(replace(settings, **changes), Context(seed=0, folder=tmp_path), "asqa")

    loops = [Loop(), Loop(review=False), Loop(collector="fixed"), Loop(chunk_filter=False), Loop(sentence_filter=False)]
    rows = [key(loop=loop) for loop in loops]
    rows += [key(method="vanilla_rag"), key(filter=FilterTraining(labels=["strinc"])), key(limits=Limits(answer=5))]
    assert all(a != b for i, a in enumerate(rows) for b in rows[:i])
    assert key(questions=replace(settings.questions, sets=["asqa"])) == key()
    strinc = {"method": "react", "filter": FilterTraining(labels=["strinc"])}
    assert key(method="react") == key(**strinc) == key(**strinc, router=RouterTraining(questions=9))


def test_answers_about_files_are_kept_apart_by_what_the_files_hold(tmp_path):
    (tmp_path / "own" / "asqa").mkdir(parents=True)
    passages, questions = tmp_path / "own" / "passages.jsonl", tmp_path / "own" / "asqa" / "questions.jsonl"
    choice = {"questions": Questions("jsonl", folder="own"), "taught": Teaching(0, {})}
    parts = {"filter": FilterTraining(train=False), "router": RouterTraining(train=False)}
    settings, seen = Settings(**choice, **parts), set()
    for held in (("a", "b"), ("a", "c"), ("d", "b")):
        passages.write_text(held[0])
        questions.write_text(held[1])
        seen.add(json.dumps(answering.key(settings, Context(seed=0, folder=tmp_path, data=tmp_path), "asqa")))
    assert len(seen) == 3


def test_the_same_seed_twice_without_shared_pieces(settings, tmp_path):
    settings = replace(settings, questions=replace(settings.questions, sets=["hotpotqa"]))
    clocks = {"seconds"}
    runs = [go(settings, tmp_path / name, None).metrics for name in ("a", "b")]
    assert {k: v for k, v in runs[0].items() if k not in clocks} == {
        k: v for k, v in runs[1].items() if k not in clocks
    }


@pytest.mark.parametrize("method", ["amber", "vanilla_rag", "oracle"])
def test_real_questions_take_the_same_path_with_an_untaught_model(method, settings, tmp_path, monkeypatch):
    """As at small scale: real text, hops that no world knows by notes, an index that is kept, nothing trained."""
    sentences = {f"p{i}": (f"Article {i}.", f"Señor Nº {i} lived in Zürich — until 19{i}.") for i in range(10, 20)}
    hops = (Hop((("p11", sentences["p11"][1]),), "Señor 11", ""), Hop((("p12", sentences["p12"][1]),), "Nº 12", ""))
    asked = tuple(Asked(str(i), f"Where did Nº {i} live?", (("Zürich", "Zurich"),), hops, True) for i in range(3))
    monkeypatch.setitem(data.MIRROR, "toy", lambda folder: QuestionSet("toy", asked, Corpus(sentences)))
    untaught = {"filter": FilterTraining(train=False), "router": RouterTraining(train=False)}
    settings = replace(
        settings, method=method, questions=Questions(source="mirror", sets=["toy"]), taught=Teaching(0, {}), **untaught
    )
    metrics = go(settings, tmp_path, None).metrics
    assert {"acc", "f1", "calls", "recall_first", "recall_blind", "recall_right"} <= set(metrics)
    assert ("chunk_accuracy" in metrics) == (method == "amber")
    assert "draft_right" not in metrics  # no world, no truth about notes
    assert list((tmp_path / "artifacts").glob("index-*/index"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "ambr"}, "did you mean 'amber'"),
        ({"loop": Loop(collector="fixd")}, "did you mean 'fixed'"),
        ({"questions": Questions(source="mirror", sets=["hotpotqa"])}, "set taught.count to 0"),
        ({"filter": FilterTraining(labels=["evidnce"])}, "did you mean 'evidence'"),
        ({"retriever": "bm52"}, "did you mean 'bm25'"),
    ],
)
def test_mistakes_are_one_line(change, says, settings, tmp_path, artifacts):
    with pytest.raises(UserError, match=says):
        go(replace(settings, **change), tmp_path, artifacts)


def test_choices_are_those_there_are():
    assert set(METHODS) == {"amber", *BASELINES, "oracle", "shuffled"}
    with pytest.raises(UserError, match="name at least one set"):
        Questions(sets=[])
