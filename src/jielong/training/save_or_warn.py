"""What a run does when a checkpoint cannot be written, or its ranks have come apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jielong.errors import CheckpointError, TrainingError
from jielong.runtime.parts import shard_index
from jielong.training.saving import record_best, save
from jielong.training.sharded_saving import complete, written
from jielong.training.state import TrainState


def save_checkpoint_or_warn(state: TrainState, last: bool) -> None:
    """Save a checkpoint; with `on_save_error = "continue"` a failure is told and training goes on.

    Args:
        last: the run ends here, so there is no later chance to save: it has been written then.

    Raises:
        CheckpointError: it failed, and this was the last chance or the run should stop.
        TrainingError: the ranks no longer have the same weights; nothing is saved.
    """
    _compare_ranks(state)
    settle_saves(state)  # never two at once: one copy is in memory
    with _told(state, last):
        save(state)
    if last:
        settle_saves(state, last)


def settle_saves(state: TrainState, last: bool = False) -> None:
    """Wait until what is saved has been written; a failure is told, or ends the run on all ranks.

    A sharded checkpoint counts from here on.

    Args:
        last: a failure ends the run whatever the settings say.

    Raises:
        CheckpointError: it could not be written, and the settings say to stop then.
    """
    if state.saving.shared is None:
        with _told(state, last):
            state.saving.wait()
        return
    with state.world.barrier_after():  # the others wait, however long a slow disk takes
        outcome = written(state)
    outcomes = state.world.all_gather(outcome)
    with _told(state, last):
        complete(state, outcomes)
        record_best(state)  # which may be this one


def ask_ranks(state: TrainState, *flags: bool) -> list[bool]:
    """Return each flag, true if any rank set it, and settle what was saved where it is time.

    That is as soon as a rank could not write it or, of a sharded checkpoint, as all have.

    Raises:
        CheckpointError: as `settle_saves`.
    """
    saving = state.saving
    *found, failed, writing = state.world.any_rank(*flags, saving.failed, saving.writing)
    if failed or (saving.shared is not None and not writing):
        settle_saves(state)
    return found


@contextlib.contextmanager
def _told(state: TrainState, last: bool) -> Iterator[None]:
    """Run the block on all ranks; a checkpoint that fails there is told, or ends the run."""
    with state.world.barrier_after():  # the others wait, however long a slow disk takes
        try:
            yield
        except CheckpointError as error:
            if last or state.config.run.on_save_error == "stop":
                raise
            state.console.line(f"{error}; training goes on", style="yellow")


def _compare_ranks(state: TrainState) -> None:
    """A bit that flips in one rank's memory spreads by no gradient: it must be looked for."""
    if state.world.world_size == 1:
        return
    index = shard_index(state.model)  # only ranks with the same part can be compared
    found = state.world.all_gather((index, state.model.checksum()))
    odd = []
    for part in {index for index, _ in found}:
        sums = [value for index, value in found if index == part]
        common = max(sums, key=sums.count)
        odd += [rank for rank, pair in enumerate(found) if pair[0] == part and pair[1] != common]
    if odd:
        odd.sort()
        raise TrainingError(
            f"after step {state.progress.step} the weights on rank {', '.join(map(str, odd))} are "
            "not those of rank 0 (or the other way round, with two ranks): memory of that machine "
            "was damaged; nothing was saved, and the same command goes on from the checkpoint "
            "before"
        )
