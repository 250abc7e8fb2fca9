"""Whole runs, cut down: reproducible to the bit, no query leaks, metrics complete, planted faults show."""

import json
import math
from dataclasses import replace

import pytest
import torch

from common.experiments.context import PRUNE, Context, Pruned
from common.experiments.errors import UserError
from common.experiments.randomness import seed_phase
from common.experiments.records import Record
from common.training import resumable
from common.training.preemption import Preempted
from projects.dsi_pp import run as module
from projects.dsi_pp import settings as choices
from projects.dsi_pp.data import SOURCES, Benchmark, load_benchmark
from projects.dsi_pp.docids import KINDS
from projects.dsi_pp.method import REHEARSAL
from projects.dsi_pp.run import INDEXED, OPTIMIZERS, Task, base_model, first_batches, pseudo_queries, run, train
from projects.dsi_pp.settings import Corpus, DocidChoice, Generator, Model, Optimizer, Settings

CORPUS = Corpus(first=24, increment=8, increments=2, outside=60)
MODEL = Model(d_model=32, d_kv=8, d_ff=32, heads=2, pretrain_steps=20, pretrain_batch=16)
GENERATOR = Generator(steps=5, batch=8, queries=4)
SMALL = Settings(corpus=CORPUS, model=MODEL, generator=GENERATOR, first_steps=20, increment_steps=10, check_every=5)


@pytest.fixture(autouse=True)
def deterministic(one_thread):
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def go(settings, folder, artifacts=None, seed=0):
    return dict(run(settings, Context(seed=seed, folder=folder, artifacts=artifacts)).metrics)


@pytest.mark.parametrize("kind", ["atomic", "naive", "semantic"])
@pytest.mark.parametrize(
    "row",
    [
        {"rehearsal": "none", "index_documents": "new"},
        {"rehearsal": "gen_all", "optimizer": Optimizer(sam_rho=0.15)},
        {"rehearsal": "stored_and_gen", "retrain": True},
    ],
    ids=["cl_new", "genmem_all_sam", "retrain"],
)
def test_every_kind_of_row_runs_and_reports_its_metrics(kind, row, tmp_path, artifacts):
    metrics = go(replace(SMALL, docids=DocidChoice(kind=kind, branching=4, leaf=4), **row), tmp_path, artifacts)
    shown = {f"{name}_{metric}" for name in ("a", "f", "la") for metric in ("index", "hits1", "hits10")}
    assert shown | {"val_a_hits10", "updates", "gradient_passes", "share_stable"} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert ("generator_updates" in metrics) == (row["rehearsal"] != "none")
    assert metrics["updates"] == (round(20 * 32 / 24) + round(20 * 40 / 24) if "retrain" in row else 20)
    assert metrics["gradient_passes"] == metrics["updates"] * (2 if "optimizer" in row else 1)
    parts = metrics["share_forgotten"] + metrics["share_stable"] + metrics["share_never_learned"]
    assert parts == pytest.approx(1)
    items = [json.loads(line) for line in (tmp_path / "items" / "matrix.jsonl").read_text().splitlines()]
    assert len([item for item in items if item["metric"] == "hits10"]) == 6  # the triangle of D_0..D_2


def test_memorising_alone_has_no_forgetting_between_corpora(tmp_path, artifacts):
    settings = replace(SMALL, corpus=replace(CORPUS, increments=0), rehearsal="none")
    metrics = go(settings, tmp_path, artifacts)
    assert not {"f_hits10", "la_hits10", "f_index"} & set(metrics)
    assert metrics["a_hits10"] == metrics["first_hits10"]


def test_same_seed_twice_is_equal_to_the_bit_with_or_without_shared_pieces(tmp_path, artifacts):
    first = go(SMALL, tmp_path / "a", artifacts)
    assert go(SMALL, tmp_path / "b", artifacts) == first
    assert go(SMALL, tmp_path / "c") == first
    assert go(SMALL, tmp_path / "d", artifacts, seed=1) != first


def weights_of(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()])


# dropout draws from the generator that orders the data; the rest makes every part of a checkpoint matter
INTERRUPTED = {
    "sam": {"optimizer": Optimizer(sam_rho=0.15, warmup=7), "rehearsal_every": 3},
    "retrain": {"optimizer": Optimizer(name="adam", lr=1e-2), "rehearsal": "stored_and_gen", "retrain": True},
}


@pytest.mark.parametrize("row", INTERRUPTED)
def test_a_cell_stopped_every_few_steps_equals_the_uninterrupted_one_to_the_bit(row, tmp_path, monkeypatch):
    model = replace(MODEL, dropout=0.1, pretrain_steps=8)
    sizes = {"first_steps": 12, "increment_steps": 6, "index_batch": 7, "query_batch": 5}
    settings = replace(SMALL, model=model, **sizes, **INTERRUPTED[row])
    seen, original = [], module.evaluate

    def evaluate(task, model, n):
        seen.append((n, weights_of(model)))
        return original(task, model, n)

    monkeypatch.setattr(module, "evaluate", evaluate)
    whole = go(settings, tmp_path / "whole")
    expected, asked, attempts = list(seen), 0, 0
    seen.clear()

    def requested():
        nonlocal asked
        asked += 1
        return asked % 7 == 0

    monkeypatch.setattr(resumable, "requested", requested)
    batches, kills = module.increment_batches, [2]

    def killed_once(task, n, pseudo):
        if n in kills:  # between two steps: one is measured, the next has no checkpoint
            kills.remove(n)
            raise KeyboardInterrupt
        return batches(task, n, pseudo)

    monkeypatch.setattr(module, "increment_batches", killed_once)
    while True:
        attempts += 1
        try:
            interrupted = go(settings, tmp_path / "interrupted")
        except Preempted as stop:
            assert stop.saved and (tmp_path / "interrupted" / "checkpoint").exists()  # without: what was logged goes
        except KeyboardInterrupt:
            pass
        else:
            break
    assert attempts == 2 + asked // 7 > 6
    assert interrupted == whole
    assert matrix(tmp_path / "interrupted") == matrix(tmp_path / "whole")
    for name in ("val_first_hits1", "val_a_hits10"):
        found = [Record(tmp_path / folder).curves()[name] for folder in ("interrupted", "whole")]
        assert found[0] == found[1] != {}
    assert [n for n, _ in seen] == [n for n, _ in expected] == [0, 1, 2]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(seen, expected, strict=True))
    assert not list((tmp_path / "interrupted" / "artifacts").rglob("checkpoint*"))


def test_a_search_sees_the_validation_metrics_of_the_run_and_can_give_it_up(tmp_path, artifacts, monkeypatch):
    record = Record(tmp_path / "cell")
    metrics = go(SMALL, record.folder)
    averages, first = (record.curves()[name] for name in ("val_a_hits10", "val_first_hits1"))
    assert sorted(averages) == [0, 10, 20] and averages[20] == metrics["val_a_hits10"]
    assert averages[0] == metrics["val_first_hits10"]
    assert sorted(first) == [3, 6, 9, 12, 15, 18, 20] and first[20] == metrics["val_first_hits1"]

    honest = load_benchmark(CORPUS, 0, None)
    blind = [[replace(document, test=("?",) * len(document.test)) for document in part] for part in honest.corpora]
    monkeypatch.setattr(module, "load_benchmark", lambda *a: Benchmark(tuple(map(tuple, blind)), honest.outside))
    other = Record(tmp_path / "blind")
    go(SMALL, other.folder)  # no figure that a search sees is of test queries
    assert (other.curves()["val_a_hits10"], other.curves()["val_first_hits1"]) == (averages, first)

    given_up = Record(tmp_path / "given up")
    given_up.folder.mkdir()
    (given_up.folder / PRUNE).touch()
    with pytest.raises(Pruned):
        go(SMALL, given_up.folder, artifacts)
    assert len(given_up.curves().get("val_a_hits10", {})) <= 1


def trained_weights(benchmark, folder, monkeypatch):
    """Weights after the last increment of the proposed method, and the pseudo-queries, for one benchmark."""
    monkeypatch.setattr(module, "load_benchmark", lambda *arguments: benchmark)
    context = Context(seed=0, folder=folder)
    task = Task.load(SMALL, context)
    model, _ = module.first_model(task, context)
    pseudo = pseudo_queries(task, context).queries
    for n in (1, 2):
        model = module.take_in(task, context, model, n, pseudo)
    return weights_of(model), pseudo


def test_no_held_out_query_reaches_training_or_the_generator(tmp_path, monkeypatch):
    """Every query that must stay unseen is replaced by nonsense: nothing that is trained changes by a bit."""
    honest = load_benchmark(CORPUS, 0, None)

    def spoil(document):
        held = len(document.test)
        return replace(document, withheld=("?",) * 3, validation=("?",) * held, test=("?",) * held)

    spoiled = Benchmark(tuple(tuple(map(spoil, corpus)) for corpus in honest.corpora), honest.outside)
    weights, pseudo = trained_weights(honest, tmp_path / "honest", monkeypatch)
    others, other_pseudo = trained_weights(spoiled, tmp_path / "spoiled", monkeypatch)
    assert pseudo == other_pseudo
    assert torch.equal(weights, others)


def test_training_does_depend_on_the_queries_it_may_see(tmp_path, monkeypatch):
    honest = load_benchmark(CORPUS, 0, None)
    first = tuple(replace(document, train=document.train[:1]) for document in honest.corpora[0])
    fewer = Benchmark((first, *honest.corpora[1:]), honest.outside)
    weights, _ = trained_weights(honest, tmp_path / "honest", monkeypatch)
    others, _ = trained_weights(fewer, tmp_path / "fewer", monkeypatch)
    assert not torch.equal(weights, others)


def test_pseudo_queries_equal_to_test_queries_are_removed_and_counted(tmp_path, monkeypatch):
    context = Context(seed=0, folder=tmp_path)
    honest = load_benchmark(CORPUS, 0, None)
    monkeypatch.setattr(module, "load_benchmark", lambda *arguments: honest)
    sampled = pseudo_queries(Task.load(SMALL, context), context)
    assert sampled.sampled == 40 * 4
    victim = sampled.queries[30][0]
    corpora = [list(corpus) for corpus in honest.corpora]
    corpora[0][0] = replace(corpora[0][0], test=(victim,))
    monkeypatch.setattr(module, "load_benchmark", lambda *a: Benchmark(tuple(map(tuple, corpora)), honest.outside))
    again = pseudo_queries(Task.load(SMALL, context), context)
    assert again.removed == sum(queries.count(victim) for queries in sampled.queries) > 0
    assert not any(victim in queries for queries in again.queries)


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"rehearsal": "gen_al"}, "gen_all"),
        ({"index_documents": "al"}, "all"),
        ({"optimizer": Optimizer(name="adafctor")}, "adafactor"),
    ],
)
def test_misspelt_choices_name_the_nearest(change, nearest):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        replace(SMALL, **change)


def test_choices_are_those_there_are():
    assert set(choices.CORPORA) == set(SOURCES)
    assert set(choices.KINDS) == set(KINDS)
    assert set(choices.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(choices.REHEARSAL) == set(REHEARSAL)
    assert set(choices.INDEXED) == set(INDEXED)


# --- planted faults: cut down, but large enough that the claims hold without the fault ---

LEARNS = Settings(
    corpus=Corpus(first=60, increment=30, increments=2, outside=1000, rare_words=60, topics=5, query_rare=2),
    model=Model(pretrain_steps=350, pretrain_batch=32),
    generator=Generator(steps=10, batch=32, queries=10),
    first_steps=100,
    increment_steps=60,
)


def test_wrong_pairs_in_the_generative_memory_undo_its_gain(tmp_path, artifacts):
    """C1 and C3 need pseudo-queries of the right documents: with those of others the gain over cl(U_n) is gone."""
    rows = {
        source: go(replace(LEARNS, rehearsal=source), tmp_path / source, artifacts)
        for source in ("none", "gen_first", "gen_all", "gen_shuffled")
    }
    average = {source: metrics["a_hits10"] for source, metrics in rows.items()}
    new = {source: metrics["la_hits10"] for source, metrics in rows.items()}
    assert average["gen_all"] > average["none"] + 0.05
    assert new["gen_all"] > new["gen_first"] + 0.05
    assert average["gen_shuffled"] < average["none"]  # the whole gain, and more
    assert new["gen_shuffled"] < new["gen_all"] - 0.05


def test_sam_without_radius_changes_nothing_to_the_bit(tmp_path, artifacts):
    """C4 with rho = 0: the two-pass update equals the plain one, so the measured effect is exactly zero."""
    settings = replace(SMALL, corpus=replace(CORPUS, increments=0), rehearsal="none", first_steps=40)
    context = Context(seed=0, folder=tmp_path, artifacts=artifacts)
    task = Task.load(settings, context)

    def checks(update):
        model = base_model(task, context)
        seed_phase(0, "first")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "plain_step", update)
            return train(task, model, first_batches(task), 0, None, context.log)

    plain = checks(module.plain_step)
    assert torch.equal(checks(lambda *a: module.sam_step(*a, rho=0.0)), plain)
    assert plain.any()
    assert not plain.all()


# --- the wiring of `run` ---


def first_weights(settings, folder, artifacts):
    """Weights after D_0, and what the model started from."""
    context = Context(seed=0, folder=folder, artifacts=artifacts)
    task = Task.load(settings, context)
    before = {name: value.clone() for name, value in base_model(task, context).state_dict().items()}
    model, _ = module.first_model(task, context)
    return task, before, model.state_dict()


def test_the_sam_setting_reaches_the_updates(tmp_path, artifacts):
    _, _, plain = first_weights(SMALL, tmp_path / "plain", artifacts)
    sam = replace(SMALL, optimizer=Optimizer(sam_rho=0.15))
    _, _, flat = first_weights(sam, tmp_path / "sam", artifacts)
    assert any(not torch.equal(plain[name], flat[name]) for name in plain)


def test_training_leaves_identifiers_of_future_documents_alone(tmp_path, artifacts):
    task, before, after = first_weights(SMALL, tmp_path, artifacts)
    future = task.docids.unissued(task.benchmark.bounds(0).stop)
    issued = task.docids.unissued(0)[: task.benchmark.bounds(0).stop]
    assert len(future) == 16
    assert torch.equal(after["shared.weight"][future], before["shared.weight"][future])
    assert not torch.equal(after["shared.weight"][issued], before["shared.weight"][issued])


def test_only_issued_identifiers_are_ranked(tmp_path, artifacts):
    """A model that loves a future identifier still never answers with it."""
    context = Context(seed=0, folder=tmp_path, artifacts=artifacts)
    task = Task.load(SMALL, context)
    model = base_model(task, context)
    with torch.no_grad():
        model.get_output_embeddings().weight[task.docids.unissued(24)] *= 100
    rankings = module.rank_all(task, model, task.questions["test"][0], 24, 10)
    assert all(0 <= document < 24 for ranking in rankings for document in ranking)


def test_retraining_forgets_the_model_of_the_step_before(tmp_path, artifacts, monkeypatch):
    """Every step of `retrain` starts from the base model: what the first training did must not show."""
    settings = replace(SMALL, retrain=True, rehearsal="stored_and_gen", check_every=0)
    go(settings, tmp_path / "a", artifacts)
    original = module.train

    def spoiled(task, model, batches, n, *rest):
        checks = original(task, model, batches, n, *rest)
        if n == 0:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.zero_()
        return checks

    monkeypatch.setattr(module, "train", spoiled)
    go(settings, tmp_path / "b", tmp_path / "fresh")
    healthy, faulty = matrix(tmp_path / "a"), matrix(tmp_path / "b")
    assert [row for row in healthy if row["n"] > 0] == [row for row in faulty if row["n"] > 0]
    assert [row for row in healthy if row["n"] == 0] != [row for row in faulty if row["n"] == 0]


def matrix(folder):
    return [json.loads(line) for line in (folder / "items" / "matrix.jsonl").read_text().splitlines()]


# --- the real architecture ---

T5_BASE = Model(d_model=768, d_kv=64, d_ff=3072, layers=12, decoder_layers=12, heads=12, dropout=0.1, pretrain_steps=0)


def test_t5_base_takes_an_indexing_and_rehearsal_step_plain_and_with_sam(tmp_path):
    """Random weights, real architecture and vocabulary size, the code path of every row."""
    corpus = replace(CORPUS, first=8, increment=4, increments=1, outside=0)
    for rho in (0.0, 0.15):
        settings = Settings(
            corpus=corpus,
            model=T5_BASE,
            optimizer=Optimizer(lr=1e-3, sam_rho=rho),
            rehearsal="stored",
            first_steps=1,
            increment_steps=1,
            index_batch=4,
            query_batch=4,
        )
        context = Context(seed=0, folder=tmp_path)
        task = Task.load(settings, context)
        model = base_model(task, context)
        assert sum(w.numel() for w in model.parameters()) > 190_000_000
        before = model.encoder.block[0].layer[0].SelfAttention.q.weight.detach().clone()
        train(task, model, module.increment_batches(task, 1, []), 1, None, context.log)
        after = model.encoder.block[0].layer[0].SelfAttention.q.weight
        assert torch.isfinite(after).all()
        assert not torch.equal(after, before)
