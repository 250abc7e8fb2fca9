"""What the ranks of test_distributed.py run, and the same work alone."""

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from common.experiments.context import Context
from common.training.distributed import accumulating, any_rank, full_weights, mean, rank, ranks, spread
from common.training.preemption import Preempted
from common.training.supervised import Batch, Optimization, fit, in_order

WORDS, STEPS = 13, 8


@dataclass(frozen=True)
class Work:
    """`rows`: of the second of two micro-batches, the first has four more; `stop_at`: step that stops rank 1."""

    rows: int = 3
    stop_at: int = -1


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.arange(1, x.shape[1] + 1)[:, None]
        return x + torch.tanh(self.mix(x.cumsum(1) / counts))


class Model(nn.Module):
    """A causal model with tied embeddings behind the interface of transformers."""

    _no_split_modules = ("Layer",)

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(WORDS, 16)
        self.layers = nn.Sequential(Layer(), Layer())
        self.out = nn.Linear(16, WORDS, bias=False)
        self.out.weight = self.embedding.weight

    def base_model(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.layers(self.embedding(input_ids)))

    def get_output_embeddings(self) -> nn.Module:
        return self.out


class Sums:
    """Two micro-batches a step, of sequences in which each token is the sum of the two before it; weights differ."""

    def __init__(self, rows: int, stop_at: int = -1) -> None:
        self.rows, self.stop_at, self.last = rows, stop_at, -1

    def step(self, index: int) -> list[Batch]:
        if index == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.last = index
        draw = torch.Generator().manual_seed(index)
        batches = []
        for rows in (self.rows + 4, self.rows):
            ids = torch.randint(1, WORDS, (rows, 9), generator=draw)
            for place in range(2, 9):
                ids[:, place] = (ids[:, place - 1] + ids[:, place - 2]) % WORDS
            batches.append(Batch(ids, torch.rand(rows, 9, generator=draw).round(decimals=1)))
        return batches

    def iterate(self, start: int, stop: int) -> Iterable[list[Batch]]:
        return in_order(self, start, stop)


def train(work: Work, context: Context, folder: Path, sharded: bool = False) -> dict[str, Any]:
    """A training whose weights rank 0 leaves in `folder`; the figures of all steps.

    Every rank begins with other weights, of which those of rank 0 count.
    """
    model, figures = Model(context.seed + rank()), []

    def on_step(step: int, one: dict[str, float]) -> None:
        figures.append({key: one[key] for key in ("loss", "grad_norm", "tokens")})

    data = Sums(work.rows, work.stop_at if rank() == 1 else -1)
    try:
        fit(model, data, STEPS, Optimization(warmup=2), folder, sharded=sharded, on_step=on_step)
    except Preempted as stop:
        (folder / f"stopped-{rank()}").write_text(f"after step {data.last}, saved {stop.saved}")
        raise
    weights = full_weights(model)
    del weights["out.weight"]  # the embedding
    if rank() == 0:
        save_file(weights, folder / "weights.safetensors")
    return {"figures": figures, "held": sum(p.numel() for p in map(local, model.parameters()))}


def local(parameter: Any) -> Tensor:
    """What this rank holds."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def everything(work: Work, context: Context, folder: Path) -> dict[str, Any]:
    """All that two ranks are asked for in one go: starting them takes longer."""
    return {
        "variables": {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")},
        "ranks": (rank(), ranks()),
        "gradients": {name: gradient(sharded=name == "sharded") for name in ("replicated", "sharded")},
        "mean": float(mean(torch.tensor([1.0 + 4 * rank()]))),
        "any": any_rank(rank() == 1, False, True),
        "resumed": train(work, context, folder / "resumed"),
        "replicated": train(work, context, folder / "replicated"),
        "single rows": train(Work(rows=1), context, folder / "single"),
        "sharded": train(work, context, folder / "sharded", sharded=True),
        "threads": torch.get_num_threads(),
    }


class Product(nn.Module):
    """The loss `w · x`, whose gradient is `x`."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).sum()


def gradient(sharded: bool) -> list[float]:
    """Of two micro-batches of `w · x`, with other `x` in each rank."""
    model = Product()
    objective = spread(model, model, sharded)
    for number, scale in enumerate((1.0, 10.0), start=1):
        with accumulating(objective, last=number == 2):
            objective(scale * torch.tensor([1.0, -3.0] if rank() == 0 else [5.0, 7.0])).backward()
    found = model.w.grad
    return (found.full_tensor() if sharded else found).tolist()


def die_in_one(work: Work, context: Context) -> None:
    """Rank 1 is killed while rank 0 waits for it."""
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
