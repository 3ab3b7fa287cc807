"""Rows in groups: gathered, multiplied by their group's matrix, and put back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
    alignment = 16 // rows.element_size()  # the kernels load 16 bytes at once
    if (
        rows.device.type in ("cpu", "cuda")
        and rows.dtype in GROUPED_DTYPES
        and all(width % alignment == 0 for width in weights.shape[1:])
    ):
        return F.grouped_mm(rows, weights.mT, offs=ends)
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    groups = zip(rows.split(sizes), weights.unbind(), strict=True)
    return torch.cat([F.linear(group, weight) for group, weight in groups])


class _GatherRows(torch.autograd.Function):
    """Its backward gathers too: a scatter would add atomically, slow and in no fixed order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sources: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.count = len(x)
        return x.index_select(0, sources)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        grad = grads[0].index_select(0, places)
        if len(places) > ctx.count:
            grad = grad.view(ctx.count, -1, grad.shape[-1]).sum(dim=1)
        return grad, None, None


class _ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, unread: Tensor) -> Tensor:
        ctx.save_for_backward(places, unread)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        places, unread = ctx.saved_tensors
        grad = grads[0].new_empty(len(places) + len(unread), grads[0].shape[-1])
        grad.index_copy_(0, places, grads[0]).index_fill_(0, unread, 0.0)
        return grad, None, None


def gather_rows(x: Tensor, sources: Tensor, places: Tensor) -> Tensor:
    """x[sources], where row i of x stands at places[i·k … i·k + k − 1].

    Args:
        x: (N, H).
        sources: (M,) row indices. Rows at no place in `places` pass no gradient.
        places: (N·k,).
    """
    return _GatherRows.apply(x, sources, places)


def scatter_rows(rows: Tensor, places: Tensor, unread: Tensor) -> Tensor:
    """rows[places]: undoes the order of `gather_rows`.

    Args:
        rows: (M, H).
        places, unread: (P,) and (M − P,), together each row once.
    """
    return _ScatterRows.apply(rows, places, unread)
