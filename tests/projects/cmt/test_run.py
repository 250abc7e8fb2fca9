"""Whole cells, cut down, on MicroLM: every row, the same seed twice, interruption, what is frozen, what leaks not."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.data import squad
from common.experiments import catalogue
from common.experiments.compose import compose_table
from common.experiments.context import Context
from common.experiments.errors import UserError
from common.experiments.fingerprint import ROOT
from common.experiments.report import expected_of
from common.models.frozen import FrozenLM
from common.models.toy import toy_checkpoint
from common.training import resumable
from common.training.preemption import Preempted
from common.training.supervised import weighted_loss
from projects.cmt import run as module
from projects.cmt import settings as choices
from projects.cmt import shipped
from projects.cmt.baselines import OnlineTuning, salient, uniform
from projects.cmt.data import SETS, STYLES, Document
from projects.cmt.method import CMT, COMPRESSORS, SHARPNESS
from projects.cmt.prompts import CHAT, Prompting
from projects.cmt.run import base_model, load_streams, run
from projects.cmt.settings import T5, Camels, Data, Decoding, Memory, Objective, Settings, Training
from projects.cmt.settings import OnlineTuning as Tuning
from tests.projects.cmt.test_data import paragraphs

pytestmark = pytest.mark.usefixtures("one_thread")
TIMES = ("read_seconds", "question_seconds")
SMALL = Settings(
    data=Data(documents=6, validation=3, checkpoints=[2, 4, 6], known=2, old=4, facts=2, questions=1),
    memory=Memory(soft=2, rank=2, blocks=1, heads=1, head=16, k=2),
    training=Training(first_steps=2, first_batch=4, steps=2, batch=4, questions=2),
    tuning=Tuning(rates=[1e-4]),
    camels=Camels(documents=2, steps=2),
    tokens=4,
    save_every=1,
)
MAC = {"memory": replace(SMALL.memory, matching="none", k=0, window=2), "objective": Objective(kind="nll", attend=0.5)}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def go(settings, folder, artifacts=None, seed=0):
    metrics = run(settings, Context(seed=seed, folder=folder, artifacts=artifacts)).metrics
    return {name: value for name, value in metrics.items() if name not in TIMES}


@pytest.mark.parametrize("method", ["none", "oracle", "rag", "uniform", "salient", "camels", "memory"])
def test_every_method_runs_and_reports_its_metrics(method, tmp_path, artifacts):
    found = go(replace(SMALL, method=method), tmp_path, artifacts)
    assert all(math.isfinite(value) for value in found.values())
    shown = {
        "em",
        "em_prefix",
        "f1",
        "f1_new",
        "f1_updated",
        "first_block",
        "drop",
        "old_before",
        "old_after",
        "frozen",
    }
    assert shown <= set(found)
    assert found["frozen"] == (method not in ("uniform", "salient", "camels"))
    if found["frozen"]:
        assert found["old_same"] == 1 and found["old_before"] == found["old_after"]
    assert found.get("rate") == (None if found["frozen"] else 1e-4)
    if method in ("oracle", "rag"):
        assert found["f1"] == found["retention"] == 1  # two facts are read without fault
    if method == "memory":
        assert found["memories"] == 6 and 0 <= found["hit"] <= 1
    items = [json.loads(line) for line in (tmp_path / "items" / "answers.jsonl").read_text().splitlines()]
    assert {item["kind"] for item in items} == {"new", "updated"}


@pytest.mark.parametrize("real", [False, True], ids=["text world", "real paragraphs"])
def test_every_table_names_metrics_that_cells_of_its_data_report(real, tmp_path, artifacts, monkeypatch):
    settings = SMALL
    if real:
        monkeypatch.setattr(squad, "load", lambda folder: paragraphs(48, 1))
        data = Data(name="squad_sample", train=[], documents=4, validation=2, checkpoints=[2], questions=0, old=0)
        settings = replace(SMALL, data=data)
    reported = {"retention"}  # of a cell whose first block has an F1 above 0
    for method in ("memory", "uniform"):
        context = Context(seed=0, folder=tmp_path / method, artifacts=artifacts)
        reported |= set(run(replace(settings, method=method), context).metrics)
    tables = [(name, scale) for name, scales in catalogue.tables("cmt").items() for scale in scales]
    of_kind = [(name, scale) for name, scale in tables if real == (scale != "tiny")]
    assert len(of_kind) == (12 if real else 6)
    for name, scale in of_kind:
        table = compose_table(f"cmt/{name}", scale)
        assert all(real == (cell.settings["data"]["name"] not in STYLES) for cell in table.cells(seeds=[0]))
        assert set(table.metrics) <= reported, f"{name} at {scale} scale"
        assert expected_of(table)  # no claim of the scale is about a metric that it lacks


@pytest.mark.parametrize(
    "row",
    [
        MAC,
        {"objective": Objective(kind="margin")},
        {"memory": replace(SMALL.memory, matching="frozen")},
        {"memory": replace(SMALL.memory, k=0, dedup=False, inject="kv_prefix")},
        {"decoding": Decoding("beams", beams=4, groups=2)},
        {"memory": replace(SMALL.memory, compressor="encdec", t5=T5(width=32, layers=1, heads=2, inner=32))},
    ],
    ids=["mac", "margin", "frozen", "whole, kv", "beams", "encdec"],
)
def test_every_variant_of_the_memory_runs(row, tmp_path, artifacts):
    found = go(replace(SMALL, **row), tmp_path, artifacts)
    assert found["frozen"] == 1 and found["memories"] == 6


def test_the_same_seed_twice_is_equal_and_stage_1_is_shared_by_rows_and_seeds(tmp_path, artifacts):
    first = go(SMALL, tmp_path / "a", artifacts)
    own = tmp_path / "own"
    assert go(SMALL, tmp_path / "b", own) == first
    go(replace(SMALL, **MAC), tmp_path / "c", own)
    go(replace(SMALL, data=replace(SMALL.data, name="prose")), tmp_path / "d", own)  # a column shares both stages
    assert go(SMALL, tmp_path / "e", own, seed=1) != first
    stronger = {"memory": replace(SMALL.memory, soft=1), "training": replace(SMALL.training, first_soft=2)}
    go(replace(SMALL, **stronger), tmp_path / "f", own)  # keeps one of stage 1's two soft tokens
    made = [path.name for path in own.iterdir() if path.is_dir()]
    assert [sum(name.startswith(stage) for name in made) for stage in ("stage-1", "stage-2")] == [1, 4]
    other = replace(SMALL.training, lr=1e-3)
    go(replace(SMALL, training=other), tmp_path / "h", own)
    made = [path.name for path in own.iterdir() if path.is_dir()]
    assert [sum(name.startswith(stage) for name in made) for stage in ("stage-1", "stage-2")] == [1, 5]
    windows = {**MAC, "memory": replace(MAC["memory"], window=0)}
    go(replace(SMALL, **windows), tmp_path / "g", own)  # windows are for reading alone
    assert sum(path.name.startswith("stage-2") for path in own.iterdir() if path.is_dir()) == 5


def test_the_shipped_stage_1_is_taken_where_it_was_trained_alike_and_only_there(tmp_path, capsys, monkeypatch):
    assert hashlib.sha256((shipped.FOLDER / "model.safetensors").read_bytes()).hexdigest() == shipped.SHA256
    context = Context(seed=0, folder=tmp_path)
    lm = base_model(Settings(), context)
    cmt = CMT(lm, Prompting(lm.tokenizer, "recall", 64), Memory(), 128)
    recipe = json.loads((shipped.FOLDER / "recipe.json").read_text())
    key = module.shared_key(Settings())
    assert lm.hash == recipe["base_sha256"]  # MicroLM as it ships today
    assert shipped.fits(key, lm.hash)
    assert not shipped.fits(key, "another model")
    for name in ("recipe.json", "model.safetensors"):
        (tmp_path / name).write_bytes((shipped.FOLDER / name).read_bytes())
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"model.safetensors is not what was shipped"):
        shipped.fits(key, lm.hash)
    monkeypatch.undo()
    for memory in (Memory(soft=4), Memory(compressor="encdec")):
        assert not shipped.fits(module.shared_key(replace(Settings(), memory=memory)), recipe["base_sha256"])
    module.load(cmt, module.first_stage(Settings(), context, cmt, lm))
    stored = load_file(shipped.FOLDER / "model.safetensors")
    assert set(stored) == {name for name, _ in cmt.named_parameters()}
    assert float(cmt.temperature.detach()) == pytest.approx(math.exp(float(stored["log_temperature"])))
    assert "stage 1" not in capsys.readouterr().out
    own = module.first_stage(replace(Settings(), training=replace(SMALL.training, first_steps=0)), context, cmt, lm)
    assert own != shipped.FOLDER and "stage 1: trained here" in capsys.readouterr().out


def test_the_page_of_stage_1_is_of_the_weights_that_ship():
    page = (ROOT / "reports" / "cmt" / "stage1.md").read_text()
    recipe = json.loads((shipped.FOLDER / "recipe.json").read_text())
    assert f"`sha256:{shipped.SHA256[:16]}`" in page and f"`sha256:{recipe['base_sha256'][:16]}`" in page


def test_a_cell_stopped_again_and_again_equals_the_uninterrupted_one_and_encodes_nothing_twice(tmp_path, monkeypatch):
    whole = go(SMALL, tmp_path / "whole")
    calls, encoded = [0], []
    original = module.Online.read

    def read(self, documents):
        new = [text for text in documents if text not in self.bank]
        encoded.extend(new)
        original(self, documents)

    def requested():
        calls[0] += 1
        return calls[0] % 2 == 0

    monkeypatch.setattr(module.Online, "read", read)
    monkeypatch.setattr(resumable, "requested", requested)
    monkeypatch.setattr(module, "requested", requested)
    attempts = 0
    while True:
        attempts += 1
        try:
            found = go(SMALL, tmp_path / "stopped")
            break
        except Preempted as stop:
            assert stop.saved
    assert attempts > 3 and found == whole
    assert len(encoded) == len(set(encoded)) == 6


def test_no_document_is_named_at_test_and_no_test_question_is_seen_in_training(tmp_path, artifacts, monkeypatch):
    """Test questions and answers replaced: what is trained and what is in the bank stay; only scores change."""
    go(SMALL, tmp_path / "a", artifacts)
    honest = load_streams
    banks = []
    of_bank = module.of_bank
    monkeypatch.setattr(
        module, "of_bank", lambda learner, stream: (banks.append(learner.bank), of_bank(learner, stream))[1]
    )

    def spoiled(data, seed, folder):
        streams = honest(data, seed, folder)
        test = tuple(Document(d.text, tuple(replace(q, answers=("?",)) for q in d.questions)) for d in streams.test)
        return replace(streams, test=test)

    found = [go(SMALL, tmp_path / "b", artifacts)]
    monkeypatch.setattr(module, "load_streams", spoiled)
    found.append(go(SMALL, tmp_path / "c", artifacts))
    assert (banks[0].memories(slice(None)) == banks[1].memories(slice(None))).all()
    predictions = [
        [
            json.loads(line)["prediction"]
            for line in (tmp_path / name / "items" / "answers.jsonl").read_text().splitlines()
        ]
        for name in "bc"
    ]
    assert predictions[0] == predictions[1] and found[1]["f1"] == 0


def test_uniform_weighs_all_tokens_and_salient_spans_those_of_the_facts(tmp_path):
    lm = base_model(SMALL, Context(seed=0, folder=tmp_path))
    prompting = Prompting(lm.tokenizer, "read")
    document = Document("Balman | job | baker", (), ((15, 20),))
    before = lm.weights_hash()
    for weigh in (uniform, salient(lm.tokenizer, 64)):
        tuning = OnlineTuning(lm, prompting, 4, 8, weigh=weigh, lr=1e-3, steps=1, document_tokens=64)
        batch = tuning.batch(document)
        weighed = lm.tokenizer.convert_ids_to_tokens(batch.ids[batch.weights > 0])
        assert len(weighed) == batch.ids.shape[1] if weigh is uniform else weighed == ["Ġbaker"]
        assert float(batch.weights[:, 1:].sum()) == pytest.approx(1)
        tuning.read([document])
        assert tuning.lm.weights_hash() != before == lm.weights_hash()
    untouched = OnlineTuning(lm, prompting, 4, 8, weigh=weigh, lr=1e-3, steps=1, document_tokens=64)
    untouched.read([Document("Nothing here.", ())])
    assert untouched.lm.weights_hash() == before


def test_tuning_on_a_document_lowers_its_loss(tmp_path):
    lm = base_model(SMALL, Context(seed=0, folder=tmp_path))
    document = Document("Balman | job | baker", (), ((15, 20),))
    for weigh in (uniform, salient(lm.tokenizer, 64)):
        prompting = Prompting(lm.tokenizer, "read")
        tuning = OnlineTuning(lm, prompting, 4, 8, weigh=weigh, lr=1e-3, steps=5, document_tokens=64)
        batch = tuning.batch(document)
        before = weighted_loss(tuning.lm.model, batch).item()
        tuning.read([document])
        assert weighted_loss(tuning.lm.model, batch).item() < 0.8 * before


def test_rows_that_match_nothing_start_with_attention_from_the_matching(tmp_path, artifacts):
    settings = replace(SMALL, **MAC, training=replace(SMALL.training, steps=0))
    context = Context(seed=0, folder=tmp_path, artifacts=artifacts)
    lm = base_model(settings, context)
    cmt = module.trained(settings, context, lm, Prompting(lm.tokenizer, "recall", 64))
    block = cmt.aggregator.blocks[0]
    product = (block.query.weight * block.norm.weight).T @ (block.key.weight * block.norm_memory.weight)
    scores = cmt.W_q.weight.T @ cmt.W_k.weight
    left, values, right = torch.linalg.svd(scores)
    values[block.head :] = 0.0
    expected = SHARPNESS * left @ values.diag() @ right * math.sqrt(block.head / len(scores)) * block.heads
    torch.testing.assert_close(product, expected, rtol=1e-3, atol=1e-3)


def test_the_rate_of_a_method_belongs_to_its_column_the_weights_of_the_model_and_the_files(tmp_path, monkeypatch):
    lm = base_model(SMALL, Context(seed=0, folder=tmp_path))
    keys = []

    def artifact(context, name, key, build):
        keys.append(json.dumps(key, sort_keys=True))
        save_file({"0.0001": torch.tensor(0.1), "0.001": torch.tensor(0.2)}, tmp_path / "f1.safetensors")
        return tmp_path

    monkeypatch.setattr(Context, "artifact", artifact)
    monkeypatch.setattr(module, "digests", lambda data, folder: {"train": "digest of a file"})
    for method in ("uniform", "salient", "camels"):
        for name in ("notes", "prose"):
            settings = replace(SMALL, method=method, tuning=Tuning(rates=[1e-4, 1e-3]))
            settings = replace(settings, data=replace(settings.data, name=name, train=["notes", "prose"]))
            context = Context(seed=0, folder=tmp_path)
            assert module.best_rate(settings, context, lm, Prompting(lm.tokenizer, "read"), uniform) == 1e-3
    assert len(set(keys)) == 6 and all(lm.hash in key and "digest of a file" in key for key in keys)


def test_the_rate_of_fine_tuning_is_the_best_on_the_validation_stream(tmp_path, monkeypatch):
    lm = base_model(SMALL, Context(seed=0, folder=tmp_path))
    asked = []

    def scores(questions, answers):
        asked.append([question.text for question in questions])
        return {"f1": {0: 0.2, 1: 0.5, 2: 0.5}[len(asked) - 1]}

    monkeypatch.setattr(module, "mean_scores", scores)
    settings = replace(SMALL, tuning=Tuning(rates=[1e-2, 1e-4, 1e-3], steps=1))
    context = Context(seed=0, folder=tmp_path)
    assert module.best_rate(settings, context, lm, Prompting(lm.tokenizer, "read"), uniform) == 1e-3
    test = {q.text for d in load_streams(settings.data, 0, None).test for q in d.questions}
    assert len(asked) == 3 and not test & set(asked[0])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"method": "memroy"}, "unknown method 'memroy'; did you mean 'memory'"),
        ({"memory": Memory(matching="slef")}, r"unknown memory\.matching 'slef'; did you mean 'self'"),
        ({"memory": Memory(compressor="lora")}, r"unknown memory\.compressor 'lora'; did you mean 'lora_lm'"),
        ({"decoding": Decoding("beam")}, r"unknown decoding\.kind 'beam'; did you mean 'beams'"),
        ({"memory": Memory(matching="none")}, "no top 4; take k: 0"),
        ({"objective": Objective(kind="nlll")}, r"unknown objective\.kind 'nlll'; did you mean 'nll'"),
        ({"training": replace(SMALL.training, first_soft=1)}, "first_soft: 1 is less than memory.soft 2"),
    ],
)
def test_mistakes_are_one_line(change, line):
    with pytest.raises(UserError, match=line):
        replace(SMALL, **change)


def test_choices_are_those_there_are():
    assert set(choices.METHODS) == set(module.LEARNERS)
    assert set(choices.PROMPTS) == {*CHAT, "plain"}
    assert set(choices.COMPRESSORS) == set(COMPRESSORS)
    assert set(choices.SETS) == set(SETS)


def test_four_bits_are_for_what_stays_frozen_and_change_no_stage_1_but_their_own(toy, tmp_path, monkeypatch):
    asked = []
    loaded = type("Loaded", (), dict(zip(("model", "tokenizer"), toy("lfm2"), strict=True)))
    monkeypatch.setattr(module.TransformersLM, "load", lambda *a, **options: (asked.append(options), loaded)[1])
    four = replace(SMALL, base=replace(SMALL.base, quantize="nf4"))
    for method in ("memory", "rag", "uniform", "camels"):
        base_model(replace(four, method=method), Context(seed=0, folder=tmp_path))
    assert [options["quantize"] for options in asked] == ["nf4", "nf4", "", ""]
    assert module.shared_key(four)["base"]["quantize"] == "nf4" and "quantize" not in module.shared_key(SMALL)["base"]


def test_token_weights_come_once_for_all_seeds_and_from_a_model_with_the_same_tokens(tmp_path):
    lm = base_model(SMALL, Context(seed=0, folder=tmp_path))
    settings = replace(SMALL, method="camels", camels=Camels(documents=1, steps=1))
    weights = []
    for seed in (0, 1):
        context = Context(seed=seed, folder=tmp_path / str(seed), artifacts=tmp_path / "artifacts")
        weigh = module.WEIGHTS["camels"](settings, context, lm, Prompting(lm.tokenizer, "recall"))
        weights.append(weigh(Document("", ()), lm.ids([[5, 6, 7, 8]])))
    assert torch.equal(*weights)
    assert sum(path.is_dir() for path in (tmp_path / "artifacts").iterdir()) == 1
    other = replace(settings, camels=Camels(model=str(toy_checkpoint("llama", tmp_path / "llama"))))
    with pytest.raises(UserError, match="has another tokenizer than the base model"):
        module.WEIGHTS["camels"](other, context, lm, Prompting(lm.tokenizer, "recall"))


def test_a_model_without_a_chat_template_is_told_to_take_plain_prompts(toy, tmp_path, monkeypatch):
    model, tokenizer = toy("gpt2")
    tokenizer.chat_template = None
    loaded = type("Loaded", (), {"model": model, "tokenizer": tokenizer})
    monkeypatch.setattr(module.TransformersLM, "load", lambda *a, **k: loaded)
    with pytest.raises(UserError, match="take 'plain'"):
        base_model(SMALL, Context(seed=0, folder=tmp_path))
    plain = replace(SMALL, base=replace(SMALL.base, prompt="plain"))
    assert isinstance(base_model(plain, Context(seed=0, folder=tmp_path)), FrozenLM)
