"""Supervised training of a causal language model on weighted tokens: one loop for pre-training and fine-tuning.

Data and dropout of step `i` are functions of `i`, and everything else that the next step depends on is in the
checkpoint: a run that is killed and resumed equals the uninterrupted one, to the bit on CPU. In ranks (`distributed`)
every rank takes its rows of each micro-batch, and the steps are those of one process but for rounding and dropout.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.files import replacing
from common.training.distributed import accumulating, any_rank, as_held, mean, rank, ranks, spread, whole
from common.training.muon import Muon
from common.training.preemption import CHECKPOINT, Preempted, heeding, requested


@dataclass(frozen=True)
class Example:
    """One sequence: token ids and the weight of each as a target (0: context only), [T] each.

    Raises:
        ValueError: they are not one row each, of one length.
    """

    ids: NDArray[np.integer[Any]]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.ids.shape != self.weights.shape or self.ids.ndim != 1:
            raise ValueError(f"ids {self.ids.shape} and weights {self.weights.shape} must be one row of one length")


@dataclass(frozen=True)
class Batch:
    """Sequences: ids and target weights, [B, T] each; padding is token 0, has weight 0 and follows all tokens."""

    ids: Tensor
    weights: Tensor

    def to(self, device: str) -> "Batch":
        return Batch(self.ids.to(device, non_blocking=True), self.weights.to(device, non_blocking=True))

    def share(self, rank: int, ranks: int) -> "Batch":
        """The rows of one rank; where there are none, one row without weight, so that every rank takes part."""
        if rank < len(self.ids):
            return Batch(self.ids[rank::ranks], self.weights[rank::ranks])
        return Batch(self.ids[:1], torch.zeros_like(self.weights[:1]))


@dataclass(frozen=True)
class Optimization:
    """AdamW or Muon: linear warm-up, a constant stretch, linear decay to zero over the last `decay` of the steps.

    Attributes:
        lr: peak learning rate.
        warmup: steps.
        decay: share of the steps, in [0, 1].
        clip: largest gradient norm.
        muon: Muon for the matrices inside the network, AdamW for the rest.
    """

    lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.4
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0
    muon: bool = False

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`, counted from 0; positive throughout."""
        up = (step + 1) / max(1, self.warmup)
        down = (steps - step) / max(1.0, self.decay * steps)
        return self.lr * min(1.0, up, down)


class StepData(Protocol):
    """Micro-batches of each step."""

    def step(self, index: int) -> list[Batch]: ...

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]: ...


def collate(examples: Sequence[Example], pad: int, micro_tokens: int) -> list[Batch]:
    """Micro-batches of similar length, each of at most `micro_tokens` tokens with padding (or one sequence)."""
    groups = of_similar_length([len(example.ids) for example in examples], micro_tokens)
    return [_stack([examples[i] for i in group], pad) for group in groups]


def of_similar_length(lengths: Sequence[int] | NDArray[np.integer[Any]], micro_tokens: int) -> list[list[int]]:
    """Sequences by rising length, in groups of at most `micro_tokens` tokens with padding (or one sequence)."""
    groups: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable").tolist():
        if groups and (len(groups[-1]) + 1) * lengths[i] <= micro_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _stack(group: Sequence[Example], pad: int) -> Batch:
    width = max(len(example.ids) for example in group)
    ids = np.full((len(group), width), pad, dtype=np.int64)
    weights = np.zeros((len(group), width), dtype=np.float32)
    for row, example in enumerate(group):
        ids[row, : len(example.ids)] = example.ids
        weights[row, : len(example.ids)] = example.weights
    return Batch(torch.from_numpy(ids), torch.from_numpy(weights))


def weighted_loss(model: Any, batch: Batch) -> Tensor:
    """Sum over targets of weight x cross-entropy, in nats; the caller divides by the sum of weights.

    The output layer runs at the positions that predict a weighted token only: most of a prompt costs no logits.
    """
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    targets = batch.weights[:, 1:] > 0
    logits = model.get_output_embeddings()(hidden[:, :-1][targets]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][targets], reduction="none")
    return (losses * batch.weights[:, 1:][targets]).sum()


class Objective(nn.Module):
    """`weighted_loss` as a module, which is what ranks can be attached to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return weighted_loss(self.model, batch)


@heeding()
def fit(
    model: Any,
    data: StepData,
    steps: int,
    optimization: Optimization,
    folder: Path | None = None,
    device: str = "cpu",
    autocast: bool = False,
    seed: int = 0,
    save_every: float = 60.0,
    sharded: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Train `model` in place for `steps` steps, resuming from `folder` where it holds a checkpoint.

    Args:
        folder: where the checkpoint goes, every `save_every` seconds and at the end; None for none.
        autocast: run the forward pass in bf16; weights stay in fp32.
        seed: of dropout; torch's global generators are left as they were.
        sharded: in ranks, parameters and optimizer state are divided among them, not copied.
        on_step: called, on rank 0 alone, after each step with its index and `loss` (nats per weighted target), `lr`,
            `grad_norm`, `tokens` (of all steps so far, padding left out), `seconds` (of training so far, its parts
            before an interruption included).

    Raises:
        ValueError: the checkpoint is of a run of other settings; or Muon is to be sharded.
        Preempted: a stop was requested; the checkpoint holds every step taken.
        FloatingPointError: the loss is no longer finite.
    """
    if optimization.muon and sharded:
        raise ValueError("Muon takes whole matrices: it cannot be sharded")
    model.to(device).train()
    objective = spread(Objective(model), model, sharded)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = build_optimizer(model, optimization)
    settings = {"steps": steps, "seed": seed, **asdict(optimization)}
    done = load_checkpoint(folder, model, optimizer, settings) if folder else Progress()
    start, tokens = done.steps, done.tokens
    saved = time.monotonic()
    began = saved - done.seconds
    for step, batches in zip(range(start, steps), data.iterate(start, steps), strict=True):
        lr = optimization.lr_at(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batches = [batch.to(device) for batch in batches]
        total = torch.stack([batch.weights[:, 1:].sum() for batch in batches]).sum()
        loss = torch.zeros((), device=device)
        with drawing(seed, step, device):
            for number, batch in enumerate(batches, start=1):
                with accumulating(objective, last=number == len(batches)):
                    with torch.autocast(device, torch.bfloat16, enabled=autocast):
                        part = objective(batch.share(rank(), ranks())) / total * ranks()
                    part.backward()
                loss += part.detach()
        value = float(mean(loss))
        if not math.isfinite(value):
            raise FloatingPointError(f"loss is {value} at step {step}")
        norm = whole(torch.nn.utils.clip_grad_norm_(trained, optimization.clip))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_step:
            tokens += sum(int((batch.ids != 0).sum()) for batch in batches)
            seconds = time.monotonic() - began
            if rank() == 0:
                figures = {"loss": value, "lr": lr, "grad_norm": float(norm), "tokens": tokens, "seconds": seconds}
                on_step(step, figures)
        now = time.monotonic()
        stop, due = any_rank(requested(), now - saved > save_every, device=device)
        if folder and (stop or due or step + 1 == steps):
            save_checkpoint(folder, model, optimizer, Progress(step + 1, tokens, now - began), settings)
            saved = time.monotonic()
        if stop:
            raise Preempted(saved=folder is not None)


def build_optimizer(model: Any, optimization: Optimization) -> torch.optim.Optimizer:
    """The optimizer of the parameters that are trained; vectors, such as norms and biases, do not decay."""
    rest = [p for p in model.parameters() if p.requires_grad]
    matrices: list[Tensor] = []
    if optimization.muon:
        tables = [layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer]
        matrices = [p for p in rest if p.dim() == 2 and not any(p is table for table in tables)]
        rest = [p for p in rest if not any(p is matrix for matrix in matrices)]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": optimization.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (0.9, optimization.beta2)
    if optimization.muon:
        return Muon(matrices, groups, optimization.lr, betas, optimization.weight_decay)
    return torch.optim.AdamW(groups, lr=optimization.lr, betas=betas)


@contextmanager
def drawing(seed: int, step: int, device: str) -> Iterator[None]:
    """Draw from generators that `seed`, `step` and the rank determine; those of the caller are left as they were."""
    key = [seed, step, rank()] if rank() else [seed, step]
    with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))  # mt19937 reads 32 bits
        yield


@dataclass(frozen=True)
class Progress:
    """How far a run has come: steps done, their tokens (counted where `on_step` is given), seconds of training."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, done: Progress, settings: dict[str, Any]
) -> None:
    """Weights, optimizer state and progress in one safetensors file, written under another name and renamed.

    Every rank must call it; rank 0 writes. The file does not tell how many ranks there were.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model.{name}"] = whole(parameter.detach()).cpu().contiguous()
    for i, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{i}.{name}"] = whole(value.detach()).cpu().contiguous()
    if rank() > 0:
        return
    with replacing(folder / CHECKPOINT) as partial:
        save_file(tensors, partial, metadata={"progress": json.dumps(asdict(done)), "settings": json.dumps(settings)})


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Progress:
    """Restore a checkpoint in place; without one, nothing was done.

    Raises:
        ValueError: the checkpoint is of other settings.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        head = file.metadata()
    if json.loads(head["settings"]) != settings:
        raise ValueError(f"{path} is a checkpoint of other settings: {head['settings']}, not {json.dumps(settings)}")
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(as_held(tensors[f"model.{name}"], parameter))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = as_held(value, trained[int(i)]) if value.dim() else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**json.loads(head["progress"]))


def in_order(data: StepData, start: int, stop: int) -> Iterator[list[Batch]]:
    """Steps `start` to `stop - 1`, made in this process."""
    return (data.step(index) for index in range(start, stop))
