"""What a run does when something goes wrong: memory, a bad batch, a jump of the loss, the disk."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from jielong.checkpoint import checkpoint as ckpt
from jielong.data.batches import Batch
from jielong.errors import CheckpointError, TrainingError, first_line
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile
from jielong.training import spikes
from jielong.training.inputs import StartingPoint, find_starting_point
from jielong.training.memory import (
    DoesNotFitError,
    free_memory,
    is_out_of_memory,
    micro_batch_that_fits,
)
from jielong.training.state import Parts, Progress, restore, save
from jielong.training.step import StepResult, train_step

MAX_SKIPPED = 5  # updates refused in a row before the run stops
MAX_REWINDS = 5
NAMED = 8  # documents of a bad batch that are named


class LossSpikeError(Exception):
    """The loss has jumped, and the run is to go back to its last checkpoint."""


def step_with_recovery(
    parts: Parts,
    progress: Progress,
    batch: Batch,
    lr_scale: float,
    console: Console,
    records: MetricsFile,
) -> StepResult:
    """The step after `progress.step`, taken whole, refused, or left out.

    Args:
        lr_scale: share of the peak learning rate.

    Raises:
        TrainingError: going on would not help.
        LossSpikeError: the loss has jumped, and the settings ask to go back.
    """
    if progress.step in progress.omitted:
        records.write(
            "omitted", progress.step + 1, documents=_documents_of_step(parts, progress.step)[0]
        )
        return StepResult(math.nan, 0, math.nan, applied=False)
    result = _step_that_fits(parts, progress, batch, lr_scale, console)
    if result.applied:
        progress.skipped = 0
        if result.expert_load is not None:
            progress.expert_load = result.expert_load.long().tolist()
        if parts.average:
            parts.average.update(progress.step + 1, lr_scale)
        _watch_loss(parts, progress, result.loss, console, records)
    else:
        _count_refused(parts, progress, result, console, records)
    return result


def _step_that_fits(
    parts: Parts, progress: Progress, batch: Batch, lr_scale: float, console: Console
) -> StepResult:
    """Takes the step in micro-batches that fit; where memory runs out, halves them and repeats."""
    count = parts.batches.span(progress.step).count  # windows in this step, over all ranks
    while True:
        size = progress.micro_batch_size or parts.plan.micro_batch_size
        try:
            return train_step(
                parts.forward,
                parts.optimizer,
                batch.split(math.ceil(count / size)),
                lr_scale=lr_scale,
                grad_clip=parts.config.training.grad_clip,
                dtype=parts.dtype,
                world=parts.world,
                scaler=parts.scaler,
                reference_load=_reference_load(parts, progress),
            )
        except DoesNotFitError as error:
            problem = str(error)
        free_memory()
        half = math.ceil(size / 2)
        if parts.world.world_size > 1:  # the others wait within the pass for what this one owes
            raise TrainingError(
                f"out of memory at step {progress.step + 1} on rank {parts.world.rank}, with "
                f"micro-batches of {size} windows over all ranks: continue with "
                f"--micro-batch-size {half} or auto ({problem})"
            )
        if size == 1:
            raise TrainingError(
                f"out of memory at step {progress.step + 1}, with a single window at a time: use a "
                f"smaller model, a shorter --max-seq-len or more memory ({problem})"
            )
        progress.micro_batch_size = half
        console.line(
            f"out of memory at step {progress.step + 1}: micro-batches of {half} windows from now "
            f"on, not {size}; the updates stay the same",
            style="yellow",
        )


def _reference_load(parts: Parts, progress: Progress) -> Tensor | None:
    """(layers, experts) how busy each expert was in the latest update; before the first: alike."""
    m = parts.config.model
    if not m.use_moe:
        return None
    load = progress.expert_load or [[1] * m.num_experts] * m.num_hidden_layers
    return torch.tensor(load, dtype=torch.float32, device=parts.model.device)


def choose_micro_batch_size(parts: Parts, progress: Progress, console: Console) -> None:
    """Chooses the configured micro-batch size, the one this run used before, or what fits.

    With several ranks it always probes before the first step: an out-of-memory error inside a step
    would leave the others waiting in the all-reduce.
    """
    asked, plan, ranks = parts.config.training.micro_batch_size, parts.plan, parts.world.world_size
    if progress.micro_batch_size is not None:
        return
    progress.micro_batch_size = plan.micro_batch_size
    if asked == "auto" or ranks > 1:
        total = min(plan.global_batch_size, parts.batches.windows)
        windows = parts.batches.ordered(0, np.arange(total))
        share = parts.batches.load(np.array_split(windows, ranks)[0])  # the largest of any rank
        rows = math.ceil(plan.micro_batch_size / ranks)
        fits = micro_batch_that_fits(parts.model, share, parts.dtype, rows)
        smallest = min(parts.world.all_gather(fits))
        if smallest < min(rows, len(share.tokens)):
            progress.micro_batch_size = smallest * ranks
    if asked == "auto" or progress.micro_batch_size < plan.micro_batch_size:
        console.line(
            f"memory: micro-batches of {progress.micro_batch_size} windows fit, of "
            f"{plan.global_batch_size} in the global batch"
        )


@contextlib.contextmanager
def translate_out_of_memory() -> Iterator[None]:
    """Turns memory that runs out anywhere else into an error that says so.

    Raises:
        TrainingError: instead of what torch, or Python, raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory: use a smaller model, a smaller --micro-batch-size or more memory; the "
            f"checkpoints so far are sound ({first_line(error)})"
        ) from None


def _documents_of_step(parts: Parts, step: int) -> tuple[list[int], str]:
    """The documents that a step's batch, of all ranks, has text of; and in words."""
    documents = parts.batches.documents_of(parts.batches.step_windows(step))
    more = " …" if len(documents) > NAMED else ""
    names = ", ".join(map(str, documents[:NAMED]))
    return documents, f"documents {names}{more} of the training split"


def _count_refused(
    parts: Parts, progress: Progress, result: StepResult, console: Console, records: MetricsFile
) -> None:
    """Counts updates refused for a loss or gradient that is not finite, and names their texts."""
    progress.skipped += 1
    documents, where = _documents_of_step(parts, progress.step)
    records.write("skipped", progress.step + 1, documents=documents)
    what = f"loss {result.loss}, gradient norm {result.grad_norm}"
    console.line(f"step {progress.step + 1}: {what} at {where}: update skipped", style="yellow")
    limit = MAX_SKIPPED * (4 if parts.scaler.is_enabled() else 1)  # a scaler finds its scale so
    if progress.skipped >= limit:
        raise TrainingError(
            f"{what} in {limit} steps in a row, up to step {progress.step + 1} ({where}): no "
            f"parameter took any of it, and the checkpoints in {parts.run.checkpoints} are sound; "
            "try a lower --learning-rate, a longer --warmup-steps, or --dtype float32"
        )


def _watch_loss(
    parts: Parts, progress: Progress, loss: float, console: Console, records: MetricsFile
) -> None:
    """Names the texts where the loss jumps, and has the run go back if that is wished."""
    deviations = spikes.score(progress.losses, loss)
    spiking = deviations > spikes.LIMIT
    spikes.remember(progress.losses, loss)
    begins = spiking and not progress.spiking  # said once, however long it lasts
    progress.spiking = spiking
    if not begins:
        return
    documents, where = _documents_of_step(parts, progress.step)
    records.write("spike", progress.step + 1, loss=loss, deviations=deviations, documents=documents)
    console.line(
        f"step {progress.step + 1}: the loss jumps to {loss:.4f}, {deviations:.0f} deviations "
        f"above the latest, at {where}",
        style="yellow",
    )
    if parts.config.run.on_loss_spike == "rewind":
        raise LossSpikeError


def rewind_run(parts: Parts, progress: Progress, console: Console) -> Progress:
    """Goes back to the last checkpoint; the step that spiked and the one before will be left out.

    What shows as a jump at a step is the text of that step or the update of the one before. Bad
    text may be long: each further time twice as many steps after the jump are left out too, from 1
    to 15. (PaLM, Chowdhery et al. 2022, went back about 100 steps and left out 200 to 500 batches.)

    Raises:
        TrainingError: the run has gone back often enough.
    """
    if progress.rewinds >= MAX_REWINDS:
        raise TrainingError(
            f"the loss jumped again at step {progress.step + 1}, after the run had gone back "
            f"{MAX_REWINDS} times: try a lower --learning-rate, or look at the texts named above; "
            f"the checkpoints in {parts.run.checkpoints} are sound"
        )
    sound = progress.step - 1  # later checkpoints have the update before the jump
    if not any(ckpt.step_of(path) <= sound for path in ckpt.checkpoints(parts.run.checkpoints)):
        raise TrainingError(
            f"the loss jumped at step {progress.step + 1}, and no checkpoint is old enough to go "
            "back to: a larger --keep-checkpoints keeps more"
        )
    parts.world.barrier()  # all have looked
    start = StartingPoint()
    with parts.world.barrier_after():
        if parts.world.is_main:
            ckpt.hide_checkpoints_after(parts.run.checkpoints, after=sound)
            start = find_starting_point(parts.config, parts.run)
    before, _ = restore(parts, parts.world.all_gather(start)[0])
    first, last = progress.step - 1, progress.step + 2**progress.rewinds - 1
    before.omitted = sorted({*progress.omitted, *range(first, last + 1)})
    before.rewinds = progress.rewinds + 1
    before.micro_batch_size = progress.micro_batch_size
    console.line(
        f"back to step {before.step}; steps {first + 1} to {last + 1} will be left out",
        style="yellow",
    )
    return before


def save_checkpoint_or_warn(parts: Parts, progress: Progress, console: Console, last: bool) -> None:
    """Saves a checkpoint; with `on_save_error = "continue"` a failure is said and training goes on.

    Args:
        last: the run ends here, so there is no later chance to save.

    Raises:
        CheckpointError: it failed, and this was the last chance or the run should stop.
        TrainingError: the ranks no longer have the same weights; nothing is saved.
    """
    _compare_ranks(parts, progress)
    with parts.world.barrier_after():  # the others wait, however long a slow disk takes
        try:
            save(parts, progress)
        except CheckpointError as error:
            if last or parts.config.run.on_save_error == "stop":
                raise
            console.line(f"{error}; training goes on", style="yellow")


def _compare_ranks(parts: Parts, progress: Progress) -> None:
    """A bit that flips in one rank's memory spreads by no gradient: it must be looked for."""
    if parts.world.world_size == 1:
        return
    sums = parts.world.all_gather(parts.model.checksum())
    if len(set(sums)) > 1:
        common = max(sums, key=sums.count)
        odd = [rank for rank, value in enumerate(sums) if value != common]
        raise TrainingError(
            f"after step {progress.step} the weights on rank {', '.join(map(str, odd))} are not "
            "those of rank 0 (or the other way round, with two ranks): memory of that machine was "
            "damaged; nothing was saved, and the same command goes on from the checkpoint before"
        )
