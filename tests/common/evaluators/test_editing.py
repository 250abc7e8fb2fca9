"""Editing scores against counts by hand, and the two ways of asking against each other on a toy model."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.editing.fine_tuning import FineTuning
from common.editing.requests import EditRequest, Probe, batch_of
from common.evaluators import editing
from common.evaluators.editing import (
    answers,
    asked,
    editing_scores,
    exact_match,
    forced,
    greedy,
    likelihood_scores,
    preference_scores,
    targets,
    token_accuracy,
    token_losses,
)
from common.models.language_model import Sampling
from common.models.toy import toy_checkpoint
from common.models.transformers_lm import TransformersLM


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = toy_checkpoint("llama", tmp_path_factory.mktemp("llama"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_a_wrong_token_costs_a_share_of_one_and_the_whole_of_the_other():
    found, wanted = [[1, 2, 3, 4], [5]], [[1, 9, 3, 4], [5]]
    assert token_accuracy(found, wanted) == (0.75 + 1) / 2
    assert exact_match(found, wanted) == 1 / 2


def test_greedy_tokens_are_those_of_the_language_model(toy):
    model, tokenizer = toy
    probes = [Probe("Ada was born in", " Rome"), Probe("Bo", " Ulm on Danube")]
    lengths = [len(tokens) for tokens in targets(tokenizer, probes)]
    done = TransformersLM(model, tokenizer).generate(
        [probe.prompt for probe in probes], [Sampling(max_tokens=length) for length in lengths]
    )
    for tokens, completion in zip(greedy(model, tokenizer, probes, batch=1), done, strict=True):
        assert tokens[: len(completion.token_ids)] == list(completion.token_ids)
    assert greedy(model, tokenizer, probes) == greedy(model, tokenizer, probes, batch=1)


def test_all_forced_tokens_are_right_exactly_where_greedy_decoding_gives_the_target(toy):
    model, tokenizer = toy
    probes = [Probe("Ada was born in", " Rome"), Probe("Ada was born in", " Rima"), Probe("Bo likes", " tea")]
    editor = FineTuning(model, tokenizer, layer=1, lr=5e-2, steps=40)
    editor.edit([EditRequest(probes[0].prompt, probes[0].completion)])
    gold, by_force, freely = (
        targets(tokenizer, probes),
        forced(model, tokenizer, probes),
        greedy(model, tokenizer, probes),
    )
    editor.rollback()
    assert [a == b for a, b in zip(by_force, gold, strict=True)] == [True, False, False]
    assert [a == b for a, b in zip(freely, gold, strict=True)] == [True, False, False]
    assert (
        freely[1] == gold[0] and by_force[1][:3] == gold[0][:3]
    )  # both follow the same tokens until the first mistake


def test_scores_of_an_unedited_and_of_an_edited_model(toy):
    model, tokenizer = toy
    request = EditRequest("Ada was born in", " Rome", paraphrases=("Ada is from",), locality=(Probe("Bo", " Ulm"),))
    before = answers(model, tokenizer, asked([request])["loc"])
    plain = editing_scores(model, tokenizer, [request], before)
    assert plain["loc"] == plain["loc_exact"] == 1  # against itself
    assert plain["avg"] == pytest.approx((plain["rel"] + plain["gen"] + plain["loc"]) / 3)
    editor = FineTuning(model, tokenizer, layer=1, lr=5e-2, steps=40)
    editor.edit([request])
    edited = editing_scores(model, tokenizer, [request], before)
    editor.rollback()
    assert edited["rel"] == edited["rel_exact"] == 1 > plain["rel_exact"]
    assert edited["loc"] < 1


def test_nothing_to_score_and_answers_to_other_probes_are_refused(toy):
    model, tokenizer = toy
    none = answers(model, tokenizer, [])
    with pytest.raises(ValueError, match="no edits"):
        editing_scores(model, tokenizer, [], none)
    with pytest.raises(ValueError, match="1 locality probes and 0"):
        editing_scores(model, tokenizer, [EditRequest("a", " b", locality=(Probe("c", " d"),))], none)


def loss_by_transformers(model, tokenizer, probe):
    """Mean loss of the completion, from the model's own `labels`."""
    rows = batch_of(tokenizer, [(probe.prompt, probe.completion)])
    labels = rows.ids.masked_fill(rows.prompt_mask, -100)
    with torch.no_grad():
        return float(model(input_ids=rows.ids, labels=labels).loss)


def test_losses_of_tokens_and_perplexity_are_those_of_transformers(toy):
    model, tokenizer = toy
    probes = [
        Probe("Ada was born in", " Rome, a city"),
        Probe("Bo", " lives in a house near the sea."),
        Probe("Cy", " is"),
    ]
    losses = token_losses(model, tokenizer, probes, batch=2)
    wanted = [loss_by_transformers(model, tokenizer, probe) for probe in probes]
    assert [float(row.mean()) for row in losses] == pytest.approx(wanted, rel=1e-5)
    edits = [EditRequest(probe.prompt, probe.completion) for probe in probes]
    found = likelihood_scores(model, tokenizer, edits)
    assert found["ppl"] == pytest.approx(sum(math.exp(loss) for loss in wanted) / 3, rel=1e-5) and "ood" not in found


def test_sure_tokens_have_more_than_four_fifths_of_the_probability_and_rows_count_alike(toy, monkeypatch):
    model, tokenizer = toy
    losses = [torch.tensor([0.1, 0.3]), torch.tensor([0.22, 0.23, 0.0])]  # -log 0.8 is 0.2231
    monkeypatch.setattr(editing, "token_losses", lambda model, tokenizer, probes, batch: losses[: len(probes)])
    edits = [EditRequest("a", " b", texts=(Probe("c", " d"),)), EditRequest("e", " f", texts=(Probe("g", " h"),))]
    found = likelihood_scores(model, tokenizer, edits)
    assert found["ood"] == found["rel_sure"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert likelihood_scores(model, tokenizer, edits[:1])["ood"] == 1 / 2


def test_preferred_answers_are_those_of_the_smaller_loss_by_transformers(toy):
    model, tokenizer = toy
    edits = [
        EditRequest("Ada was born in", " Rome, a city", paraphrases=("Ada is from", "Ada, of"), truth=" Ulm"),
        EditRequest("Bo", " Ulm", paraphrases=("Cy and Bo",), truth=" lives in a house near the sea."),
        EditRequest("Di sings", " tea", paraphrases=("Di",)),  # no known truth
    ]
    wanted = {"efficacy": [], "paraphrase_score": []}
    for edit in edits[:2]:
        for prompt in (edit.prompt, *edit.paraphrases):
            new, true = (loss_by_transformers(model, tokenizer, Probe(prompt, c)) for c in (edit.target, edit.truth))
            wanted["efficacy" if prompt == edit.prompt else "paraphrase_score"].append(new < true)
    shares = {name: sum(wins) / len(wins) for name, wins in wanted.items()}
    assert preference_scores(model, tokenizer, edits, batch=2) == shares
    swapped = [EditRequest(e.prompt, e.truth, paraphrases=e.paraphrases, truth=e.target) for e in edits[:2]]
    assert preference_scores(model, tokenizer, swapped) == {name: 1 - share for name, share in shares.items()}
    assert preference_scores(model, tokenizer, edits[2:]) == {}


def test_a_longer_answer_is_weighed_by_its_mean_loss_and_a_tie_is_no_win(toy, monkeypatch):
    model, tokenizer = toy
    losses = {" a b": torch.tensor([0.5, 0.5]), " c": torch.tensor([0.7])}
    monkeypatch.setattr(
        editing, "token_losses", lambda model, tokenizer, probes, batch: [losses[p.completion] for p in probes]
    )
    assert preference_scores(model, tokenizer, [EditRequest("x", " a b", truth=" c")]) == {"efficacy": 1}
    assert preference_scores(model, tokenizer, [EditRequest("x", " c", truth=" c")]) == {"efficacy": 0}
