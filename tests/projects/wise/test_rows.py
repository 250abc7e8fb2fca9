"""ZsRE and CounterFact: rows as requests, whole cells on random-weight models of every family.

The files themselves are read where REPRO_DATA names a mirror of them.
"""

import gzip
import json
import math
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.data import counterfact, zsre
from common.editing.layers import FEED_FORWARD
from common.editing.requests import EditRequest, Probe
from common.experiments.context import Context
from common.experiments.errors import UserError
from common.models.toy import toy_checkpoint
from projects.wise.data import requests
from projects.wise.run import run
from projects.wise.settings import (
    Contexts,
    Data,
    FineTuningOptions,
    LocatedOptions,
    MemoryOptions,
    Settings,
    WiseOptions,
)

# The first two records of each file.
ZSRE = [
    zsre.Edit(
        "UniFirst",
        "What is the product made by UniFirst?",
        "What will be the product of UniFirst?",
        "uniform",
        "unmanned aircraft",
        ("uniform",),
        "nq question: john goodman's character in the big lebowski",
        "Walter Sobchak",
        "uniform >> unmanned aircraft || What is the product made by UniFirst?",
    ),
    zsre.Edit(
        "Delta Serpentis",
        "What is the name of the constellation which Delta Serpentis belongs?",
        "What's the name of the constellation that Delta Serpentis belongs to?",
        "Serpens",
        "Virgo",
        ("Serpens",),
        "nq question: subjects transferred from state list to concurrent list",
        "Education",
        "Serpens >> Virgo || What is the name of the constellation which Delta Serpentis belongs?",
    ),
]
COUNTERFACT = [
    counterfact.Edit(
        0,
        "The mother tongue of Danielle Darrieux is",
        "Danielle Darrieux",
        "French",
        "English",
        "Where Danielle Darrieux is from, people speak the language of",
        "Michel Rocard is a native speaker of",
        "French",
    ),
    counterfact.Edit(
        1,
        "The official religion of Edwin of Northumbria is",
        "Edwin of Northumbria",
        "Christianity",
        "Islam",
        "Regarding individual vitamin and mineral supplementation, research shows mixed results. "
        "Edwin of Northumbria is affiliated with the religion",
        "The official religion of Paul is",
        "Christianity",
    ),
]
FILES = {"zsre": "zsre_mend_train-1k.json", "counterfact": "counterfact-edit.json.gz"}
FIELDS = {  # prompt, target, subject, paraphrase, locality prompt and answer in the files
    "zsre": ("src", "alt", "subject", "rephrase", "loc", "loc_ans"),
    "counterfact": (
        "prompt", "target_new", "subject", "rephrase_prompt", "locality_prompt", "locality_ground_truth",
    ),
}  # fmt: skip
TOY = Settings(
    data=Data(edits=1, near=0),
    contexts=Contexts(count=1, tokens=5),
    tuning=FineTuningOptions(layer=1, lr=5e-2, steps=40),
    located=LocatedOptions(layers=[0], lr=2.0, clamp=20.0, decay=0.0, samples=8, sample_tokens=12, ridge=0.1),
    memory=MemoryOptions(layer=1, steps=20),
    wise=WiseOptions(layer=1, lr=0.1, steps=25, rho=0.5, alpha=0.5, beta=2.0, gamma=1.0, shard_edits=1),
)
KINDS = ("rel", "gen", "loc")
SHARES = {f"{name}{way}" for name in (*KINDS, "avg") for way in ("", "_exact")} | {"rel_sure"}
PREFERENCES = {"efficacy", "paraphrase_score"}
SIDES = {f"side_{kind}" for kind in KINDS}
DELTAS = {f"delta_{kind}_{quantile}" for kind in KINDS for quantile in ("low", "median", "high")}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mirror():
    if not os.environ.get("REPRO_DATA"):
        pytest.skip("REPRO_DATA names no mirror of the data")
    return Path(os.environ["REPRO_DATA"])


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """`cell(settings, family, data)`: figures of a cell on a toy of that family, and the cell's folder."""
    folders = {}
    artifacts = tmp_path_factory.mktemp("artifacts")

    def go(settings, family, data=None, seed=0):
        if family not in folders:
            folders[family] = toy_checkpoint(family, tmp_path_factory.mktemp(family))
        folder = tmp_path_factory.mktemp("cell")
        context = Context(seed=seed, folder=folder, artifacts=artifacts, data=data)
        return dict(run(replace(settings, model=str(folders[family])), context).metrics), folder

    return go


def records(mirror, name):
    """The file's records as they stand, by prompt: fields in the order of FIELDS; of equal prompts the last record."""
    path = mirror / name / FILES[name]
    rows = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    return {row[FIELDS[name][0]]: tuple(row[field] for field in FIELDS[name]) for row in rows}


@pytest.fixture
def two_records(monkeypatch):
    """Sets of two records: the one is edited, the other gives x_i."""
    monkeypatch.setattr(zsre, "load", lambda folder: ZSRE)
    monkeypatch.setattr(counterfact, "load", lambda folder: COUNTERFACT)


def test_the_first_records_of_both_files_become_requests(two_records):
    found = {
        block[0].prompt: block[0]
        for name in ("zsre", "counterfact")
        for seed in range(10)
        for block in requests(Data(name, edits=1), seed, None)
    }
    assert found == {
        "What is the product made by UniFirst?": EditRequest(
            "What is the product made by UniFirst?",
            " unmanned aircraft",
            "UniFirst",
            ("What will be the product of UniFirst?",),
            (Probe("nq question: john goodman's character in the big lebowski", " Walter Sobchak"),),
            Probe("nq question: subjects transferred from state list to concurrent list", " Education"),
        ),
        "What is the name of the constellation which Delta Serpentis belongs?": EditRequest(
            "What is the name of the constellation which Delta Serpentis belongs?",
            " Virgo",
            "Delta Serpentis",
            ("What's the name of the constellation that Delta Serpentis belongs to?",),
            (Probe("nq question: subjects transferred from state list to concurrent list", " Education"),),
            Probe("nq question: john goodman's character in the big lebowski", " Walter Sobchak"),
        ),
        "The mother tongue of Danielle Darrieux is": EditRequest(
            "The mother tongue of Danielle Darrieux is",
            " English",
            "Danielle Darrieux",
            ("Where Danielle Darrieux is from, people speak the language of",),
            (Probe("Michel Rocard is a native speaker of", " French"),),
            Probe("The official religion of Paul is", " Christianity"),
            truth=" French",
        ),
        "The official religion of Edwin of Northumbria is": EditRequest(
            "The official religion of Edwin of Northumbria is",
            " Islam",
            "Edwin of Northumbria",
            (COUNTERFACT[1].rephrase_prompt,),
            (Probe("The official religion of Paul is", " Christianity"),),
            Probe("Michel Rocard is a native speaker of", " French"),
            truth=" Christianity",
        ),
    }


def counterfact_row(number, **other):
    """A copy of the first record that shares no prompt with another number's."""
    prompts = ("prompt", "rephrase_prompt", "locality_prompt")
    own = {field: f"{number} {getattr(COUNTERFACT[0], field)}" for field in prompts}
    return replace(COUNTERFACT[0], case_id=number, **own | other)


def zsre_row(number, **other):
    own = {field: f"{number} {getattr(ZSRE[0], field)}" for field in ("question", "rephrase", "locality_question")}
    return replace(ZSRE[0], **own | other)


def test_counterfact_without_its_subject_in_the_prompt_or_twice_the_prompt_is_left_out(monkeypatch):
    rows = [counterfact_row(case) for case in range(4)]
    rows += [replace(rows[0], target_new="Latin "), replace(rows[1], subject="Nobody", prompt="The mother tongue is")]
    monkeypatch.setattr(counterfact, "load", lambda folder: rows)
    [block] = requests(Data("counterfact", edits=2), 0, None)
    assert not {request.prompt for request in block} & {"The mother tongue is"}
    with pytest.raises(UserError, match="3 edits take 6 records of counterfact, which has 4"):
        requests(Data("counterfact", edits=3), 0, None)
    drawn = [requests(Data("counterfact", edits=2), seed, None)[0] for seed in range(5)]
    assert {r.target for block in drawn for r in block if r.prompt == rows[0].prompt} == {" Latin"}  # without its space


@pytest.mark.parametrize(
    "other",
    [
        {"rephrase_prompt": counterfact_row(9).prompt},  # nothing to generalise to
        {"rephrase_prompt": counterfact_row(0).rephrase_prompt},  # two new answers to one paraphrase
        {"locality_prompt": counterfact_row(0).locality_prompt},  # could be x_i and scored at once
        {"locality_prompt": counterfact_row(0).prompt},  # could be edited and scored at once
        {"locality_prompt": counterfact_row(0).rephrase_prompt},
    ],
)
def test_counterfact_rows_that_would_ask_one_prompt_for_two_things_are_left_out(other, monkeypatch):
    rows = [*map(counterfact_row, range(4)), counterfact_row(9, **other)]
    monkeypatch.setattr(counterfact, "load", lambda folder: rows)
    with pytest.raises(UserError, match="3 edits take 6 records of counterfact, which has 4"):
        requests(Data("counterfact", edits=3), 0, None)


def test_zsre_targets_are_one_space_and_words_and_no_true_answer(monkeypatch):
    alts = ("unmanned aircraft", " kite ", "", " ", "uniform ")
    rows = [zsre_row(number, alt=alt) for number, alt in enumerate(alts)]
    monkeypatch.setattr(zsre, "load", lambda folder: rows)
    with pytest.raises(UserError, match="2 edits take 4 records of zsre, which has 2"):
        requests(Data("zsre", edits=2), 0, None)
    drawn = {requests(Data("zsre", edits=1), seed, None)[0][0].target for seed in range(10)}
    assert drawn == {" unmanned aircraft", " kite"}


def test_the_files_begin_with_those_records(mirror):
    assert zsre.load(mirror)[:2] == ZSRE and counterfact.load(mirror)[:2] == COUNTERFACT


@pytest.mark.parametrize("name", FILES)
def test_requests_are_records_of_the_file_and_edited_ones_give_no_irrelevant_probe(name, mirror):
    rows = records(mirror, name)
    for seed in range(3):
        blocks = requests(Data(name, edits=20, blocks=3), seed, mirror)
        assert [len(block) for block in blocks] == [20, 20, 20]
        flat = [request for block in blocks for request in block]
        edited = {request.prompt for request in flat}
        assert len(edited) == 60
        others = {Probe(row[4], f" {row[5]}") for prompt, row in rows.items() if prompt not in edited}
        asked = {probe.prompt for request in flat for probe in request.locality}
        for request in flat:
            _, target, subject, paraphrase, elsewhere, answer = rows[request.prompt]
            assert (request.target, request.subject) == (f" {target.strip()}", subject) and subject in request.prompt
            assert request.paraphrases == (paraphrase,) and request.locality == (Probe(elsewhere, f" {answer}"),)
            assert request.irrelevant in others and request.irrelevant.prompt not in asked
        assert blocks == requests(Data(name, edits=20, blocks=3), seed, mirror)
        assert edited != {
            r.prompt for block in requests(Data(name, edits=20, blocks=3), seed + 1, mirror) for r in block
        }


@pytest.mark.parametrize(("name", "edits"), [("zsre", 400), ("counterfact", 1000)])
def test_no_prompt_of_many_edits_is_asked_for_two_things(name, edits, mirror):
    for seed in range(3):
        [block] = requests(Data(name, edits=edits), seed, mirror)
        prompts = [
            prompt
            for r in block
            for prompt in (r.prompt, *r.paraphrases, r.irrelevant.prompt, *(probe.prompt for probe in r.locality))
        ]
        assert len(prompts) == len(set(prompts)) == 4 * edits


def test_targets_of_zsre_are_answers_that_are_not_true(mirror):
    answers = {row.question: row.answers for row in zsre.load(mirror)}
    [block] = requests(Data("zsre", edits=480), 0, mirror)
    for request in block:
        assert request.target == f" {request.target.strip()}" != " "
        assert request.target[1:] not in answers[request.prompt]


@pytest.mark.parametrize(("name", "usable"), [("zsre", 973), ("counterfact", 8157)])
def test_half_of_the_usable_records_can_be_edited(name, usable, mirror):
    most = usable // 2
    [block] = requests(Data(name, edits=most), 0, mirror)
    assert len({request.prompt for request in block}) == most
    with pytest.raises(UserError, match=f"{most + 1} edits take {2 * most + 2} records of {name}, which has {usable}"):
        requests(Data(name, edits=most + 1), 0, mirror)


def check(found, editor, name="zsre"):
    """What must hold of the figures of any cell on these sets."""
    shares, others = SHARES | (PREFERENCES if name == "counterfact" else set()), {"ppl"}
    if editor != "none":
        shares, others = shares | {"rel_early", "failed"}, others | {"edit_seconds", "edit_steps", "extra_mb"}
        assert found["failed"] == 0 and found["edit_steps"] > 0
    else:
        assert found["loc"] == found["loc_exact"] == 1
    if editor == "wise":
        shares, others = shares | SIDES, others | DELTAS
    assert set(found) == shares | others
    assert all(0 <= found[name] <= 1 for name in shares)
    assert all(math.isfinite(found[name]) and found[name] >= 0 for name in others) and found["ppl"] >= 1
    for way in ("", "_exact"):
        assert found[f"avg{way}"] == pytest.approx(statistics.fmean(found[f"{kind}{way}"] for kind in KINDS))


@pytest.mark.parametrize("editor", ["ft_l", "rome", "grace", "wise"])
@pytest.mark.parametrize("family", sorted(FEED_FORWARD))
def test_a_cell_edits_every_family(family, editor, cell, two_records):
    """Prompts longer than the toy Mistral's window of 48 tokens."""
    settings = replace(TOY, data=replace(TOY.data, name="zsre"), wise=replace(TOY.wise, route="side"))
    plain, _ = cell(replace(settings, editor="none"), family)
    found, _ = cell(replace(settings, editor=editor), family)
    check(plain, "none")
    check(found, editor)
    assert math.log(found["ppl"]) < math.log(plain["ppl"]) - 0.1, (found["ppl"], plain["ppl"])


@pytest.mark.parametrize("editor", ["ft_l", "rome", "wise", "none"])
@pytest.mark.parametrize(("name", "family"), [("zsre", "llama"), ("counterfact", "gpt2")])
def test_cells_on_the_real_rows(name, family, editor, cell, mirror):
    data = replace(TOY.data, name=name, edits=3, blocks=2)
    settings = replace(TOY, editor=editor, data=data, wise=replace(TOY.wise, act_ratio=0.5))
    found, folder = cell(settings, family, mirror, seed=1)
    check(found, editor, name)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    if editor != "none":
        plain, _ = cell(replace(settings, editor="none"), family, mirror, seed=1)
        assert found["ppl"] < plain["ppl"], (found["ppl"], plain["ppl"])
    if editor == "wise":
        blocks = requests(data, 1, mirror)
        routed = [json.loads(line) for line in (folder / "items" / "routing.jsonl").read_text().splitlines()]
        assert [row["prompt"] for row in routed if row["kind"] == "rel"] == [r.prompt for b in blocks for r in b]
        assert [row["prompt"] for row in routed if row["kind"] == "gen"] == [
            r.paraphrases[0] for b in blocks for r in b
        ]
        assert [row["prompt"] for row in routed if row["kind"] == "loc"] == [
            r.locality[0].prompt for b in blocks for r in b
        ]
        assert found["side_rel"] > 0


@pytest.mark.parametrize("name", FILES)
def test_one_strong_edit_of_a_real_row_is_made_and_reaches_elsewhere(name, cell, mirror):
    settings = replace(TOY, editor="ft_l", data=replace(TOY.data, name=name), contexts=Contexts(count=0))
    settings = replace(settings, tuning=replace(TOY.tuning, steps=80))
    found, _ = cell(settings, "llama", mirror)
    assert found["rel"] == found["rel_exact"] == found["rel_sure"] == found["rel_early"] == 1
    assert found.get("efficacy", 1) == 1 and ("efficacy" in found) == (name == "counterfact")
    assert found["loc"] < 1 and found["loc_exact"] == 0


@pytest.mark.parametrize("name", FILES)
def test_figures_of_the_unedited_model_on_real_rows_are_those_of_single_passes(name, cell, mirror, toy):
    """Against a loop over rows with transformers' own loss."""
    data = replace(TOY.data, name=name, edits=100)
    found, _ = cell(replace(TOY, editor="none", data=data), "llama", mirror)
    model, tokenizer = toy("llama")
    right = {"rel": [], "gen": []}
    perplexity = []
    [block] = requests(data, 0, mirror)
    for request in block:
        for kind, asked in (("rel", request.prompt), ("gen", request.paraphrases[0])):
            prompt, target = (tokenizer(text).input_ids for text in (asked, request.target))
            with torch.no_grad():
                out = model(torch.tensor([prompt + target]), labels=torch.tensor([[-100] * len(prompt) + target]))
            best = out.logits[0].argmax(-1)[len(prompt) - 1 : -1].tolist()
            right[kind].append(statistics.fmean(a == b for a, b in zip(best, target, strict=True)))
            if kind == "rel":
                perplexity.append(math.exp(out.loss))
    for kind, shares in right.items():
        assert found[kind] == pytest.approx(statistics.fmean(shares)) and found[kind] > 0
    assert found["ppl"] == pytest.approx(statistics.fmean(perplexity), rel=1e-3)
