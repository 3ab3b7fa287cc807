"""Making a sharded checkpoint: all ranks write into one folder, which rank 0 then makes count."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from jielong.checkpoint.checkpoint import (
    SavedState,
    clear_leftovers,
    step_name,
    write_training_state,
)
from jielong.checkpoint.folder import write_model_config
from jielong.checkpoint.manifest import write_manifest
from jielong.checkpoint.shards import Shard, write_index
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError
from jielong.runtime.atomic import atomic_folder
from jielong.tokenization.tokenizer import Tokenizer


class OpenCheckpoint:
    """A checkpoint in the making, on rank 0; the others know its `path` alone."""

    def __init__(self, folder: Path, step: int) -> None:
        """Make the hidden folder that becomes `folder/step-NNNNNNNN`.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        self.target = folder / step_name(step)
        clear_leftovers(folder)
        self._stack = contextlib.ExitStack()
        self.path = self._stack.enter_context(
            atomic_folder(self.target, CheckpointError, replace=True)
        )

    def write_rest(self, config: ModelConfig, tokenizer: Tokenizer, state: SavedState) -> None:
        """Write what is not divided among ranks.

        Raises:
            CheckpointError: why it cannot be written, as where the disk is full.
        """
        try:
            write_model_config(self.path, config, tokenizer)
            tokenizer.save(self.path)
            write_training_state(self.path, state)
        except OSError as error:
            raise CheckpointError(error.strerror or str(error)) from error

    def commit(self, shards: Sequence[Shard]) -> Path:
        """Have the checkpoint count, now that all ranks have written their shards.

        Raises:
            CheckpointError: a shard or a row is missing, or the disk is full; nothing remains then.
        """
        with self._stack:
            write_manifest(self.path, write_index(self.path, shards))
        return self.target

    def abandon(self) -> None:
        """Remove what has been written of it."""
        with contextlib.suppress(CheckpointError), self._stack:
            raise CheckpointError("another rank could not write its shard")
