"""Checkpoints written while training goes on: only their copy to host memory holds it up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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

    def fits(self, *tensors: Mapping[str, Tensor]) -> bool:
        """Whether there is memory for the copies."""
        if self.buffers:
            return True
        needed = sum(value.nbytes for part in tensors for value in part.values())
        free = available_memory()
        return free is None or free > SPARE * needed


class BackgroundSave:
    """Writes in a thread, one checkpoint at a time, and keeps what went wrong until it is asked."""

    def __init__(self) -> None:
        self.copies = HostCopy()
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()
        self.tasks: list[Callable[[], None]] = []
        self.error: Exception | None = None

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
