"""What a run does when something goes wrong: a bad batch, a disk that is full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jielong.build import Parts, Progress, save
from jielong.data.batches import Batch
from jielong.errors import CheckpointError, TrainingError
from jielong.observe.metrics import Display
from jielong.training.step import StepResult

MAX_SKIPPED = 5  # updates refused in a row before the run stops
NAMED = 8  # documents of a bad batch that are named


def guard(
    parts: Parts,
    progress: Progress,
    result: StepResult,
    batches: Sequence[Batch],
    screen: Display,
) -> None:
    """Counts updates refused for a loss or gradient that is not finite.

    Raises:
        TrainingError: too many in a row: more of the same would not help.
    """
    if result.applied:
        progress.skipped = 0
        return
    progress.skipped += 1
    windows = np.concatenate([batch.windows for batch in batches])
    documents = parts.batches.documents_of(windows)
    more = " …" if len(documents) > NAMED else ""
    what = f"loss {result.loss}, gradient norm {result.grad_norm}"
    where = f"documents {', '.join(map(str, documents[:NAMED]))}{more} of the training split"
    screen.line(f"step {progress.step + 1}: {what} at {where}: update skipped", style="yellow")
    limit = MAX_SKIPPED * (4 if parts.scaler.is_enabled() else 1)  # a scaler finds its scale so
    if progress.skipped >= limit:
        raise TrainingError(
            f"{what} in {limit} steps in a row, up to step {progress.step + 1} ({where}): no "
            f"parameter took any of it, and the checkpoints in {parts.run.checkpoints} are sound; "
            "try a lower --learning-rate, a longer --warmup-steps, or --dtype float32"
        )


def save_or_say(parts: Parts, progress: Progress, screen: Display) -> None:
    """Saves a checkpoint; with `on_save_error = "continue"` a failure is said and training goes on.

    Raises:
        CheckpointError: it failed and the run should stop, or there is no later chance to save.
    """
    try:
        save(parts, progress)
    except CheckpointError as error:
        last = progress.step == parts.schedule.total_steps
        if last or parts.config.run.on_save_error == "stop":
            raise
        screen.line(f"{error}; training goes on", style="yellow")
