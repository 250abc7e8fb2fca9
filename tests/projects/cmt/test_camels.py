"""Token weights: the gradient through the step against differences of the loss, the step against SGD, what is kept."""

import copy
import random

import pytest
import torch
from torch.testing import assert_close

from common.models.frozen import FrozenLM
from common.training import resumable
from common.training.preemption import Preempted
from common.training.supervised import Batch
from projects.cmt import camels
from projects.cmt.baselines import meta_learned, uniform
from projects.cmt.data import Document, Question
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Camels

pytestmark = pytest.mark.usefixtures("one_thread")
DOCUMENTS = [torch.tensor([[9, 40, 41, 42, 43, 2]]), torch.tensor([[50, 51, 52, 2]])]
QUESTIONS = Batch(
    torch.tensor([[9, 60, 42, 43], [61, 51, 52, 0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
)
LESSON = camels.Lesson(DOCUMENTS, QUESTIONS, torch.tensor([[70, 71, 72, 73]]))


def made(toy, family="llama", dtype=torch.float64):
    """Weights that differ among tokens, and a model and its parameters."""
    torch.manual_seed(0)
    lm = FrozenLM(*toy(family))
    weigh = camels.fresh(lm).to(dtype)
    with torch.no_grad():
        weigh.down.weight.normal_(std=0.3)
    model, theta = camels.differentiable(lm)
    theta = {name: value.detach().to(dtype).requires_grad_(True) for name, value in theta.items()}
    return weigh, model.to(dtype), theta


@pytest.mark.parametrize(("family", "far", "near"), [("gpt2", 1e-5, 1e-5), ("lfm2", 1e-3, 2e-2)])
def test_the_gradient_through_two_steps_is_the_slope_of_the_loss(toy, family, far, near):
    """Differences over `far` in float64; LFM2's norms and softmax compute in float32 whatever their input."""
    weigh, model, theta = made(toy, family)
    parameters = list(weigh.parameters())

    def loss():
        return camels.outer_loss(weigh, model, theta, LESSON, lr=0.1, locality=0.7)[0]

    gradients = torch.autograd.grad(loss(), parameters)
    for part in (parameters[:-4], parameters[-4:]):  # body, head
        along = [torch.randn_like(p) if any(p is q for q in part) else torch.zeros_like(p) for p in parameters]
        size = sum(float((a**2).sum()) for a in along) ** 0.5
        slope = sum(float((g * a).sum()) for g, a in zip(gradients, along, strict=True)) / size
        values = []
        for step in (far, -2 * far, far):
            with torch.no_grad():
                for parameter, a in zip(parameters, along, strict=True):
                    parameter += step / size * a
            values.append(loss().item())
        assert abs(slope) > 1e-4
        assert (values[0] - values[1]) / (2 * far) == pytest.approx(slope, rel=near)


def test_a_step_of_equal_weights_is_that_of_sgd_on_the_models_own_loss(toy):
    _, model, theta = made(toy, dtype=torch.float32)
    ids = DOCUMENTS[0]
    found = camels.weighted_step(model, theta, ids, torch.full(ids.shape, 2.0), lr=0.25)
    plain, _ = toy("llama")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    plain(ids, labels=ids).loss.backward()
    optimizer.step()
    for name, parameter in plain.named_parameters():
        assert_close(found[name], parameter, rtol=1e-4, atol=1e-5)


def test_a_weight_is_of_the_token_that_is_predicted(toy):
    _, model, theta = made(toy, dtype=torch.float32)
    ids = DOCUMENTS[0]
    found = camels.weighted_step(model, theta, ids, torch.tensor([[9.0, 0, 0, 4.0, 0, 0]]), lr=0.25)
    plain, _ = toy("llama")
    plain(ids, labels=ids.where(torch.arange(6) == 3, -100)).loss.backward()
    for name, parameter in plain.named_parameters():
        assert_close(found[name], parameter - 0.25 * 4 / 5 * parameter.grad, rtol=1e-4, atol=1e-5)


def test_without_a_step_the_loss_is_that_of_the_questions_and_nothing_has_moved(toy):
    weigh, model, theta = made(toy, dtype=torch.float32)
    loss, after, figures = camels.outer_loss(weigh, model, theta, LESSON, lr=0.0, locality=1.0)
    plain, _ = toy("llama")
    labels = QUESTIONS.ids.where(QUESTIONS.weights > 0, -100)
    assert_close(loss, plain(QUESTIONS.ids, labels=labels).loss, rtol=1e-4, atol=1e-5)
    assert figures["moved"] == pytest.approx(0, abs=1e-6)
    _, after, figures = camels.outer_loss(weigh, model, theta, LESSON, lr=0.3, locality=1.0)
    with torch.no_grad():
        before, changed = (camels.logits_of(model, p, LESSON.other)[0].log_softmax(-1) for p in (theta, after))
    assert figures["moved"] == pytest.approx(float((before.exp() * (before - changed)).sum(-1).mean()), rel=1e-4)


def test_weights_are_equal_at_first_never_negative_and_of_what_stands_before(toy):
    lm = FrozenLM(*toy("lfm2"))
    weigh = camels.fresh(lm)
    assert_close(weigh(DOCUMENTS[0]), torch.full((1, 6), 2.0).log() / 3)
    weigh, _, _ = made(toy, "lfm2", torch.float32)
    whole = weigh(DOCUMENTS[0]).detach()
    assert float(whole.min()) >= 0 and float(whole.std()) > 1e-2
    assert_close(weigh(DOCUMENTS[0][:, :4]), whole[:, :4], rtol=1e-4, atol=1e-5)
    assert all(not p.requires_grad for p in lm.model.parameters())
    document = Document("", ())
    assert_close(meta_learned(weigh)(document, DOCUMENTS[0]), whole / 5)
    assert float(uniform(document, DOCUMENTS[0])[:, 1:].sum()) == pytest.approx(1)


def test_lessons_follow_each_other_and_training_lowers_what_they_ask(toy):
    weigh, model, theta = made(toy, dtype=torch.float32)
    two = camels.episode(weigh, model, theta, [LESSON, LESSON], 0.1, 0.0)
    first = camels.outer_loss(weigh, model, theta, LESSON, 0.1, 0.0)
    second = camels.outer_loss(weigh, model, first[1], LESSON, 0.1, 0.0)
    assert two["answer"] == pytest.approx((first[0].item() + second[0].item()) / 2, rel=1e-4)
    assert second[0].item() != pytest.approx(first[0].item(), rel=1e-3)
    optimizer = torch.optim.Adam(weigh.parameters(), lr=1e-3)
    values = []
    for _ in range(15):
        optimizer.zero_grad()
        values.append(camels.episode(weigh, model, theta, [LESSON], 0.1, 0.0)["answer"])
        optimizer.step()
    assert values[-1] < values[0]


def test_meta_training_stopped_after_each_episode_equals_the_uninterrupted_one(toy, tmp_path, monkeypatch):
    lm = FrozenLM(*toy("lfm2"))
    fresh, options, logged = camels.fresh(lm), Camels(steps=2, lr=1e-2), []

    def train(folder):
        weigh = copy.deepcopy(fresh)
        camels.meta_train(weigh, lm, options, lambda step: [LESSON], folder, lambda step, **f: logged.append((step, f)))
        other = copy.deepcopy(fresh)
        camels.load(other, folder)
        assert all(torch.equal(a, b) for a, b in zip(weigh.parameters(), other.parameters(), strict=True))
        return weigh

    whole = train(tmp_path / "whole")
    assert logged[-1][0] == 2 and set(logged[-1][1]) == {"camels_answer", "camels_moved"}
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), fresh.parameters(), strict=True))
    monkeypatch.setattr(resumable, "requested", lambda: True)
    for _ in range(options.steps):
        with pytest.raises(Preempted):
            train(tmp_path / "stopped")
    stopped = train(tmp_path / "stopped")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), stopped.parameters(), strict=True))
    lm.check()


def test_the_rate_of_meta_training_warms_up_and_its_gradients_are_clipped(toy, tmp_path):
    lm = FrozenLM(*toy("lfm2"))
    fresh = camels.fresh(lm)

    def largest_step(name, **options):
        weigh = copy.deepcopy(fresh)
        options = Camels(steps=1, lr=1e-2, **options)
        camels.meta_train(weigh, lm, options, lambda step: [LESSON], tmp_path / name, lambda *a, **k: None)
        pairs = zip(weigh.parameters(), fresh.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    assert largest_step("whole", warmup=0) == pytest.approx(1e-2, rel=1e-3)  # the first step of Adam is its rate
    assert largest_step("warming", warmup=4) == pytest.approx(1e-2 / 4, rel=1e-3)
    assert largest_step("clipped", warmup=0, clip=0.0) == 0


def test_lessons_are_of_different_documents_with_their_own_questions(toy):
    _, tokenizer = toy("llama")
    prompting = Prompting(tokenizer, "plain")
    options = Camels(documents=2, lessons=2)
    pool = [Document(f"text {i}", tuple(Question(f"q{i}{j}", (f"a{i}",)) for j in range(3))) for i in range(9)]

    def draw(rng, count):
        return rng.sample(pool, count)

    lessons = camels.draw_lessons(random.Random(0), draw, prompting, options, 99, 2, "cpu")
    texts = [tokenizer.decode(ids[0], skip_special_tokens=True) for one in lessons for ids in one.documents]
    others = [tokenizer.decode(one.other[0]) for one in lessons]  # q, document, number, its answer
    assert all(other == f"q{other[1]}{other[2]} a{other[1]}<|end|>" for other in others)
    assert len({*(text[-1] for text in texts), *(other[1] for other in others)}) == 6
    for lesson in lessons:
        own = {tokenizer.decode(ids[0], skip_special_tokens=True)[-1] for ids in lesson.documents}
        rows = [tokenizer.decode(row, skip_special_tokens=True) for row in lesson.questions.ids]
        assert len(rows) == 4 and {row[1] for row in rows} == own
        answers = [
            tokenizer.decode(r[w > 0]) for r, w in zip(lesson.questions.ids, lesson.questions.weights, strict=True)
        ]
        assert all(answer == f" a{row[1]}<|end|>" for answer, row in zip(answers, rows, strict=True))
