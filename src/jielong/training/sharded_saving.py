"""Sharded checkpoints of a run: each rank writes its part, and at a later boundary they count."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jielong.checkpoint.checkpoint import SavedState, prune, step_of
from jielong.checkpoint.pieces import LATEST, Piece, own_pieces, weight_pieces
from jielong.checkpoint.sharded_save import OpenCheckpoint
from jielong.checkpoint.shards import Shard, write_shard
from jielong.errors import CheckpointError
from jielong.runtime.processors import local_processes
from jielong.training.background import SharedSave

if TYPE_CHECKING:
    from jielong.training.state import TrainState


def save_shards(state: TrainState, saved: SavedState) -> None:
    """Begin a checkpoint of this moment; every rank calls it, and has its part written.

    The checkpoint counts once `complete` has found that all ranks have done so.

    Args:
        saved: what is not divided; rank 0 writes it.

    Raises:
        CheckpointError: on rank 0, the folder cannot be written; the other ranks then do nothing.
    """
    world, saving, folder = state.world, state.saving, state.folder.checkpoints
    opened: OpenCheckpoint | None = None
    problem = None
    if world.is_main:
        try:
            opened = OpenCheckpoint(folder, saved.step)
        except CheckpointError as error:
            problem = error
    # each rank has its own way to the run's folder: another machine may resolve links differently
    place = opened.path.relative_to(folder.resolve()) if opened else None
    place = world.all_gather(place)[0]
    if problem:
        raise problem
    if place is None:
        return
    pieces = _pieces(state)
    rows = {piece.name: piece.rows for piece in pieces}
    background = state.config.run.background_saves and saving.copies.fits(
        rows, sharers=local_processes()
    )
    if background:
        rows = saving.copies.of(rows, "shard/")
        pieces = [dataclasses.replace(piece, rows=rows[piece.name]) for piece in pieces]
    shared = saving.shared = SharedSave(opened)
    new, config, tokenizer = folder / place, state.config.model, state.tokenizer

    def write() -> None:
        shared.shard = write_shard(new, pieces, world.rank, world.world_size)
        if opened:
            opened.write_rest(config, tokenizer, saved)

    saving.run(write)
    if not background:
        saving.rest()


def written(state: TrainState) -> Shard | str | None:
    """Wait for this rank's part: what it has written, if anything, or why it could not."""
    shared = state.saving.shared
    assert shared is not None
    try:
        state.saving.wait()
    except CheckpointError as error:
        return str(error)
    return shared.shard


def complete(state: TrainState, outcomes: Sequence[Shard | str | None]) -> None:
    """Have the checkpoint count that all ranks have written, and drop old ones; rank 0 does so.

    Args:
        outcomes: what `written` gave on each rank.

    Raises:
        CheckpointError: a rank could not write its part; nothing of the checkpoint remains.
    """
    shared, state.saving.shared = state.saving.shared, None
    if shared is None or shared.checkpoint is None:
        return
    for rank, outcome in enumerate(outcomes):
        if isinstance(outcome, str):
            shared.checkpoint.abandon()
            target = shared.checkpoint.target
            raise CheckpointError(f"{target}: cannot be written by rank {rank}: {outcome}")
    made = shared.checkpoint.commit([found for found in outcomes if isinstance(found, Shard)])
    run, best = state.config.run, state.progress.best_step
    prune(made.parent, run.keep_checkpoints, best, step_of(made), run.keep_interval)


def _pieces(state: TrainState) -> list[Piece]:
    """The pieces of weights, their average and the optimizer's state that this rank writes."""
    average = state.average
    pieces = weight_pieces(state.model, average.weights() if average else None)
    if average:
        pieces += weight_pieces(state.model, quantity=LATEST)
    pieces += state.train_step.optimizer.state_pieces()
    return own_pieces(pieces, state.world.rank, state.world.world_size)
