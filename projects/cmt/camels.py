"""CaMeLS (Hu et al., EMNLP 2023; arXiv:2305.15076): a weight for each token of a document, learned through the step of
the language model that learns from the document.

Facts that the paper leaves open are those of its code, `nathanhu0/CaMeLS`. Shapes: B texts, T tokens, V words.
"""

import copy
import random
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, gelu, kl_div, softplus

from common.models.frozen import FrozenLM
from common.training.preemption import heeding
from common.training.resumable import Resumable
from common.training.supervised import Batch, Example, Optimization, collate
from projects.cmt.data import Document, Draw
from projects.cmt.prompts import Prompting
from projects.cmt.settings import Camels

Parameters = Mapping[str, Tensor]  # of a language model, by name
INNER = 128  # width of the head
BETA = 3.0  # of softplus


class TokenWeights(nn.Module):
    """w_t >= 0 of each token: a small language model with a head on its states.

        w = softplus_β(W_2 gelu(W_1 h + b_1) + b_2)

    Args:
        body: a decoder without output layer, of transformers; trained with the head, so give it a copy.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.up, self.down = nn.Linear(body.config.hidden_size, INNER), nn.Linear(INNER, 1)
        nn.init.zeros_(self.down.weight)  # all weights are equal at first, log 2 / β
        nn.init.zeros_(self.down.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] of ids [B, T], without padding; a token's weight is a function of it and those before."""
        states = self.body(input_ids=ids, use_cache=False).last_hidden_state
        return softplus(self.down(gelu(self.up(states)))[..., 0], beta=BETA)


def differentiable(lm: FrozenLM) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of the model in float32 that can be differentiated twice, and its parameters θ."""
    model = copy.deepcopy(lm.model).float()
    model.set_attn_implementation("eager")  # fused attention has no second derivative
    return model, {name: value.detach().requires_grad_(True) for name, value in model.named_parameters()}


def logits_of(model: nn.Module, theta: Parameters, ids: Tensor) -> Tensor:
    """Next-token logits under θ, [B, T, V]."""
    logits: Tensor = functional_call(model, dict(theta), kwargs={"input_ids": ids, "use_cache": False}).logits
    return logits


def weighted_step(model: nn.Module, theta: Parameters, ids: Tensor, weights: Tensor, lr: float) -> dict[str, Tensor]:
    """One step of SGD on a document, through which gradients reach the weights.

        θ' = θ - α ∇_θ mean_t w_t · -log p_θ(x_t | x_<t)

    Args:
        ids, weights: [1, T]; the first token is no target.
    """
    losses = cross_entropy(logits_of(model, theta, ids)[0, :-1], ids[0, 1:], reduction="none")
    gradients = torch.autograd.grad((weights[0, 1:] * losses).mean(), list(theta.values()), create_graph=True)
    return {name: value - lr * gradient for (name, value), gradient in zip(theta.items(), gradients, strict=True)}


@dataclass(frozen=True)
class Lesson:
    """What is learned, asked and kept in a part of an episode.

    Attributes:
        documents: ids, [1, T_i] each, in order.
        questions: about them with their answers, whose tokens have a weight.
        other: a question about none of the documents with its answer, [1, T].
    """

    documents: Sequence[Tensor]
    questions: Batch
    other: Tensor


def outer_loss(
    weigh: TokenWeights, model: nn.Module, theta: Parameters, lesson: Lesson, lr: float, locality: float
) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """What the weights are trained to lower, and the parameters after the lesson, and figures; L is a scalar.

        L = -log p_θ'(answers | questions) + c KL(p_θ ‖ p_θ') on another question

    Args:
        theta: before the lesson; θ' after a `weighted_step` on each document in turn. locality: c.
    """
    after: Parameters = theta
    for ids in lesson.documents:
        after = weighted_step(model, after, ids, weigh(ids), lr)
    questions = lesson.questions
    targets = questions.weights[:, 1:] > 0
    asked = cross_entropy(logits_of(model, after, questions.ids)[:, :-1][targets], questions.ids[:, 1:][targets])
    with torch.no_grad():
        before = logits_of(model, theta, lesson.other)[0].log_softmax(-1)
    changed = logits_of(model, after, lesson.other)[0].log_softmax(-1)
    moved = kl_div(changed, before, reduction="batchmean", log_target=True)
    return asked + locality * moved, dict(after), {"answer": asked.item(), "moved": moved.item()}


def episode(
    weigh: TokenWeights,
    model: nn.Module,
    theta: Parameters,
    lessons: Sequence[Lesson],
    lr: float,
    locality: float,
) -> dict[str, float]:
    """Gradients of the weights over lessons that follow each other; they do not reach from one into the one before.

    Returns the means of figures.
    """
    found = []
    for lesson in lessons:
        loss, after, figures = outer_loss(weigh, model, theta, lesson, lr, locality)
        torch.autograd.backward(loss / len(lessons), inputs=[p for p in weigh.parameters() if p.requires_grad])
        theta = {name: value.detach().requires_grad_(True) for name, value in after.items()}
        found.append(figures)
    return {name: statistics.fmean(one[name] for one in found) for name in found[0]}


# --- meta-training ------------------------------------------------------------------------------------------------

FILE = "model.safetensors"


def fresh(lm: FrozenLM) -> TokenWeights:
    """Weights whose body is a copy of the language model's own."""
    return TokenWeights(copy.deepcopy(lm.model.base_model).float().requires_grad_(True)).to(lm.device)


@heeding()
def meta_train(
    weigh: TokenWeights,
    lm: FrozenLM,
    options: Camels,
    lessons: Callable[[int], Sequence[Lesson]],
    folder: Path,
    log: Callable[..., None],
) -> None:
    """Train the weights in place, an episode a step, into `folder`; goes on from the checkpoint there.

    Args:
        lm: each episode begins with its weights. lessons: of a step.
        log: takes a step and figures by name.
    """
    model, theta = differentiable(lm)
    optimization = Optimization(options.lr, options.warmup, options.decay)
    optimizer = torch.optim.Adam(weigh.parameters(), lr=options.lr)
    state = Resumable(folder / "checkpoint", {"weigh": weigh, "optimizer": optimizer}, asdict(options))
    for step in range(state.done, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = optimization.lr_at(step, options.steps)
        optimizer.zero_grad(set_to_none=True)
        figures = episode(weigh, model, theta, lessons(step), options.inner_lr, options.locality)
        nn.utils.clip_grad_norm_(weigh.parameters(), options.clip)
        optimizer.step()
        if (step + 1) % 10 == 0 or step + 1 == options.steps:
            log(step + 1, **{f"camels_{name}": value for name, value in figures.items()})
        state.after(step + 1, last=step + 1 == options.steps)
    save_file({name: value.detach().contiguous() for name, value in weigh.named_parameters()}, folder / FILE)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def load(weigh: TokenWeights, folder: Path) -> None:
    """Parameters that `meta_train` wrote."""
    stored = load_file(folder / FILE)
    with torch.no_grad():
        for name, parameter in weigh.named_parameters():
            parameter.copy_(stored[name])


def draw_lessons(
    rng: random.Random, draw: Draw, prompting: Prompting, options: Camels, tokens: int, questions: int, device: Any
) -> list[Lesson]:
    """The lessons of an episode, all of whose documents differ.

    Args:
        tokens: a document keeps its first. questions: most about a document.
    """
    drawn = iter(draw(rng, options.lessons * (options.documents + 1)))
    lessons = []
    for _ in range(options.lessons):
        documents = [next(drawn) for _ in range(options.documents)]
        texts = [torch.tensor([prompting.whole(one.text, tokens)], device=device) for one in documents]
        asked, other = asking(rng, prompting, documents, questions), asking(rng, prompting, [next(drawn)], 1)
        lessons.append(Lesson(texts, asked.to(device), other.ids.to(device)))
    return lessons


def asking(rng: random.Random, prompting: Prompting, documents: Sequence[Document], questions: int) -> Batch:
    """Questions without a text, and their answers, whose tokens weigh 1."""
    examples = []
    for document in documents:
        for question in rng.sample(document.questions, min(questions, len(document.questions))):
            prompt, answer = prompting.closed(question.text), prompting.answer(question.target)
            weights = [0.0] * len(prompt) + [1.0] * len(answer)
            examples.append(Example(np.array([*prompt, *answer], np.int64), np.array(weights, np.float32)))
    return collate(examples, 0, sum(len(example.ids) for example in examples) ** 2)[0]
