"""What each rank writes of a sharded checkpoint: rows of tensors, each written by one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from jielong.checkpoint.weights import stored_tensors
from jielong.model.moe import expert_names
from jielong.model.transformer import Transformer
from jielong.runtime.parts import copy_index, first_row, is_sharded, local

LATEST = "latest"  # quantity: the weights to resume from, where those of the model are an average


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor that this rank has.

    Attributes:
        name: of a weight as a model folder names it, or `{name}/{quantity}`.
        rows: from row `first` on.
        shape: of the whole tensor.
        parameter, of: the parameter as which it is divided, and its name.
    """

    name: str
    rows: Tensor
    first: int
    shape: tuple[int, ...]
    parameter: Tensor
    of: str


def weight_pieces(
    model: Transformer, values: Mapping[str, Tensor] | None = None, quantity: str | None = None
) -> list[Piece]:
    """Return this rank's part of the weights.

    Args:
        values: in place of the model's own, by parameter name; this rank's parts.
        quantity: is added to each name.
    """
    ending, values = f"/{quantity}" if quantity else "", values or {}
    pieces = []
    for name, own in stored_tensors(model).items():
        part, first = values.get(name, local(own)), first_row(own)
        names = expert_names(name, range(first, first + len(part)))
        if not names:  # an empty part counts too: ranks must agree on what there is
            pieces.append(Piece(name + ending, part, first, tuple(own.shape), own, name))
            continue
        for expert, matrix in zip(names, part, strict=True):
            pieces.append(Piece(expert + ending, matrix, 0, tuple(matrix.shape), own, name))
    return pieces


def state_piece(name: str, quantity: str, part: Tensor, parameter: Tensor) -> Piece:
    """Return this rank's part of a quantity of the optimizer's state; a number is whole."""
    if part.ndim == 0:
        return Piece(f"{name}/{quantity}", part, 0, (), part, name)
    shape = tuple(parameter.shape)
    return Piece(f"{name}/{quantity}", part, first_row(parameter), shape, parameter, name)


def own_pieces(pieces: Sequence[Piece], rank: int, world_size: int) -> list[Piece]:
    """Choose which pieces this rank writes, of those that other ranks have too.

    All ranks decide alike, without a word: whoever has least to write comes next. Copies of the
    model (HSDP) take turns with their parts, and all ranks with what each has whole.
    """
    loads, chosen = [0.0] * world_size, list[Piece]()
    alike: dict[tuple[str, bool], list[Piece]] = {}
    for piece in pieces:
        alike.setdefault((piece.of, is_sharded(piece.parameter)), []).append(piece)
    for (_, divided), group in alike.items():
        parameter = group[0].parameter
        own, copies = copy_index(parameter) if divided else (rank, world_size)
        degree = world_size // copies
        turn = min(range(copies), key=lambda copy: loads[copy * degree])
        for each in range(turn * degree, (turn + 1) * degree):
            loads[each] += parameter.numel() / degree
        chosen += group if turn == own else []
    return [piece for piece in chosen if piece.rows.numel()]


def quantity_of(name: str) -> str:
    """Return the quantity in a piece's name; empty for a weight of the model."""
    return name.rpartition("/")[2] if "/" in name else ""
