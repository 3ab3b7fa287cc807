"""Checkpoints written while training goes on: only their copy to host memory holds it up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jielong.checkpoint.sharded_save import OpenCheckpoint
from jielong.checkpoint.shards import Shard
from jielong.runtime.device import available_memory

SPARE = 1.5  # of a copy's size that must be free for it: training takes more memory as it goes


class HostCopy:
    """Copies of tensors in the host's memory, in the same place each time.

    New memory would cost as much time again: the system clears each page as it is first written.
    """

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def of(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Copy `tensors`, which are kept apart from others by `prefix`."""
        copies = {}
        for name, value in tensors.items():
            copy = self.buffers.get(prefix + name)
            if copy is None or (copy.shape, copy.dtype) != (value.shape, value.dtype):
                copy = torch.empty(value.shape, dtype=value.dtype)
                if value.is_cuda:
                    copy = copy.pin_memory()  # so that the GPU can write to it by itself
                self.buffers[prefix + name] = copy
            copies[name] = copy.copy_(value.detach(), non_blocking=True)
        if any(value.is_cuda for value in tensors.values()):
            torch.cuda.synchronize()
        return copies

    def fits(self, *tensors: Mapping[str, Tensor], sharers: int = 1) -> bool:
        """Whether there is memory for the copies, where as many processes as `sharers` copy."""
        if self.buffers:
            return True
        needed = sum(value.nbytes for part in tensors for value in part.values())
        free = available_memory()
        return free is None or free > SPARE * needed * sharers


@dataclass
class SharedSave:
    """A sharded checkpoint that all ranks are writing."""

    checkpoint: OpenCheckpoint | None  # on rank 0
    shard: Shard | None = None  # of this rank, once it is written and if it has any


class BackgroundSave:
    """Writes in a thread, one checkpoint at a time, and keeps what went wrong until it is asked."""

    def __init__(self) -> None:
        self.copies = HostCopy()
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()
        self.tasks: list[Callable[[], None]] = []
        self.error: Exception | None = None
        self.shared: SharedSave | None = None  # what all ranks write together, until it counts

    @property
    def writing(self) -> bool:
        """Whether something is left to be done."""
        return bool(self.tasks)

    @property
    def failed(self) -> bool:
        """Whether the last one could not be written, and `wait` will say so."""
        return self.error is not None

    def run(self, task: Callable[[], None]) -> None:
        """Do a task after those that are still to be done, in the thread."""
        with self.lock:
            self.tasks.append(task)
            if len(self.tasks) > 1:
                return  # the thread comes to it
        self.thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
        self.thread.start()

    def rest(self, most_s: float | None = None) -> None:
        """Wait until nothing is left to be done, or for `most_s` seconds."""
        if self.thread is not None:
            self.thread.join(most_s)

    def abandon(self) -> None:
        """Wait, and remove what other ranks would have had to complete: the run ends here."""
        self.rest()
        if self.shared is not None and self.shared.checkpoint is not None:
            self.shared.checkpoint.abandon()
        self.shared = None

    def wait(self) -> None:
        """Wait until nothing is left to be done.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        self.rest()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            try:
                self.tasks[0]()
            except Exception as error:
                self.error = self.error or error
            with self.lock:
                del self.tasks[0]
                if not self.tasks:
                    return
