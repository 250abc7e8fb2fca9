"""Data-parallel training over ranks: each computes its rows of every micro-batch, and a step is that of one process.

    rank 0        rank 1
    rows 0 2 4    rows 1 3 5      gradient = mean over ranks of (ranks x its own part) = gradient of the whole batch

Ranks are the processes of `torch.distributed`; without a process group there is one. `replicated` copies of the model
are kept by DistributedDataParallel; `sharded` ones hold a part of each tensor and fetch the rest layer by layer
(`fully_shard`: FSDP2). accelerate wraps the same two; its launcher and its gradient accumulation, which divides by the
number of micro-batches where ours divides by the weight of the targets, would have to be worked around. It reads the
variables that ranks are started with (torchrun's), so a trainer that is built on it, such as TRL's, runs in ranks too.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def joined(patience: float) -> Iterator[None]:
    """In the block this process is the rank that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT say.

    Args:
        patience: seconds that ranks wait for each other before they fail.
    """
    gpus, place = torch.cuda.is_available(), int(os.environ["LOCAL_RANK"])
    if place < torch.cuda.device_count():  # more ranks than GPUs compute on the CPU
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(seconds=patience))
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Of this process; 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def spread(objective: nn.Module, model: Any, sharded: bool) -> nn.Module:
    """`objective`, a module whose forward computes a loss by `model`, for all ranks; itself where there is one.

    All ranks start from the weights of rank 0. `backward` leaves the mean of their gradients.
    Sharding changes the parameters of `model` in place (to `DTensor`); see `full_weights`.
    """
    if ranks() == 1:
        return objective
    if not sharded:
        return DistributedDataParallel(objective)
    from torch.distributed.fsdp import fully_shard  # takes a second to import

    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in kinds:
            fully_shard(module)
    fully_shard(objective)
    return objective


@contextmanager
def accumulating(objective: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of one micro-batch: ranks exchange gradients after the last of a step alone."""
    if isinstance(objective, DistributedDataParallel) and not last:
        with objective.no_sync():
            yield
        return
    if any(map(_in_parts, objective.parameters())):
        sharded: Any = objective
        sharded.set_requires_gradient_sync(last)
    yield


def mean(value: Tensor) -> Tensor:
    """Mean over ranks."""
    if ranks() > 1:
        dist.all_reduce(value)
        value /= ranks()
    return value


def of_first(value: float) -> float:
    """Rank 0's value, for all."""
    if ranks() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(told, src=0)
    return float(told)


def any_rank(*flags: bool, device: str = "cpu") -> list[bool]:
    """For each flag whether any rank raises it: what all ranks decide alike."""
    if ranks() == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this rank may hold a part; every rank must ask."""
    parts: Any = tensor
    return parts.full_tensor() if _in_parts(tensor) else tensor


def as_held(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole `tensor` that this rank holds of `like`."""
    if not _in_parts(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    parts: Any = like
    return distribute_tensor(tensor.to(like.device), parts.device_mesh, parts.placements)


def _in_parts(tensor: Tensor) -> bool:
    """Whether ranks hold a part each; nobody shards without the module."""
    return "torch.distributed.tensor" in sys.modules and isinstance(
        tensor, sys.modules["torch.distributed.tensor"].DTensor
    )


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """State of a model that `fit` may have sharded, on the CPU.

        state = full_weights(model)
        if rank() == 0:
            model.save_pretrained(folder, state_dict=state)

    Every rank must ask; rank 0 saves.
    """
    return {name: whole(value).cpu() for name, value in model.state_dict().items()}
