"""How long a rank's own part of the steps takes: the slowest holds up all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator

import torch

from jielong.data.batches import Batch


class OwnTime:
    """Seconds of this rank's own part of its steps: reading and passes, but no waiting for others.

    On a GPU they are its own, between events: the host does not wait for them until they are read.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds, self.steps = 0.0, 0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def each(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """Yield the batches, and measure how long each is waited for."""
        with contextlib.closing(batches):
            while True:
                started = time.perf_counter()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                self.seconds += time.perf_counter() - started
                yield batch

    @contextlib.contextmanager
    def passes(self) -> Iterator[None]:
        """Measure the passes of a step."""
        self.steps += 1
        if self.on_gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self.events.append((first, last))
        else:
            started = time.perf_counter()
            yield
            self.seconds += time.perf_counter() - started

    def take(self) -> float:
        """Seconds of a step, on average since this was last asked; the steps must be through."""
        seconds = self.seconds + sum(a.elapsed_time(b) for a, b in self.events) / 1000
        mean = seconds / max(1, self.steps)
        self.seconds, self.steps = 0.0, 0
        self.events.clear()
        return mean
