"""Grouped linear layers: gather rows by group, multiply by the group's matrix, combine."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# dtypes that `F.grouped_mm` is documented to support
GROUPED_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16, torch.float16),
    "cuda": (torch.bfloat16,),
}


def grouped_linear(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Apply `F.linear` to each contiguous group of rows, with the group's own matrix.

    Args:
        rows: (M, in), ordered by group.
        weights: (groups, out, in); cast to the dtype of `rows`.
        ends: (groups,) int32, one past each group's last row; the last is M.

    Returns:
        (M, out).
    """
    weights = weights.to(rows.dtype)
    if has_kernel(rows.device, rows.dtype, weights):
        return F.grouped_mm(rows, weights.mT, offs=ends)
    return _loop(rows, weights, ends)


def has_kernel(device: torch.device, dtype: torch.dtype, weights: Tensor) -> bool:
    """Return whether `F.grouped_mm` supports this device, dtype and weights (groups, out, in)."""
    alignment = 16 // dtype.itemsize  # the kernels load 16 bytes at a time
    aligned = not any(width % alignment for width in weights.shape[1:])
    return aligned and dtype in GROUPED_DTYPES.get(device.type, ())


def _loop(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    groups = zip(rows.split(sizes), weights.unbind(), strict=True)
    return torch.cat([F.linear(group, weight) for group, weight in groups])


class _GatherRows(torch.autograd.Function):
    """Row gather whose backward gathers too: a scatter would be slow and non-deterministic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token_of_row: Tensor, row_of_choice: Tensor) -> Tensor:
        ctx.save_for_backward(row_of_choice)
        return x.index_select(0, token_of_row)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (row_of_choice,) = ctx.saved_tensors
        return F.embedding_bag(row_of_choice, grads[0], mode="sum"), None, None


class _CombineRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weights: Tensor, token_of_row: Tensor, row_of_choice: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, weights, token_of_row, row_of_choice)
        return F.embedding_bag(row_of_choice, rows, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, weights, token_of_row, row_of_choice = ctx.saved_tensors
        grad = grads[0].index_select(0, token_of_row)  # (M, H)
        grad_weights = (grad * rows).sum(dim=1)[row_of_choice]  # (N, k)
        row_weights = weights.new_zeros(len(rows), 1)  # 0 for a row that no choice reads
        row_weights[row_of_choice.flatten(), 0] = weights.flatten()
        return grad * row_weights, grad_weights, None, None


def gather_rows(x: Tensor, token_of_row: Tensor, row_of_choice: Tensor) -> Tensor:
    """Return x[token_of_row].

    Args:
        x: (N, H).
        token_of_row: (M,) indices into x.
        row_of_choice: (N, k), the row of each of a token's k choices. Rows not listed here pass no
            gradient.
    """
    return _GatherRows.apply(x, token_of_row, row_of_choice)


def combine_rows(
    rows: Tensor, weights: Tensor, token_of_row: Tensor, row_of_choice: Tensor
) -> Tensor:
    """Return Σ over j of weights[:, j] · rows[row_of_choice[:, j]]: (N, H).

    It undoes `gather_rows`, summing the weighted outputs of each token's choices.

    Args:
        rows: (M, H).
        weights: (N, k), in the dtype of `rows`.
        token_of_row, row_of_choice: as in `gather_rows`.
    """
    return _CombineRows.apply(rows, weights, token_of_row, row_of_choice)
