"""The tensors of a model folder or checkpoint by name, whole or in shards, read as asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from jielong.checkpoint.shards import INDEX, ShardedTensors
from jielong.checkpoint.weights import load_folder_tensors, load_tensors
from jielong.errors import CheckpointError
from jielong.runtime.device import available_memory
from jielong.runtime.parts import Readable

TRAINING_WEIGHTS = "training_weights.safetensors"  # exists if the model's weights are an average


class Stored:
    """The tensors of a checkpoint, or the weights of a model folder; read when they are asked for.

    Of a sharded checkpoint each reads where all of them are (`shards.json`) once, when it is made.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            CheckpointError: its `shards.json` is damaged.
        """
        self.folder = folder
        self._shards = ShardedTensors(folder) if _in_shards(folder) else None

    def weights(self) -> Mapping[str, Readable]:
        """Return the weights of the model, by the names of a model folder.

        Raises:
            CheckpointError: a file or weight is missing or damaged.
        """
        return self._shards.weights() if self._shards else load_folder_tensors(self.folder)

    def training_weights(self) -> Mapping[str, Readable] | None:
        """Return the weights to resume from; None if they are those of the model.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if self._shards:
            return self._shards.training_weights() or None
        path = self.folder / TRAINING_WEIGHTS
        return load_tensors(path) if path.exists() else None

    def optimizer(self) -> Mapping[str, Readable]:
        """Return the optimizer's state, as `{parameter name}/{quantity}`.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if self._shards:
            return self._shards.optimizer()
        return load_tensors(self.folder / "optimizer.safetensors")


def check_room(tensors: Mapping[str, Readable], folder: Path) -> None:
    """Refuse weights in shards that do not fit in memory: the system would end us without a word.

    Raises:
        CheckpointError: they do not.
    """
    if not _in_shards(folder):
        return
    needed = sum(4 * math.prod(value.shape) for value in tensors.values())
    free = available_memory()
    if free is not None and needed > free:
        raise CheckpointError(
            f"{folder}: the whole model takes {needed / 2**30:,.1f} GiB of memory in float32, and "
            f"{free / 2**30:,.1f} GiB are free: `jielong export` makes a folder of it in bfloat16 "
            "for other programs, tensor by tensor"
        )


def _in_shards(folder: Path) -> bool:
    return (folder / INDEX).is_file()
