"""Whole cells, cut down, on the model that knows facts by heart; what the sets turn into."""

import json
import math
from dataclasses import replace

import pytest

from common.data import zsre
from common.editing.requests import Probe
from common.experiments.context import Context
from common.experiments.errors import UserError
from common.models.microlm.facts import draw_edits, fact_set
from common.models.toy import toy_checkpoint
from projects.wise import data as sets
from projects.wise import settings as choices
from projects.wise.data import near_probes, opening, requests
from projects.wise.editors import EDITORS
from projects.wise.method import MERGES
from projects.wise.run import routing_scores, run
from projects.wise.settings import (
    Contexts,
    Data,
    FineTuningOptions,
    LocatedOptions,
    MemoryOptions,
    Settings,
    WiseOptions,
)

SMALL = Settings(
    data=Data(edits=2, blocks=2, near=4),
    contexts=Contexts(count=1, tokens=3),
    tuning=FineTuningOptions(steps=2),
    located=LocatedOptions(samples=4, sample_tokens=8, steps=2),
    memory=MemoryOptions(steps=2),
    wise=WiseOptions(steps=2, shard_edits=1),
)
TIMES = ("edit_seconds",)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def go(settings, folder, artifacts, seed=0):
    return dict(run(settings, Context(seed=seed, folder=folder, artifacts=artifacts)).metrics)


def check_routing(found, folder):
    rows = [json.loads(line) for line in (folder / "items" / "routing.jsonl").read_text().splitlines()]
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("rel", "gen", "loc", "near")}
    assert [len(part) for part in kinds.values()] == [4, 4, 4, 8]  # of both blocks
    for kind, part in kinds.items():
        assert 0 <= found[f"delta_{kind}_low"] <= found[f"delta_{kind}_median"] <= found[f"delta_{kind}_high"]
        assert found[f"side_{kind}"] == sum(row["side"] for row in part) / len(part)


def test_quantiles_and_shares_are_those_of_each_kind():
    rows = [{"kind": "rel", "delta": float(delta), "side": delta > 8} for delta in range(11)]
    found = routing_scores([*rows, {"kind": "loc", "delta": 7.0, "side": False}])
    assert [found[f"delta_rel_{name}"] for name in ("low", "median", "high")] == [1, 5, 9]
    assert found["side_rel"] == 2 / 11 and found["side_loc"] == 0 and found["delta_loc_high"] == 7


@pytest.mark.parametrize("editor", ["ft_l", "ft_ewc", "rome", "memit", "grace", "defer", "wise", "none"])
def test_every_row_runs_and_reports_its_metrics(editor, tmp_path, artifacts):
    found = go(replace(SMALL, editor=editor), tmp_path, artifacts)
    assert all(math.isfinite(value) for value in found.values())
    assert {"rel", "gen", "loc", "avg", "rel_exact", "gen_exact", "loc_exact", "avg_exact"} <= set(found)
    if editor == "none":
        assert found["loc"] == 1 and found["rel_exact"] == 0  # new answers share no name part with the old
    else:
        assert {"near", "rel_early", "edit_seconds", "edit_steps", "failed", "extra_mb"} <= set(found)
        assert found["edit_steps"] == 2 and found["failed"] == 0
    if editor == "wise":
        check_routing(found, tmp_path)
    curve = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(curve) == 2


def test_same_seed_twice_is_equal_to_the_bit_and_another_seed_is_not(tmp_path, artifacts):
    settings = replace(SMALL, wise=replace(SMALL.wise, steps=3))
    first, second, other = (
        {k: v for k, v in go(settings, tmp_path / str(i), artifacts, seed).items() if k not in TIMES}
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == second != other


def test_choices_are_those_there_are():
    assert set(choices.EDITORS) == {*EDITORS, "none"}
    assert set(choices.MERGES) == set(MERGES)
    assert set(choices.SETS) == set(sets.SETS)
    with pytest.raises(UserError, match="unknown editor 'grase'; did you mean 'grace'"):
        replace(SMALL, editor="grase")


def test_blocks_edit_different_facts_and_their_probes_are_of_places():
    blocks = requests(Data(edits=10, blocks=3), 0, None)
    assert [len(block) for block in blocks] == [10, 10, 10]
    flat = [request for block in blocks for request in block]
    assert len({request.prompt for request in flat}) == 30
    facts = fact_set()
    places = {known.taught[0] for known in facts.locality}
    irrelevant = {known.taught[0] for known in facts.irrelevant}
    for request in flat:
        assert request.subject in request.prompt and len(request.paraphrases) == 1
        assert request.locality[0].prompt in places and request.irrelevant.prompt in irrelevant
    assert not places & irrelevant
    assert flat == [request for block in requests(Data(edits=30), 0, None) for request in block]
    assert flat != [request for block in requests(Data(edits=30), 1, None) for request in block]


def test_near_probes_are_facts_that_no_edit_touches():
    data = Data(edits=10, blocks=3, near=50)
    edited = {edit.prompt for edit in draw_edits(fact_set(), 30, 0)}
    probes = near_probes(data, 0)
    assert len(probes) == 50 and not edited & {probe.prompt for probe in probes}


def test_a_thousand_edits_are_at_hand_and_leave_near_facts():
    data = Data(edits=1000)
    [block] = requests(data, 0, None)
    assert len({request.prompt for request in block}) == 1000
    assert len(near_probes(data, 0)) == data.near


def row(number):
    return zsre.Edit(
        f"S{number}", f"Where is S{number}?", f"S{number} is where?", "", f"P{number}", (), f"nq question: q{number}",
        f"a{number}", "",
    )  # fmt: skip


def test_zsre_rows_become_requests_and_irrelevant_probes_come_from_rows_left_out(monkeypatch):
    monkeypatch.setattr(zsre, "load", lambda folder: [row(i) for i in range(9)])
    [block] = requests(Data("zsre", edits=4), 0, None)
    used = {request.irrelevant.prompt for request in block} | {request.locality[0].prompt for request in block}
    assert len(used) == 8
    for request in block:
        number = request.subject[1:]
        assert (request.prompt, request.target) == (f"Where is S{number}?", f" P{number}")
        assert request.locality[0].completion == f" a{number}" != request.irrelevant.completion
    with pytest.raises(UserError, match="10 edits take 20 records"):
        requests(Data("zsre", edits=10), 0, None)


def record(number, **more):
    """A record in the form of the authors' archive."""
    return {
        "subject": f"Ada {number}",
        "prompt": f"This is about Ada {number}. She was born.",
        "target_new": f"She studied {number} stars",
        "locality_prompt": f"The weather of day {number}",
        "locality_ground_truth": " was mild and dry",
    } | more


@pytest.fixture
def archive(tmp_path):
    """A mirror with five records of each set to edit, and two to draw x_i from."""
    for name in ("hallucination", "temporal"):
        folder = tmp_path / "wise" / name
        folder.mkdir(parents=True)
        more = {"ood_rephrase": "In May Ada 3 and others met again in Rome"} if name == "temporal" else {}
        (folder / f"{name}-edit.json").write_text(json.dumps([record(i, **more) for i in range(5)]))
        (folder / f"{name}-train.json").write_text(json.dumps([record(i) for i in range(90, 92)]))
    return tmp_path


def test_records_of_the_archive_become_requests(archive):
    blocks = requests(Data("hallucination", edits=2, blocks=2), 0, archive)
    flat = [request for block in blocks for request in block]
    assert len({request.prompt for request in flat}) == 4
    for request in flat:
        number = request.subject.removeprefix("Ada ")
        assert request.target == f" She studied {number} stars" and not request.paraphrases and not request.texts
        assert request.locality == (Probe(f"The weather of day {number}", " was mild and dry"),)
        assert request.irrelevant.prompt in ("The weather of day 90", "The weather of day 91")
    [block] = requests(Data("temporal", edits=5), 0, archive)
    texts = {request.subject: request.texts for request in block}
    assert texts["Ada 3"] == (Probe("In May Ada 3", " and others met again in Rome"),)
    assert texts["Ada 1"] == (Probe("In May Ada 3 and others met again in", " Rome"),)  # its subject is not named


def test_text_that_is_nothing_but_its_subject_keeps_a_word_to_follow():
    assert opening("Ada Byron", "Ada Byron") == Probe("Ada", " Byron")


def test_what_is_wrong_with_the_archive_is_one_line(archive):
    with pytest.raises(UserError, match="6 edits were asked for, and temporal has 5 records"):
        requests(Data("temporal", edits=6), 0, archive)
    with pytest.raises(UserError, match=r"hallucination-edit\.json is not under REPRO_DATA \(not set\)"):
        requests(Data("hallucination", edits=1), 0, None)
    path = archive / "wise" / "temporal" / "temporal-edit.json"
    path.write_text(json.dumps([record(0)]))
    with pytest.raises(UserError, match="records without ood_rephrase"):
        requests(Data("temporal", edits=1), 0, archive)
    for broken in ("{", '["a"]', "3"):
        path.write_text(broken)
        with pytest.raises(UserError, match="is no list of records"):
            requests(Data("temporal", edits=1), 0, archive)


@pytest.mark.parametrize("editor", ["ft_l", "rome", "wise", "none"])
@pytest.mark.parametrize("name", ["hallucination", "temporal"])
def test_cells_on_the_archive_score_likelihoods(name, editor, archive, tmp_path):
    """The paper-scale tables' data and scores, on a random-weight model of GPT-J's family."""
    model = str(toy_checkpoint("gptj", tmp_path / "gptj"))
    data = Data(name, edits=2, blocks=2, paraphrases=0, near=0)
    settings = replace(SMALL, editor=editor, model=model, data=data, wise=replace(SMALL.wise, layer=1))
    settings = replace(settings, tuning=replace(SMALL.tuning, layer=1))
    context = Context(seed=0, folder=tmp_path / "cell", artifacts=tmp_path / "artifacts", data=archive)
    found = run(settings, context).metrics
    assert found["ppl"] > 1 and {"rel", "loc", "avg"} <= set(found) and "gen" not in found
    assert ("ood" in found) == (name == "temporal")


def test_every_set_has_its_builder():
    assert set(sets.SETS) == {"facts", "zsre", "counterfact", "hallucination", "temporal"}
    with pytest.raises(UserError, match=r"unknown data\.name 'zsr'"):
        requests(Data("zsr"), 0, None)
    with pytest.raises(UserError, match="5000 edits"):
        requests(Data(edits=5000), 0, None)
