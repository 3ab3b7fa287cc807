"""Dropout whose mask is a function of the window alone, so that it can be repeated anywhere.

A generator's state would have to be saved, and its numbers would depend on how a batch is cut into
micro-batches and ranks. Here every bit is a hash of the window's seed and the position, so a run
drops the same values however it is cut, and a resumed run as if it had never stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 256  # a byte decides about a value, so rates are multiples of 1/256


class LayerDropout(NamedTuple):
    """What a layer keeps, (B, T, H) bool, of its attention's and its feed-forward's output."""

    keep_attention: Tensor
    keep_mlp: Tensor
    scale: float


@dataclass(frozen=True)
class Dropout:
    """The dropout of one forward pass (Srivastava et al. 2014).

    Attributes:
        rate: share of the values set to 0; the rest is scaled up to keep the mean.
        row_seeds: (B,) int64, a number for each row of the batch.
    """

    rate: float
    row_seeds: Tensor

    @property
    def scale(self) -> float:
        """What the values that stay are multiplied by."""
        return LEVELS / (LEVELS - self._dropped_levels)

    @property
    def _dropped_levels(self) -> int:
        return min(LEVELS - 1, round(self.rate * LEVELS))

    def for_layer(self, layer: int, like: Tensor) -> LayerDropout:
        """Return the masks of a layer for a residual stream (B, T, H) such as `like`."""
        attention, mlp = (self.keep(2 * layer + n, like) for n in (1, 2))
        return LayerDropout(attention, mlp, self.scale)

    def keep(self, site: int, like: Tensor) -> Tensor:
        """Return which values stay, (B, T, H) bool, for `like` of that shape.

        Args:
            site: a number for the place in the model: each place drops other values.
        """
        rows, *shape = like.shape
        size = math.prod(shape)
        counters = torch.arange(-(-size // 4), dtype=torch.int32, device=like.device)
        keys = self.row_seeds.to(like.device) + site * 0x9E3779B97F4A7C15 % 2**62
        low, high = (keys & 0x7FFFFFFF).int(), (keys >> 31 & 0x7FFFFFFF).int()
        keys = _mixed(_mixed(low) ^ high)
        bits = _mixed(_mixed(counters)[None] ^ keys[:, None])  # (B, ⌈T·H / 4⌉), 4 bytes each
        levels = bits.view(torch.uint8)[:, :size]
        return (levels >= self._dropped_levels).reshape(rows, *shape)


def _mixed(x: Tensor) -> Tensor:
    """Mix 32 bits so that each depends on all of x, int32 (the constants of Wellons' lowbias32)."""
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = (x ^ (x >> 15 & 0x1FFFF)) * -0x7B935975  # 0x846CA68B as int32
    return x ^ (x >> 16 & 0xFFFF)
