"""Distributed training: this process's rank and collectives. A single process skips them all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store

from jielong.errors import AnotherRankError
from jielong.runtime.meeting import meet
from jielong.runtime.watchdog import Watchdog

TIMEOUT_MINUTES = 10  # of a collective; the watchdog knows sooner, and which rank it was
# Keeps the last process group alive. Otherwise what outlives destroy_process_group, as a pending
# sum does, could be its last owner and join gloo's threads while it holds the GIL. Those threads
# may need the GIL to free a tensor: deadlock. A reference from Python releases it before the join.
_last_group: dist.ProcessGroup | None = None
# If the interpreter exits while these threads wait for the GIL, the process aborts
# (pytorch/pytorch#190489). This pause lets them finish.
GLOO_SHUTDOWN_S = 0.1
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: its `rank` of `world_size`, and its `local_rank` on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    watchdog: Watchdog | None = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum `value` over all ranks, in place."""
        if self.world_size > 1:
            self.meets()
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
        self.meets()
        dist.all_reduce(flags_set, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags_set.tolist()]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the value of every rank, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        self.meets()
        dist.all_gather_object(values, value)
        return values

    def beat(self) -> None:
        """Say that this rank goes on, from within what has a limit of time."""
        if self.watchdog:
            self.watchdog.beat()

    def limit(self, what: str | None) -> contextlib.AbstractContextManager[None]:
        """Within, a rank that does not go on for `rank_timeout` ends the run, with its stack."""
        return self.watchdog.limit(what) if self.watchdog else contextlib.nullcontext()

    def limited(self, items: Generator[T, None, None], what: str) -> Generator[T, None, None]:
        """Yield the items, each of which has to come in time."""
        with contextlib.closing(items):
            while True:
                with self.limit(what):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

    def meets(self) -> None:
        """Say that a collective begins: all ranks begin the same ones."""
        if self.watchdog:
            self.watchdog.meets()

    def barrier(self) -> None:
        """Wait until every rank has reached this point."""
        with self.barrier_after():
            pass

    @contextlib.contextmanager
    def barrier_after(self) -> Iterator[None]:
        """Run the block on every rank, then wait until all ranks have finished it.

        Usually only rank 0 has work to do. The wait ends after 7 days at most.

        Raises:
            AnotherRankError: the block raised an error on another rank.
        """
        if self.world_size == 1:
            yield
            return
        group = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        failed = torch.ones((), dtype=torch.int32)
        try:
            with self.limit(None):
                yield
            failed.zero_()
        finally:
            self.meets()
            dist.all_reduce(failed, dist.ReduceOp.MAX, group)
            dist.destroy_process_group(group)
        if failed:
            raise AnotherRankError


def launched_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def init_world(device_type: str, rank_timeout_s: float) -> Iterator[World]:
    """Join the processes that torchrun started, and leave the process group at the end.

    Processes that Ray started are joined already, and it ends them; they watch each other alike.

    Args:
        rank_timeout_s: after which a rank that hangs or says nothing ends the run.

    Raises:
        AnotherRankError: instead of an error of this rank that another's has caused.
    """
    if dist.is_initialized():
        local_rank = int(os.environ["LOCAL_RANK"])
        if device_type == "cuda":
            torch.cuda.set_device(local_rank)
        rank, world_size = dist.get_rank(), dist.get_world_size()
        if world_size == 1:
            yield World(local_rank=local_rank)
            return
        watchdog = Watchdog(_get_default_store(), rank, world_size, rank_timeout_s)
        with _watched(watchdog):
            yield World(rank, world_size, local_rank, watchdog)
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
    watchdog = Watchdog(store, rank, world_size, rank_timeout_s)
    try:
        with _watched(watchdog):
            yield World(rank, world_size, local_rank, watchdog)
    finally:
        global _last_group
        _last_group = dist.group.WORLD
        dist.destroy_process_group()
        time.sleep(GLOO_SHUTDOWN_S)


@contextlib.contextmanager
def _watched(watchdog: Watchdog) -> Iterator[None]:
    """Within, the ranks watch each other; an error that another's has caused is not this one's."""
    try:
        yield
    except BaseException as error:
        first = watchdog.first_error(error)
        if first is error:
            raise
        raise first from None
    finally:
        watchdog.stop()
