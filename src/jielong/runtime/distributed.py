"""Distributed training: this process's rank and collectives. A single process skips them all."""

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
from jielong.runtime.meeting import meet

TIMEOUT_MINUTES = 10
OTHER_FAILED = "another rank failed; see its error message"
# Keeps the last process group alive. Otherwise DDP's reducer, which outlives destroy_process_group,
# would be its last owner and join gloo's threads while it holds the GIL. Those threads may need the
# GIL to free a tensor: deadlock. A reference from Python releases the GIL before the join.
_last_group: dist.ProcessGroup | None = None
# If the interpreter exits while these threads wait for the GIL, the process aborts
# (pytorch/pytorch#190489). This pause lets them finish.
GLOO_SHUTDOWN_S = 0.1


@dataclass(frozen=True)
class World:
    """This process among all: its `rank` of `world_size`, and its `local_rank` on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum `value` over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def sum_number(self, value: float) -> float:
        """Sum a number over all ranks, in float64."""
        if self.world_size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return float(self.sum(torch.tensor(value, dtype=torch.float64, device=device)))

    def any_rank(self, *flags: bool) -> list[bool]:
        """Return each flag, true on every rank if any rank set it."""
        if self.world_size == 1:
            return list(flags)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flags_set = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(flags_set, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags_set.tolist()]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the value of every rank, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank has reached this point."""
        with self.barrier_after():
            pass

    @contextlib.contextmanager
    def barrier_after(self) -> Iterator[None]:
        """Run the block on every rank, then wait until all ranks have finished it.

        Usually only rank 0 has work to do. The wait ends after 7 days at most.

        Raises:
            JielongError: the block raised an error on another rank.
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
            raise JielongError(OTHER_FAILED)


def launched_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def init_world(device_type: str) -> Iterator[World]:
    """Join the processes that torchrun started, and leave the process group at the end.

    Processes that Ray started are joined already, and it ends them.
    """
    if dist.is_initialized():
        local_rank = int(os.environ["LOCAL_RANK"])
        if device_type == "cuda":
            torch.cuda.set_device(local_rank)
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
        return
    if not launched_by_torchrun():
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    timeout = timedelta(minutes=TIMEOUT_MINUTES)
    store, rank, world_size = meet(timeout)
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        timeout=timeout,
        store=store,
        rank=rank,
        world_size=world_size,
    )
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        global _last_group
        _last_group = dist.group.WORLD
        dist.destroy_process_group()
        time.sleep(GLOO_SHUTDOWN_S)


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """Wrap the model in DDP, which averages the gradients over all ranks."""
    if world.world_size == 1:
        return model
    # buffers (rotary tables and router biases) are equal on all ranks: no need to sync them
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
    return DistributedDataParallel(model, **options)


@contextlib.contextmanager
def gradient_sync(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Average gradients over ranks only if `wanted`: once per update, in the last micro-batch."""
    if isinstance(model, DistributedDataParallel) and not wanted:
        with model.no_sync():
            yield
    else:
        yield
