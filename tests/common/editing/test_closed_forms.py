"""ROME, MEMIT, GRACE, EWC and FT-L against what their papers' equations say, computed another way."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from common.editing.defer import Defer
from common.editing.fine_tuning import ElasticFineTuning, FineTuning
from common.editing.grace import GAP, Codebook, Grace
from common.editing.hold import answer_loss, captured, target_logits
from common.editing.layers import block, matrix, value_layer
from common.editing.memit import Memit, spread
from common.editing.own_text import ridged, second_moment
from common.editing.requests import EditRequest, batch_of, subject_end
from common.editing.rome import Rome, Search, SubjectRows, best_shift, rank_one

REQUEST = EditRequest("Ada was born in", " Rome", subject="Ada")
SECOND = EditRequest("Bo lives in", " Ulm", subject="Bo")


def random_problem(seed, inputs=6, outputs=4):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(inputs, 20, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return weight, keys, torch.randn(inputs, generator=generator, dtype=torch.float64), keys @ keys.T


def test_romes_update_solves_its_constrained_least_squares():
    weight, _, key, moment = random_problem(0)
    value = torch.arange(4.0, dtype=torch.float64)
    new = weight + rank_one(weight, torch.linalg.cholesky(moment), key, value)
    assert_close(new @ key, value)
    # Independent: the KKT system of min ‖w K - w₀ K‖² subject to w·k* = v, solved by numpy for each row.
    system = np.block([[2 * moment.numpy(), key.numpy()[:, None]], [key.numpy()[None], np.zeros((1, 1))]])
    for row, old, wanted in zip(new, weight, value, strict=True):
        right = np.concatenate([2 * (moment @ old).numpy(), [float(wanted)]])
        np.testing.assert_allclose(row.numpy(), np.linalg.solve(system, right)[:-1], rtol=1e-8)
    assert torch.linalg.matrix_rank(new - weight) == 1


def test_rome_writes_the_searched_value_at_the_key(toy):
    model, tokenizer = toy("gpt2")  # a value layer with a bias
    layer = value_layer(model, 0)
    moment = ridged(second_moment(model, tokenizer, [layer], [REQUEST.prompt, SECOND.prompt])[0], 0.1)
    rows = SubjectRows(tokenizer, REQUEST, (), "cpu")
    with torch.no_grad(), captured(model, [layer]) as found:
        target_logits(model, rows.batch)
    key, before = (rows.at_subject(states)[0] for states in found[0])
    old = matrix(layer).detach().clone()
    editor = Rome(model, tokenizer, layer=0, moment=moment, search=Search(decay=0.0, kl=0.0))
    [outcome] = editor.edit([REQUEST])
    change = matrix(layer).detach() - old
    expected = rank_one(old, torch.linalg.cholesky(moment.double()), key, old @ key + change @ key)
    assert_close(change / change.norm(), expected / change.norm())
    with torch.no_grad():
        assert_close(layer(key), before + change @ key)  # the bias is not written twice
        assert float(answer_loss(model, rows.batch)) < outcome.loss + 0.05  # as good as the shift that was searched


def test_the_search_minimises_romes_loss_as_separate_passes_compute_it(toy):
    model, tokenizer = toy("llama")
    layer, contexts = value_layer(model, 1), ("Well.", "On a long day,")
    rows = SubjectRows(tokenizer, REQUEST, contexts, "cpu")
    prompts = [REQUEST.prompt, *(f"{context} {REQUEST.prompt}" for context in contexts)]
    essence = batch_of(tokenizer, [("Ada is a", " Rome")])
    ends = [subject_end(tokenizer, prompt, "Ada") for prompt in (*prompts, "Ada is a")]
    shift, _, _ = best_shift(model, 1, layer, layer, rows, Search(0.1, 3, kl=2.0, decay=0.7, clamp=100.0))
    _, _, loss = best_shift(model, 1, layer, layer, rows, Search(0.1, 4, kl=2.0, decay=0.7, clamp=100.0))  # at `shift`

    with torch.no_grad(), captured(model, [layer]) as found:
        before = target_logits(model, essence)[0].log_softmax(-1)
        target_logits(model, batch_of(tokenizer, [(REQUEST.prompt, REQUEST.target)]))
    size = found[0][1][0, ends[0]].norm()
    place = 0

    def add(_, __, output):
        moved = output.clone()
        moved[0, place] += shift
        return moved

    handle = layer.register_forward_hook(add)
    with torch.no_grad():
        losses = []
        for prompt, place in zip(prompts, ends, strict=False):  # noqa: B007  `add` reads it
            losses.append(answer_loss(model, batch_of(tokenizer, [(prompt, REQUEST.target)])))
        place = ends[-1]
        after = target_logits(model, essence)[0].log_softmax(-1)
    handle.remove()
    expected = torch.stack(losses).mean() + 2.0 * (before.exp() * (before - after)).sum()
    assert loss == pytest.approx(float(expected + 0.7 * shift.norm() / size**2), rel=1e-4)


def test_memits_change_satisfies_the_normal_equations_and_no_other_is_better():
    _, keys, _, moment = random_problem(1)
    wanted, residuals, strength = keys[:, :3], torch.randn(4, 3, dtype=torch.float64), 0.7
    change = spread(torch.linalg.cholesky(moment), wanted, residuals, strength)
    assert_close(change @ (strength * moment + wanted @ wanted.T), residuals @ wanted.T)

    def cost(delta):
        return ((delta @ wanted - residuals) ** 2).sum() + strength * torch.trace(delta @ moment @ delta.T)

    delta = change.clone().requires_grad_(True)
    [gradient] = torch.autograd.grad(cost(delta), [delta])
    assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)
    assert cost(change) < cost(change + 0.01 * torch.randn_like(change))


def test_memit_without_regard_for_other_keys_moves_each_subject_by_its_residual():
    _, keys, _, moment = random_problem(2)
    wanted, residuals = keys[:, :3], torch.randn(4, 3, dtype=torch.float64)
    assert_close(
        spread(torch.linalg.cholesky(moment), wanted, residuals, 1e-10) @ wanted, residuals, atol=1e-6, rtol=1e-6
    )


def test_memit_brings_the_last_block_to_what_was_searched(toy):
    model, tokenizer = toy("lfm2")
    layers = [value_layer(model, layer) for layer in (0, 1)]
    moments = [torch.eye(matrix(layer).shape[1]) for layer in layers]
    requests, search = [REQUEST, SECOND], Search(clamp=4.0, steps=5)
    editor = Memit(model, tokenizer, layers=[0, 1], moments=moments, strength=1e-6, search=search)
    edits = [SubjectRows(tokenizer, request, (), "cpu") for request in requests]
    _, before = editor._states(edits, 1)
    shifts = [best_shift(model, 1, layers[1], block(model, 1), rows, search)[0] for rows in edits]
    old = [matrix(layer).detach().clone() for layer in layers]
    editor.edit(requests)
    _, after = editor._states(edits, 1)
    # With λ near 0 the last layer takes all that the first one left, so both subjects arrive.
    assert_close(after - before, torch.stack(shifts, 1), atol=1e-3, rtol=1e-3)
    assert all((matrix(layer) - was).norm() > 1e-3 for layer, was in zip(layers, old, strict=True))


def test_mass_and_single_memit_differ_only_with_several_edits(toy):
    results = {}
    for mass in (True, False):
        for count in (1, 2):
            model, tokenizer = toy()
            moments = [torch.eye(matrix(value_layer(model, 0)).shape[1])]
            editor = Memit(
                model, tokenizer, layers=[0], moments=moments, strength=1.0, mass=mass, search=Search(steps=3)
            )
            editor.edit([REQUEST, SECOND][:count])
            results[mass, count] = matrix(value_layer(model, 0)).detach().clone()
    assert torch.equal(results[True, 1], results[False, 1])
    assert not torch.equal(results[True, 2], results[False, 2])


def book(*entries):
    made = Codebook(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 1))
    for key, label in entries:
        made, _ = made.place(torch.tensor(key), label, torch.zeros(1), 1.0)
    return made


def test_grace_opens_a_ball_for_a_far_key():
    made = book(([0.0, 0.0], (1,)), ([2.5, 0.0], (1,)))
    assert made.radii.tolist() == [1, 1] and made.labels == [(1,), (1,)]


def test_grace_grows_a_ball_for_a_near_key_of_its_label():
    made = book(([0.0, 0.0], (1,)), ([1.5, 0.0], (1,)))
    assert made.radii.tolist() == [1.5] and len(made.keys) == 1
    assert book(([0.0, 0.0], (1,)), ([0.5, 0.0], (1,))).radii.tolist() == [1]  # within already


def test_grace_splits_a_ball_for_a_near_key_of_another_label():
    made = book(([0.0, 0.0], (1,)), ([1.0, 0.0], (2,)))
    assert made.radii.tolist() == pytest.approx([0.5 - GAP, 0.5])
    distances, numbers = made.nearest(torch.tensor([[0.49, 0.0], [0.51, 0.0]]))
    assert numbers.tolist() == [0, 1] and (distances <= made.radii[numbers]).all()
    # two labels whose token means agree are told apart
    assert len(book(([0.0, 0.0], (1, 3)), ([1.0, 0.0], (2, 2))).labels) == 2


def test_grace_writes_an_edit_of_an_edit_in_the_place_of_the_first():
    made, number = book(([0.0, 0.0], (1,)), ([2.5, 0.0], (3,))).place(
        torch.tensor([2.5, 0.0]), (2,), torch.full((1,), 7.0), 1.0
    )
    assert (made.labels, made.radii.tolist(), made.values.flatten().tolist(), number) == (
        [(1,), (2,)],
        [1, 1],
        [0, 7],
        1,
    )


def test_grace_answers_inside_its_ball_alone_and_leaves_the_rest_bit_for_bit(toy):
    model, tokenizer = toy()
    pairs = [(SECOND.prompt, SECOND.target), (REQUEST.prompt, REQUEST.target)]
    with torch.no_grad():
        before = target_logits(model, batch_of(tokenizer, pairs))
    editor = Grace(model, tokenizer, layer=1, radius=1e-3, steps=20)
    editor.edit([REQUEST])
    rows = batch_of(tokenizer, pairs)
    with torch.no_grad():
        after = target_logits(model, rows)
    here = rows.sizes[0]
    assert torch.equal(after[:here], before[:here]) and not torch.equal(after[here:], before[here:])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_defer_hands_over_where_its_gate_is_open_and_nowhere_else(family, toy):
    model, tokenizer = toy(family)
    layer = value_layer(model, 1)
    rows = batch_of(tokenizer, [(REQUEST.prompt, REQUEST.target)])
    with torch.no_grad():
        before = target_logits(model, rows)
    editor = Defer(model, tokenizer, layer=1)
    editor.edited = True
    results = {}
    for bias in (-100.0, 100.0):
        with torch.no_grad(), captured(model, [layer]) as found:
            editor.gate.bias.fill_(bias)
            results[bias] = target_logits(model, rows)
    inputs, output = found[0]
    assert torch.equal(results[-100.0], before)
    query = inputs[0, rows.prompt[0] - 1]
    values = editor.values.weight @ query + editor.values.bias
    assert_close(output[0], values.expand_as(output[0]))  # every token of the text


def test_training_defer_lowers_the_loss_of_its_mixture(toy):
    losses = []
    for steps in (1, 30):
        model, tokenizer = toy()
        [outcome] = Defer(model, tokenizer, layer=1, lr=1e-2, steps=steps).edit([REQUEST])
        losses.append(outcome.loss)
    assert losses[1] < losses[0] - 1


def test_ewcs_penalty_is_the_fisher_weighted_distance(toy):
    model, tokenizer = toy()
    editor = ElasticFineTuning(model, tokenizer, layer=1, weight=0.3, steps=3, memory=2, lr=1e-2)
    editor.edit([REQUEST, SECOND])
    weight = value_layer(model, 1).weight
    total = torch.zeros_like(weight)
    for request in (REQUEST, SECOND):
        batch = batch_of(tokenizer, [(request.prompt, request.target)])
        weight.requires_grad_(True)
        log_probs = target_logits(model, batch).log_softmax(-1)
        (-log_probs[torch.arange(len(batch.targets)), batch.targets].mean()).backward()
        total += weight.grad**2
        weight.grad = None
    weight.requires_grad_(False)
    fisher = editor.fisher_of(editor.past)
    assert_close(fisher, total / 2)
    editor.fisher, editor.anchor = fisher, weight.detach() - 0.1
    assert_close(editor.penalty(), 0.3 * 0.01 * (total / 2).sum())


def test_a_strong_penalty_holds_the_weights_that_the_last_edit_needed(toy):
    moved = {}
    for strength in (0.0, 1e6):
        model, tokenizer = toy()
        editor = ElasticFineTuning(model, tokenizer, layer=1, weight=strength, steps=5, lr=1e-3)
        editor.edit([REQUEST])
        fisher = editor.fisher_of(editor.past)
        before = editor.weight.clone()
        editor.edit([SECOND])
        moved[strength] = float((fisher * (editor.weight - before) ** 2).sum())
    assert moved[1e6] < 0.5 * moved[0.0], moved


def test_ft_l_keeps_every_weight_in_its_ball_and_stops_at_its_loss(toy):
    model, tokenizer = toy()
    before = value_layer(model, 1).weight.detach().clone()
    editor = FineTuning(model, tokenizer, layer=1, lr=0.1, steps=10, radius=0.02)
    editor.edit([REQUEST])
    moved = (value_layer(model, 1).weight - before).abs()
    assert_close(moved.max(), torch.tensor(0.02), rtol=1e-4, atol=0)
    editor.rollback()
    [outcome] = FineTuning(model, tokenizer, layer=1, stop=100.0).edit([REQUEST])
    assert outcome.steps == 0


def test_key_statistics_against_a_loop_over_tokens(toy):
    model, tokenizer = toy()
    layer, texts = value_layer(model, 0), ["Ada met Bo.", "Ulm"]
    [moment] = second_moment(model, tokenizer, [layer], texts, batch=2)
    total, count = 0, 0
    for text in texts:  # alone, without padding
        with torch.no_grad(), captured(model, [layer]) as found:
            model(torch.tensor([tokenizer(text).input_ids]))
        for key in found[0][0][0]:
            total, count = total + torch.outer(key, key), count + 1
    assert_close(moment, total / count)


@pytest.mark.parametrize(
    ("prompt", "subject"), [("Ada met Ada Lovelace", "Ada"), ("Is Ada", "Ada"), ("Ünal sang", "Ünal")]
)
def test_the_subject_ends_at_its_last_token(prompt, subject, toy):
    _, tokenizer = toy()
    ids = tokenizer(prompt).input_ids
    end = subject_end(tokenizer, prompt, subject)
    assert tokenizer.decode(ids[: end + 1]).endswith(subject)
