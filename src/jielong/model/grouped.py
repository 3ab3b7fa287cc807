"""Rows in groups: gathered, multiplied by their group's matrix, and put back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# those that `F.grouped_mm` is documented to take
GROUPED_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16, torch.float16),
    "cuda": (torch.bfloat16,),
}


def grouped_linear(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """`F.linear` of each contiguous group of rows with its own matrix.

    Args:
        rows: (M, in), ordered by group.
        weights: (groups, out, in), cast to the dtype of the rows.
        ends: (groups,) int32, one past each group's last row; the last is M.

    Returns:
        (M, out).
    """
    weights = weights.to(rows.dtype)
    if has_kernel(rows.device, rows.dtype, weights):
        return F.grouped_mm(rows, weights.mT, offs=ends)
    return _loop(rows, weights, ends)


def has_kernel(device: torch.device, dtype: torch.dtype, weights: Tensor) -> bool:
    """Whether `F.grouped_mm` takes rows of this kind and weights (groups, out, in)."""
    alignment = 16 // dtype.itemsize  # the kernels load 16 bytes at once
    aligned = not any(width % alignment for width in weights.shape[1:])
    return aligned and dtype in GROUPED_DTYPES.get(device.type, ())


def _loop(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    groups = zip(rows.split(sizes), weights.unbind(), strict=True)
    return torch.cat([F.linear(group, weight) for group, weight in groups])


class _GatherRows(torch.autograd.Function):
    """Its backward gathers too: a scatter would add atomically, slow and in no fixed order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sources: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, sources)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return F.embedding_bag(places, grads[0], mode="sum"), None, None


class _CombineRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, sources: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights, sources, places)
        return F.embedding_bag(places, rows, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, weights, sources, places = ctx.saved_tensors
        grad = grads[0].index_select(0, sources)  # (M, H)
        grad_weights = (grad * rows).sum(dim=1)[places]  # (N, k)
        of_rows = weights.new_zeros(len(rows), 1)  # an unread row weighs nothing
        of_rows[places.flatten(), 0] = weights.flatten()
        return grad * of_rows, grad_weights, None, None


def gather_rows(x: Tensor, sources: Tensor, places: Tensor) -> Tensor:
    """x[sources].

    Args:
        x: (N, H).
        sources: (M,) row indices.
        places: (N, k), where each row went; a row at none of them passes no gradient.
    """
    return _GatherRows.apply(x, sources, places)


def combine_rows(rows: Tensor, weights: Tensor, sources: Tensor, places: Tensor) -> Tensor:
    """Σ over j of weights[:, j] · rows[places[:, j]]: (N, H), the way back from `gather_rows`.

    Args:
        rows: (M, H).
        weights: (N, k), of the rows' dtype.
        sources, places: as of `gather_rows`.
    """
    return _CombineRows.apply(rows, weights, sources, places)
