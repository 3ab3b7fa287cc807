"""Tensors of which each rank keeps a part: those of a model that FSDP2 has divided.

Such a parameter, and its gradient, is a DTensor, divided along its first dimension. What trains
works on this rank's part of it, a plain tensor (`local`). Importing DTensor takes seconds, so
nothing here does before there is one.
"""

from __future__ import annotations

from types import EllipsisType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn


class Readable(Protocol):
    """A tensor, or one in a file of which rows can be read without the others."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor: ...


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has only a part of the tensor."""
    return hasattr(tensor, "placements")


def has_shards(model: nn.Module) -> bool:
    """Whether ranks keep parts of the model's parameters."""
    return any(is_sharded(p) for p in model.parameters())


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a parameter or gradient, in the same memory; all of it if not sharded."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return cast(Any, tensor).to_local()


def home(parameter: Tensor) -> torch.device:
    """Return the device that computes with a parameter: offloaded, it lies on the host itself."""
    if not is_sharded(parameter) or parameter.device.type != "cpu":
        return parameter.device
    kind = cast(Any, parameter).device_mesh.device_type
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else parameter.device


def gathered(parameter: Tensor, part: Tensor, keep: bool = True) -> Tensor:
    """Return the whole of a quantity of which each rank has a part; every rank calls it.

    Args:
        parameter: how the quantity is divided.
        part: this rank's part of it, as `local(parameter)` or the optimizer's state of that.
        keep: whether this rank wants it.

    Returns:
        `part` itself if the parameter is not sharded; else the whole, in the host's memory, or
        nothing where it is not kept.
    """
    if not is_sharded(parameter):
        return part
    from torch.distributed.tensor import DTensor

    p = cast(Any, parameter)
    divided = DTensor.from_local(
        part.detach().to(home(parameter)),
        p.device_mesh,
        p.placements,
        run_check=False,
        shape=p.shape,
        stride=p.stride(),
    )
    found = divided.full_tensor()
    return found.cpu() if keep else found.new_empty(0)


def first_row(parameter: Tensor) -> int:
    """Return the row at which this rank's part begins; 0 if it has all."""
    if not is_sharded(parameter):
        return 0
    mesh, rows = cast(Any, parameter).device_mesh, parameter.shape[0]
    chunk = -(-rows // mesh.size(mesh.ndim - 1))  # as torch.chunk divides
    return min(rows, chunk * mesh.get_local_rank(mesh.ndim - 1))


def part_of(whole: Readable, parameter: Tensor) -> Tensor:
    """Return this rank's part of a tensor that is divided as the parameter; of a tensor a view."""
    if not is_sharded(parameter):
        return whole[...]
    first = first_row(parameter)
    return whole[first : first + len(local(parameter))]


def copy_index(parameter: Tensor) -> tuple[int, int]:
    """Return which copy of a sharded parameter this rank's part is of, and how many there are."""
    mesh = cast(Any, parameter).device_mesh
    return (mesh.get_local_rank(0), mesh.size(0)) if mesh.ndim > 1 else (0, 1)


def shard_index(model: nn.Module) -> int:
    """Return which part of the model this rank keeps: 0 on all ranks if it is not sharded."""
    for p in model.parameters():
        if is_sharded(p):
            mesh = cast(Any, p).device_mesh
            return mesh.get_local_rank(mesh.ndim - 1)
    return 0
