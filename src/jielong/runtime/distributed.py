"""Ranks and sums over ranks. One process needs none of it and pays nothing for it."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jielong.errors import JielongError

TIMEOUT_MINUTES = 10
# The group that join_ranks left last. DDP's reducer outlives the group's end, and were it the last
# owner it would, holding Python's lock, join gloo's threads, which may be waiting for that lock to
# free a tensor: this process would hang. An owner in Python gives up the lock before it joins.
_left: dist.ProcessGroup | None = None
# The same threads, met by the end of the interpreter while they wait, would abort the process
# (pytorch/pytorch#190489).
TIME_TO_FREE_S = 0.1


@dataclass(frozen=True)
class Ranks:
    """This process among all: rank of world_size, and local_rank on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """`value` summed over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def sum_number(self, value: float) -> float:
        """A number summed over all ranks, in float64."""
        if self.world_size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return float(self.sum(torch.tensor(value, dtype=torch.float64, device=device)))

    def agree(self, *flags: bool) -> list[bool]:
        """Each flag, true on all ranks where any rank raised it."""
        if self.world_size == 1:
            return list(flags)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        raised = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait_for_all(self) -> None:
        """Returns when all ranks have come here."""
        with self.after_main():
            pass

    @contextlib.contextmanager
    def after_main(self) -> Iterator[None]:
        """Ends on all ranks when each, rank 0 as a rule, has done its part, however long it takes.

        Raises:
            JielongError: on the other ranks, if an error ended one's part.
        """
        if self.world_size == 1:
            yield
            return
        group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        failed = torch.ones((), dtype=torch.int32)
        try:
            yield
            failed.zero_()
        finally:
            dist.all_reduce(failed, dist.ReduceOp.MAX, group)
            dist.destroy_process_group(group)
        if failed:
            raise JielongError("another rank could not go on, for the reason it gives")


def launched_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def join_ranks(device_type: str) -> Iterator[Ranks]:
    """This process's place among those torchrun started; leaves the group at the end."""
    if not launched_by_torchrun():
        yield Ranks()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo", timeout=timedelta(minutes=TIMEOUT_MINUTES)
    )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        global _left
        _left = dist.group.WORLD
        dist.destroy_process_group()
        time.sleep(TIME_TO_FREE_S)


def data_parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The model, its gradients averaged over ranks in the last micro-batch's backward pass."""
    if ranks.world_size == 1:
        return model
    # the only buffers are tables of angles and the routers' biases, which all ranks move alike
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
    return DistributedDataParallel(model, **options)


@contextlib.contextmanager
def gradient_sync(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Without `wanted`, gradients only accumulate: one reduction an update is enough."""
    if isinstance(model, DistributedDataParallel) and not wanted:
        with model.no_sync():
            yield
    else:
        yield
