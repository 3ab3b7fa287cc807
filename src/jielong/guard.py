"""What a run does when something goes wrong: a bad batch, a disk that is full."""

from __future__ import annotations

from jielong.build import Parts, Progress, save
from jielong.errors import CheckpointError, TrainingError
from jielong.observe.metrics import Display, MetricsFile
from jielong.training.step import StepResult

MAX_SKIPPED = 5  # updates refused in a row before the run stops
NAMED = 8  # documents of a bad batch that are named


def guard(
    parts: Parts,
    progress: Progress,
    result: StepResult,
    screen: Display,
    records: MetricsFile,
) -> None:
    """Counts updates refused for a loss or gradient that is not finite, and names their texts.

    The documents are those of all ranks, whichever of them met the fault.

    Raises:
        TrainingError: too many in a row: more of the same would not help.
    """
    if result.applied:
        progress.skipped = 0
        return
    progress.skipped += 1
    documents = parts.batches.documents_of(parts.batches.step_windows(progress.step))
    records.write("skipped", progress.step + 1, documents=documents)
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


def save_or_say(parts: Parts, progress: Progress, screen: Display, last: bool) -> None:
    """Saves a checkpoint; with `on_save_error = "continue"` a failure is said and training goes on.

    Args:
        last: the run ends here, so there is no later chance to save.

    Raises:
        CheckpointError: it failed, and this was the last chance or the run should stop.
    """
    try:
        save(parts, progress)
    except CheckpointError as error:
        if last or parts.config.run.on_save_error == "stop":
            raise
        screen.line(f"{error}; training goes on", style="yellow")
