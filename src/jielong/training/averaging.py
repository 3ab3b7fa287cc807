"""The average of the weights along a run: what is measured, sampled and kept as the model.

While the learning rate is high, each update overshoots. The average of the latest weights is about
where a falling learning rate would lead, without waiting for it (docs/experiments.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from jielong.runtime.parts import is_sharded, local

# at the peak learning rate the average reaches back over a fifteenth of the steps so far
POWER = 14


class WeightAverage:
    """An average in which weights after step t count in proportion to t^POWER (Karras et al. 2024).

    So it reaches back further the longer the run, and no length need be chosen. As the learning
    rate falls it reaches back less, and ends at the latest weights: there is then little noise left
    to average out, and older weights are only worse. Buffers are not averaged.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names, self._parameters = zip(*model.named_parameters(), strict=True)
        self.restart()

    def restart(self) -> None:
        """Begins from the weights that the model has now."""
        self._average = [p.clone() for p in self._latest()]

    @torch.no_grad()
    def update(self, step: int, lr_scale: float) -> None:
        """Add the weights after `step` updates (1 or more), the last one at `lr_scale`."""
        share = min(1.0, (1 - (1 - 1 / step) ** (POWER + 1)) / lr_scale)
        torch._foreach_lerp_(self._average, self._latest(), share)

    def weights(self) -> dict[str, Tensor]:
        """The averages by parameter name; of one that ranks keep parts of, this rank's part."""
        return dict(zip(self._names, self._average, strict=True))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _latest(self) -> list[Tensor]:
        """This rank's part of the weights, in their own memory."""
        return [local(p.detach()) for p in self._parameters]

    def _swap(self) -> None:
        for i, p in enumerate(self._parameters):
            if not is_sharded(p):
                p.data, self._average[i] = self._average[i], p.data
                continue
            latest = local(p.detach())  # contents, not tensors: FSDP keeps hold of its own
            kept = latest.clone()
            latest.copy_(self._average[i])
            self._average[i].copy_(kept)
