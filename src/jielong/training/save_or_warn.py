"""What a run does when a checkpoint cannot be written, or its ranks have come apart."""

from __future__ import annotations

from jielong.errors import CheckpointError, TrainingError
from jielong.training.saving import save
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
    with state.world.barrier_after():  # the others wait, however long a slow disk takes
        try:
            save(state)
            if last:
                state.saving.wait()
        except CheckpointError as error:
            if last or state.config.run.on_save_error == "stop":
                raise
            state.console.line(f"{error}; training goes on", style="yellow")


def settle_saves(state: TrainState) -> None:
    """Wait until what is saved has been written; a failure is told, or ends the run on all ranks.

    Raises:
        CheckpointError: it could not be written, and the settings say to stop then.
    """
    with state.world.barrier_after():
        try:
            state.saving.wait()
        except CheckpointError as error:
            if state.config.run.on_save_error == "stop":
                raise
            state.console.line(f"{error}; training goes on", style="yellow")


def _compare_ranks(state: TrainState) -> None:
    """A bit that flips in one rank's memory spreads by no gradient: it must be looked for."""
    if state.world.world_size == 1:
        return
    sums = state.world.all_gather(state.model.checksum())
    if len(set(sums)) > 1:
        common = max(sums, key=sums.count)
        odd = [rank for rank, value in enumerate(sums) if value != common]
        raise TrainingError(
            f"after step {state.progress.step} the weights on rank {', '.join(map(str, odd))} are "
            "not those of rank 0 (or the other way round, with two ranks): memory of that machine "
            "was damaged; nothing was saved, and the same command goes on from the checkpoint "
            "before"
        )
