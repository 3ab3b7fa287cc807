"""Sharded checkpoints: each rank writes the rows that it has, and any rows can be read by name.

A shard is a safetensors file as torch's distributed checkpoints have them (DCP's
`HuggingFaceStorageWriter`): its header says at which row each piece begins. `shards.json` has the
shape of every tensor and the shards that its pieces are in. Nothing is pickled. docs/formats.md
has the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from jielong.checkpoint.pieces import LATEST, Piece, quantity_of
from jielong.checkpoint.weights import save_tensors
from jielong.errors import CheckpointError
from jielong.runtime.files import sha256, sync
from jielong.runtime.parts import Readable

INDEX = "shards.json"
FORMAT = 1  # of shards.json
SHARD_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")  # no path out of the folder
DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64)}


@dataclass(frozen=True)
class Shard:
    """What a rank has written: a file, its checksum, and where its pieces belong."""

    file: str
    sha256: str
    size: int  # bytes
    pieces: list[tuple[str, int, tuple[int, ...], tuple[int, ...], str]]
    """Of each: name, first row, shape of the piece, shape of the tensor, type."""


def write_shard(folder: Path, pieces: Sequence[Piece], rank: int, world_size: int) -> Shard | None:
    """Write this rank's pieces into an existing folder, and sync them to disk; none, no file.

    Raises:
        CheckpointError: why it cannot be written, as where the disk is full.
    """
    if not pieces:
        return None
    path = folder / f"shard-{rank + 1:05d}-of-{world_size:05d}.safetensors"
    offsets = {
        piece.name: {
            "saved_offsets": [piece.first if axis == 0 else 0 for axis in range(piece.rows.ndim)]
        }
        for piece in pieces
    }
    metadata = {"DCP_SHARDING_INFO": json.dumps(offsets)}
    rows, places = dict[str, Tensor](), set[int]()
    for piece in pieces:  # buffers are not averaged, so there twice; safetensors refuses that
        again = piece.rows.data_ptr() in places
        places.add(piece.rows.data_ptr())
        rows[piece.name] = piece.rows.clone() if again else piece.rows
    try:
        save_tensors(rows, path, metadata)
        sync(path)
        entries = [
            (p.name, p.first, tuple(p.rows.shape), p.shape, _type_name(p.rows)) for p in pieces
        ]
        return Shard(path.name, sha256(path), path.stat().st_size, entries)
    except OSError as error:
        # save_tensors names the file itself
        why = f"{path.name}: {error.strerror}" if error.strerror else str(error)
        raise CheckpointError(why) from error


def write_index(folder: Path, shards: Sequence[Shard]) -> dict[str, str]:
    """Write `shards.json` beside the shards of all ranks.

    Returns:
        The SHA-256 of each shard, by file.

    Raises:
        CheckpointError: rows of a tensor are in no shard, or a shard is not to be seen here.
    """
    tensors: dict[str, dict[str, Any]] = {}
    for shard in shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.size:
            raise CheckpointError(
                f"{path}: another process wrote it, and here it is not to be seen: all must have "
                "--out-dir on the same disk, under the same path"
            )
        for name, first, rows, shape, dtype in shard.pieces:
            entry = tensors.setdefault(name, {"shape": shape, "dtype": dtype, "pieces": []})
            entry["pieces"].append([shard.file, first, rows[0] if rows else 1])
    for name, entry in tensors.items():
        entry["pieces"].sort(key=lambda piece: piece[1])
        _check_rows(folder, name, entry["shape"], entry["pieces"])
    record = {"format": FORMAT, "tensors": dict(sorted(tensors.items()))}
    (folder / INDEX).write_text(json.dumps(record))
    return {shard.file: shard.sha256 for shard in shards}


class StoredTensor:
    """A tensor whose rows are in one or several shards; reads only those that are asked for."""

    def __init__(
        self, files: _Files, name: str, shape: torch.Size, dtype: torch.dtype, pieces: list[Any]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._files, self._name, self._pieces = files, name, pieces

    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor:
        """Read rows `a:b`, or all with `...`.

        Raises:
            CheckpointError: a shard is missing or damaged, or has other rows than it should.
        """
        if not self.shape:
            return self._files.read(self._pieces[0][0], self._name, self.shape, None)
        start, stop, _ = (slice(None) if rows is ... else rows).indices(self.shape[0])
        found = []
        for file, first, count in self._pieces:
            a, b = max(start, first), min(stop, first + count)
            if a < b:
                shape = torch.Size((count, *self.shape[1:]))
                within = slice(a - first, b - first)
                found.append(self._files.read(file, self._name, shape, within))
        if not found:
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        return found[0] if len(found) == 1 else torch.cat(found)


class ShardedTensors(Mapping[str, StoredTensor]):
    """The tensors of a sharded checkpoint by name, read as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Read where they are.

        Raises:
            CheckpointError: `shards.json` is missing or damaged.
        """
        path = folder / INDEX
        self._files = _Files(folder)
        self._tensors: dict[str, StoredTensor] = {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise CheckpointError(
                    f"{path}: format {record['format']!r} is of another version of jielong than "
                    f"this one, which knows {FORMAT}: update jielong"
                )
            for name, entry in record["tensors"].items():
                self._tensors[name] = self._stored(path, name, entry)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(f"{path}: missing or damaged") from None

    def _stored(self, path: Path, name: str, entry: dict[str, Any]) -> StoredTensor:
        shape, pieces = torch.Size(entry["shape"]), entry["pieces"]
        _check_rows(path, name, shape, pieces)
        for file, _, _ in pieces:
            if not SHARD_NAME.fullmatch(file):
                raise CheckpointError(f"{path}: {file!r} is not a valid name of a shard")
        return StoredTensor(self._files, name, shape, DTYPES[entry["dtype"]], pieces)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def weights(self) -> dict[str, Readable]:
        """The weights of the model, by the names of a model folder."""
        return {name: value for name, value in self.items() if not quantity_of(name)}

    def training_weights(self) -> dict[str, Readable]:
        """The weights to resume from, if they differ from those of the model."""
        return {n.rpartition("/")[0]: v for n, v in self.items() if quantity_of(n) == LATEST}

    def optimizer(self) -> dict[str, Readable]:
        """The optimizer's state, as `{parameter name}/{quantity}`."""
        return {n: value for n, value in self.items() if quantity_of(n) not in ("", LATEST)}


class _Files:
    """The shards of a folder, each opened once; what is read is a view of the file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.open = folder, dict[str, Any]()

    def read(self, file: str, name: str, shape: torch.Size, rows: slice | None) -> Tensor:
        """Read a piece, which must have this shape, or rows of it."""
        path = self.folder / file
        try:
            if file not in self.open:
                self.open[file] = safe_open(path, framework="pt")
            found = self.open[file].get_slice(name)
            if tuple(found.get_shape()) == tuple(shape):
                whole = rows is None or (rows.start, rows.stop) == (0, shape[0])
                tensor: Tensor = self.open[file].get_tensor(name) if whole else found[rows]
                return tensor
        except FileNotFoundError:
            raise CheckpointError(f"{path}: missing") from None
        except Exception as error:  # safetensors has its own type
            raise CheckpointError(f"{path}: damaged, or of another checkpoint: {error}") from None
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(found.get_shape())}, but {INDEX} says {tuple(shape)}"
        )


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_rows(
    where: Path, name: str, shape: Sequence[int], pieces: Sequence[Sequence[Any]]
) -> None:
    """Refuse pieces `(file, first row, rows)`, in order, that are not all rows, each once.

    Raises:
        CheckpointError: they are not.
    """
    end = 0
    for _, first, count in pieces:
        if first != end or count <= 0:
            end = -1
            break
        end += count
    if end != (shape[0] if len(shape) else 1):
        raise CheckpointError(f"{where}: rows of {name} are in no shard, or in several")
