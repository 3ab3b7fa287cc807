"""How the processes of torchrun find each other, also after a restart of some or all of them."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from jielong.errors import TrainingError

POLL_S = 0.02


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """Wait until all processes of this start are there.

    torchrun's agent keeps one store for all starts. The addresses that processes before a restart
    left in it would be taken for those of the present ones: gloo would call processes that are
    gone. So each start agrees on a name that no other has, and uses keys below it alone.

    Returns:
        A store of this start, the rank, and the number of processes.

    Raises:
        TrainingError: not all of them came in time.
    """
    shared, rank, world_size = next(rendezvous("env://", timeout=timeout))
    name = agree(shared, rank, world_size, timeout)
    return PrefixStore(f"jielong/{name}", shared), rank, world_size


def agree(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Agree on a name for this start, whatever earlier starts have left in the store.

    Rank 0 proposes a name. The others answer it with a word of their own, and accept it once rank 0
    has repeated their words: a rank 0 of an earlier start cannot know them.

    Raises:
        TrainingError: not all ranks came in time.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    name, word = uuid.uuid4().hex, uuid.uuid4().hex
    others = range(1, world_size)
    if rank == 0:
        store.set("jielong/name", name)
        for other in others:
            _wait(store, f"jielong/{name}/word/{other}", deadline, f"rank {other}")
        words = [store.get(f"jielong/{name}/word/{other}").decode() for other in others]
        store.set(f"jielong/{name}/words", " ".join(words))
        return name
    _wait(store, "jielong/name", deadline, "rank 0")
    answered = ""
    while True:
        name = store.get("jielong/name").decode()
        if name != answered:
            store.set(f"jielong/{name}/word/{rank}", word)
            answered = name
        repeated = f"jielong/{name}/words"
        if store.check([repeated]) and word in store.get(repeated).decode().split():
            return name
        _pause(deadline, "the other ranks")


def _wait(store: Store, key: str, deadline: float, whom: str) -> None:
    while not store.check([key]):
        _pause(deadline, whom)


def _pause(deadline: float, whom: str) -> None:
    if time.monotonic() > deadline:
        raise TrainingError(
            f"rank {os.environ.get('RANK', '?')} has waited in vain for {whom}: see whether all "
            "processes were started, and their machines reach each other"
        )
    time.sleep(POLL_S)
