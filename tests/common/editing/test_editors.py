"""Every editor on every architecture: it edits, touches nothing else, saves, loads, and gives the model back."""

from functools import partial

import pytest
import torch

from common.editing import memit
from common.editing.defer import Defer
from common.editing.editor import load, save
from common.editing.fine_tuning import ElasticFineTuning, FineTuning
from common.editing.grace import Grace
from common.editing.hold import answer_loss, below_once, target_logits, weights_hash
from common.editing.layers import FEED_FORWARD, block, matrix, value_layer
from common.editing.memit import Memit
from common.editing.own_text import own_texts, ridged, second_moment
from common.editing.requests import EditRequest, batch_of
from common.editing.rome import Rome, Search
from common.experiments.errors import UserError

REQUEST = EditRequest("Ada was born in", " Rome", subject="Ada")
SECOND = EditRequest("Bo lives in", " Ulm", subject="Bo")
TEXTS = ["Ada met Bo in Rome.", "The capital of France is Paris, and Bo lives there.", "Ulm lies far from Rome."]


def moment(model, tokenizer, layer):
    return ridged(second_moment(model, tokenizer, [value_layer(model, layer)], TEXTS)[0], 0.1)


def open_defer(model, tokenizer):
    """DEFER with an open gate: it trains a mixture, and may else stay below the half at which its gate hands over."""
    editor = Defer(model, tokenizer, layer=1, lr=5e-2, steps=10)
    with torch.no_grad():
        editor.gate.bias.fill_(20.0)
    return editor


SEARCH = Search(steps=8)
EDITORS = {
    "ft_l": lambda m, t: FineTuning(m, t, layer=1, lr=5e-2, steps=10),
    "ft_ewc": lambda m, t: ElasticFineTuning(m, t, layer=1, lr=5e-2, steps=10),
    "rome": lambda m, t: Rome(m, t, layer=0, moment=moment(m, t, 0), contexts=("Yes.",)),
    # Not the last block: what is written at the subject there reaches no later token.
    "memit": lambda m, t: Memit(m, t, layers=[0], moments=[moment(m, t, 0)], strength=0.1, search=SEARCH),
    "grace": lambda m, t: Grace(m, t, layer=1, steps=10),
    "defer": open_defer,
}


def loss(model, tokenizer, request):
    with torch.no_grad():
        return float(answer_loss(model, batch_of(tokenizer, [(request.prompt, request.target)])))


def probe(model, tokenizer):
    with torch.no_grad():
        return target_logits(model, batch_of(tokenizer, [(REQUEST.prompt, REQUEST.target), ("Far away", " Ulm")]))


@pytest.mark.parametrize("family", sorted(FEED_FORWARD))
@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_takes_survives_saving_and_is_rolled_back(name, family, toy, tmp_path):
    model, tokenizer = toy(family)
    before, plain, base = loss(model, tokenizer, REQUEST), probe(model, tokenizer), weights_hash(model)
    editor = EDITORS[name](model, tokenizer)
    [outcome] = editor.edit([REQUEST])
    assert not outcome.failed and outcome.seconds > 0
    after, edited = loss(model, tokenizer, REQUEST), probe(model, tokenizer)
    assert after < before - 0.1, (before, after)
    editor.hold.check()
    save(editor, tmp_path / "edits.safetensors")
    editor.rollback()
    assert weights_hash(model) == base
    assert torch.equal(probe(model, tokenizer), plain)
    again = EDITORS[name](model, tokenizer)
    load(again, tmp_path / "edits.safetensors")
    assert torch.equal(probe(model, tokenizer), edited)
    again.rollback()


def test_defer_loads_the_gate_as_well_as_the_values(toy, tmp_path):
    model, tokenizer = toy()
    answer = len(tokenizer(REQUEST.target).input_ids)
    plain = probe(model, tokenizer)
    editor = Defer(model, tokenizer, layer=1, lr=5e-2, steps=5)
    editor.edit([REQUEST])
    edited = probe(model, tokenizer)
    assert not torch.equal(edited[:answer], plain[:answer]) and torch.equal(edited[answer:], plain[answer:])
    save(editor, tmp_path / "edits.safetensors")
    editor.rollback()
    again = Defer(model, tokenizer, layer=1, seed=1)  # another gate, other values
    load(again, tmp_path / "edits.safetensors")
    assert torch.equal(probe(model, tokenizer), edited)
    again.rollback()


@pytest.mark.parametrize("name", EDITORS)
def test_a_loss_that_is_no_number_stops_that_edit_alone(name, toy, monkeypatch):
    model, tokenizer = toy()
    editor = EDITORS[name](model, tokenizer)
    editor.edit([REQUEST])
    edited, state = probe(model, tokenizer), editor.state()
    import common.editing.fine_tuning as descent

    real, calls = descent.finite, []

    def broken(value):
        calls.append(value)
        return real(value * float("nan") if len(calls) == 3 else value)

    monkeypatch.setattr(descent, "finite", broken)
    first, second = editor.edit([SECOND])[0], None
    assert "nan" in first.failed
    assert torch.equal(probe(model, tokenizer), edited)
    assert all(torch.equal(tensor, editor.state()[key]) for key, tensor in state.items())
    [second] = editor.edit([SECOND])
    assert not second.failed
    editor.rollback()


def test_two_editors_on_one_model_refuse(toy):
    model, tokenizer = toy()
    first = FineTuning(model, tokenizer, layer=1)
    with pytest.raises(UserError, match="GRACE: the model is being edited by FT-L"):
        Grace(model, tokenizer, layer=0)
    first.rollback()
    Grace(model, tokenizer, layer=0).rollback()


def test_the_hold_sees_a_change_of_weights_that_the_editor_does_not_own(toy):
    model, tokenizer = toy()
    editor = FineTuning(model, tokenizer, layer=1)
    with torch.no_grad():
        value_layer(model, 1).weight[0, 0] += 1
    editor.hold.check()  # its own
    with torch.no_grad():
        value_layer(model, 0).weight[0, 0] += 1
    with pytest.raises(RuntimeError, match="does not own"):
        editor.hold.check()


@pytest.mark.parametrize("name", EDITORS)
def test_a_fact_that_is_edited_again_gives_its_latest_target(name, toy):
    model, tokenizer = toy()
    again = EditRequest(REQUEST.prompt, "Xi", subject="Ada")  # another first byte: GRACE writes at the prompt alone
    made = EDITORS[name] if name != "grace" else partial(Grace, layer=1, steps=60)  # from the first edit's value
    editor = made(model, tokenizer)
    editor.edit([REQUEST])
    before = loss(model, tokenizer, again)
    editor.edit([again])
    assert loss(model, tokenizer, again) < before - 0.1
    editor.rollback()


def test_one_request_of_many_that_leads_nowhere_is_left_out_of_a_mass_edit(toy, monkeypatch):
    model, tokenizer = toy()
    mass = {"layers": [0], "moments": [moment(model, tokenizer, 0)], "strength": 0.1, "search": SEARCH, "mass": True}
    editor = Memit(model, tokenizer, **mass)
    [alone] = editor.edit([REQUEST])
    written = {name: tensor.clone() for name, tensor in editor.state().items()}
    editor.rollback()
    real, rows_of_second = memit.best_shift, batch_of(tokenizer, [(SECOND.prompt, SECOND.target)]).ids

    def broken(model, number, layer, scale, rows, search):
        if torch.equal(rows.batch.ids, rows_of_second):
            raise FloatingPointError("the loss is nan")
        return real(model, number, layer, scale, rows, search)

    monkeypatch.setattr(memit, "best_shift", broken)
    editor = Memit(model, tokenizer, **mass)
    first, second = editor.edit([REQUEST, SECOND])
    assert not first.failed and first.loss == alone.loss and "nan" in second.failed
    assert all(torch.equal(tensor, written[name]) for name, tensor in editor.state().items())
    assert all(outcome.failed for outcome in editor.edit([SECOND]))
    editor.rollback()


def test_edits_of_another_layer_editor_or_model_are_refused(toy, tmp_path):
    model, tokenizer = toy()
    editor = Grace(model, tokenizer, layer=1, steps=2)
    editor.edit([REQUEST])
    save(editor, tmp_path / "edits.safetensors")
    editor.rollback()

    def refused(editor):
        with pytest.raises(ValueError, match="other weights, by another editor or on other layers"):
            load(editor, tmp_path / "edits.safetensors")
        editor.rollback()

    refused(Grace(model, tokenizer, layer=0))
    refused(Defer(model, tokenizer, layer=1))
    with torch.no_grad():
        value_layer(model, 0).weight[0, 0] += 1
    refused(Grace(model, tokenizer, layer=1))


def test_a_bare_call_is_refused_while_a_memory_answers(toy):
    model, tokenizer = toy()
    editor = Grace(model, tokenizer, layer=1)
    with pytest.raises(RuntimeError, match="target_logits"):
        model(torch.tensor([[1, 2]]))
    editor.rollback()
    model(torch.tensor([[1, 2]]))


def test_no_edits_change_nothing_and_contradictory_ones_are_refused(toy):
    model, tokenizer = toy()
    base = weights_hash(model)
    editor = FineTuning(model, tokenizer, layer=1)
    assert editor.edit([]) == []
    with pytest.raises(UserError, match="contradictory"):
        editor.edit([REQUEST, EditRequest(REQUEST.prompt, " Ulm")])
    with pytest.raises(UserError, match="no target"):
        editor.edit([EditRequest("Ada", "")])
    assert weights_hash(model) == base


def test_a_layer_or_a_family_that_is_not_there_is_named(toy):
    model, tokenizer = toy()
    with pytest.raises(UserError, match="layers 0 to 1"):
        FineTuning(model, tokenizer, layer=2)
    model.config.model_type = "bert"
    with pytest.raises(UserError, match="architecture 'bert'"):
        FineTuning(model, tokenizer, layer=0)


def test_rome_needs_its_subject_in_the_prompt(toy):
    model, tokenizer = toy()
    editor = EDITORS["rome"](model, tokenizer)
    with pytest.raises(UserError, match="subject 'Cy' is not in the prompt"):
        editor.edit([EditRequest("Ada was born in", " Rome", subject="Cy")])


@pytest.mark.parametrize("family", sorted(FEED_FORWARD))
def test_the_value_matrix_maps_the_inputs_of_its_layer_to_its_outputs(family, toy):
    model, _ = toy(family)
    layer = value_layer(model, 1)
    given = torch.randn(3, matrix(layer).shape[1])
    bias = 0 if getattr(layer, "bias", None) is None else layer.bias
    torch.testing.assert_close(layer(given), given @ matrix(layer).T + bias)


def test_own_text_is_the_same_for_a_seed_and_begins_with_its_opening(toy):
    model, tokenizer = toy()
    texts = own_texts(model, tokenizer, ("I", "You"), 3, 5, seed=1)
    assert texts == own_texts(model, tokenizer, ("I", "You"), 3, 5, seed=1)
    assert [text[0] for text in texts] == ["I", "Y", "I"] and len(set(texts)) == 3


@pytest.mark.parametrize("family", sorted(FEED_FORWARD))
def test_what_lies_below_the_value_layer_runs_once_and_changes_nothing(family, toy):
    model, tokenizer = toy(family)
    batch, other = (batch_of(tokenizer, [(r.prompt, r.target)]) for r in (REQUEST, SECOND))
    value, calls = value_layer(model, 1), []
    value.weight.requires_grad_(True)

    def step():
        loss = answer_loss(model, batch)
        return loss.item(), torch.autograd.grad(loss, value.weight)[0]

    plain = step()
    below = [value_layer(model, 0), next(block(model, 1).children())]  # the latter is the block's first norm
    counted = [layer.register_forward_hook(lambda *_, number=i: calls.append(number)) for i, layer in enumerate(below)]
    with below_once(model, 1):
        for _ in range(3):
            loss, gradient = step()
            assert loss == plain[0] and torch.equal(gradient, plain[1])
        assert calls == [0, 1, 1, 1]  # hooks of a part run, the part itself does not
        with torch.no_grad():
            value.weight.mul_(2)
        assert step()[0] != plain[0]
        with torch.no_grad():
            value.weight.div_(2)
        with pytest.raises(RuntimeError, match="one batch"):
            answer_loss(model, other)
    for handle in counted:
        handle.remove()
    value.weight.requires_grad_(False)
    assert answer_loss(model, batch).item() == plain[0] != answer_loss(model, other).item()
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]
