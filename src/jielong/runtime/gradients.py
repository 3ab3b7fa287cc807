"""Gradients summed over all ranks, once an update, while the last backward pass still goes on.

Like DistributedDataParallel, but each rank takes part in the sum whatever became of its pass. A
rank whose memory ran out says so with the sum (`training/step.py`), and all take the step again;
DDP would leave the others waiting for gradients that never come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jielong.runtime.distributed import World

BUCKET_BYTES = 25 * 2**20  # of gradients summed at once: DDP's default


@dataclass
class _Bucket:
    """Gradients that are summed at once: views of one flat tensor."""

    flat: Tensor
    parameters: list[nn.Parameter]
    views: list[Tensor]
    missing: set[nn.Parameter] = field(default_factory=set)  # in the last pass, so far


class GradientSum:
    """The gradients of a model's parameters, and their sum over all ranks."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], world: World, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        """Lay the gradients out, in about the order in which a backward pass comes to them."""
        self.world = world
        self.buckets: list[_Bucket] = []
        self.bucket_of: dict[nn.Parameter, _Bucket] = {}
        pending: list[nn.Parameter] = []
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            pending.append(parameter)
            if sum(p.nbytes for p in pending) >= bucket_bytes:
                self._add(pending)
                pending = []
        if pending:
            self._add(pending)
        self.works: list[dist.Work] = []
        self.last = False  # the backward pass of the last micro-batch goes on

    def _add(self, parameters: list[nn.Parameter]) -> None:
        first = parameters[0]
        sizes = [p.numel() for p in parameters]
        flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        pairs = zip(flat.split(sizes), parameters, strict=True)
        bucket = _Bucket(flat, parameters, [part.view_as(p) for part, p in pairs])
        self.buckets.append(bucket)
        for p in parameters:
            self.bucket_of[p] = bucket
            p.register_post_accumulate_grad_hook(self._arrived)

    def begin(self) -> None:
        """Begin an update: all gradients are zero."""
        self.works = []
        for bucket in self.buckets:
            bucket.flat.zero_()
            bucket.missing = set(bucket.parameters)
            for p, view in zip(bucket.parameters, bucket.views, strict=True):
                p.grad = view  # a backward pass adds to it in place

    @contextlib.contextmanager
    def last_pass(self) -> Iterator[None]:
        """Within, what the backward pass completes is summed at once."""
        self.last = True
        try:
            yield
        finally:
            self.last = False

    def finish(self) -> None:
        """Sum what has not been summed yet, and wait for all of it; every rank must come here."""
        self._launch(len(self.buckets))
        self.world.meets()
        for work in self.works:
            work.wait()

    def _arrived(self, parameter: nn.Parameter) -> None:
        if not self.last:
            return
        self.bucket_of[parameter].missing.discard(parameter)
        ready = len(self.works)  # all ranks sum the buckets in the same order
        while ready < len(self.buckets) and not self.buckets[ready].missing:
            ready += 1
        self._launch(ready)

    def _launch(self, stop: int) -> None:
        """Start the sums of the buckets before `stop` that have not been started."""
        for bucket in self.buckets[len(self.works) : stop]:
            work = dist.all_reduce(bucket.flat, async_op=True)
            assert work is not None
            self.works.append(work)
