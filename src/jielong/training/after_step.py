"""What follows an update where it is time: a checkpoint, and a validation."""

from __future__ import annotations

from jielong.checkpoint.checkpoint import is_kept_for_good
from jielong.training.save_or_warn import save_checkpoint_or_warn
from jielong.training.saving import record_best
from jielong.training.state import TrainState
from jielong.training.validation import stops_early, validate, validation_is_due


def save_and_validate(state: TrainState, overdue: bool, ends: bool) -> tuple[bool, bool]:
    """Save a checkpoint and measure the held-out loss, each if it is due after this step.

    A checkpoint is saved before it is measured: what goes wrong in validation costs no training. It
    is saved once more if it is the best, which is kept, or the last, which knows how good it is.

    Args:
        overdue: the last checkpoint is older than the settings allow.
        ends: the run ends after this step, so there is no later chance to save.

    Returns:
        Whether it saved, and whether it measured.

    Raises:
        CheckpointError: the checkpoint could not be written, and the settings say to stop then.
        TrainingError: the ranks no longer have the same weights.
    """
    step = state.progress.step
    kept = is_kept_for_good(step, state.config.run.keep_interval)
    saves = step % state.plan.save_interval == 0 or kept or overdue or ends
    if saves:
        save_checkpoint_or_warn(state, last=ends)
    if not validation_is_due(state, step):
        return saves, False
    validate(state)
    is_last = step == state.plan.total_steps or stops_early(state)
    if is_last or (state.progress.best_step == step and not saves):
        save_checkpoint_or_warn(state, last=is_last)
        saves = True
    record_best(state)
    return saves, True
