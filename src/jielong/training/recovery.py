"""What a run does when something goes wrong: memory, a bad batch, a jump of the loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from jielong.checkpoint import checkpoint as ckpt
from jielong.data.batches import Batch
from jielong.errors import TrainingError, first_line
from jielong.model.attention_backends import MIN_MEAN_LENGTH
from jielong.runtime.device import to_device
from jielong.training import spikes
from jielong.training.bigrams import share_at
from jielong.training.divergence import last_useful_checkpoint
from jielong.training.memory import (
    DoesNotFitError,
    free_memory,
    is_out_of_memory,
    micro_batch_that_fits,
    rows_that_fit,
)
from jielong.training.parallel import usable_memory
from jielong.training.save_or_warn import settle_saves
from jielong.training.saving import restore
from jielong.training.starting_point import find_starting_point
from jielong.training.state import TrainState
from jielong.training.step import StepResult
from jielong.training.texts import REPLAY

MAX_SKIPPED = 5  # updates refused in a row before the run stops
MAX_REWINDS = 5
NAMED = 8  # documents of a bad batch that are named


class LossSpikeError(Exception):
    """The loss has jumped, and the run is to go back to its last checkpoint."""


def step_with_recovery(state: TrainState, batch: Batch, lr_scale: float) -> StepResult:
    """The step after `state.progress.step`, taken whole, refused, or left out.

    Args:
        lr_scale: share of the peak learning rate.

    Raises:
        TrainingError: going on would not help.
        LossSpikeError: the loss has jumped, and the settings ask to go back.
    """
    progress = state.progress
    if state.profiler:
        state.profiler.before(progress.step, state.plan.total_steps, state.console.line)
    if progress.step in progress.omitted:
        documents, _ = _documents_of_step(state)
        state.metrics.write("omitted", progress.step + 1, **documents)
        return StepResult(math.nan, 0, math.nan, applied=False)
    result = step_that_fits(state, batch, lr_scale)
    if result.applied:
        progress.skipped = 0
        if result.expert_load is not None:
            progress.expert_load = result.expert_load.long().tolist()
        if state.average:
            state.average.update(progress.step + 1, lr_scale)
        _watch_loss(state, result.loss)
    else:
        _count_refused(state, result)
    return result


def step_that_fits(state: TrainState, batch: Batch, lr_scale: float) -> StepResult:
    """Take the step in micro-batches that fit; where memory runs out, halve them and repeat.

    All ranks learn with the sum of their gradients that one of them had too little memory.
    """
    progress, world = state.progress, state.world
    step, load = progress.step + 1, _reference_load(state)
    bigram_share = share_at(progress.step, state.plan.total_steps, state.plan.bigram_share)
    while True:
        try:
            with world.limit(f"step {step}"):
                micro_batches = state.micro_batches(batch, progress.step)
                return state.train_step(micro_batches, lr_scale, load, bigram_share)
        except DoesNotFitError as error:
            problem = str(error)
        free_memory()
        size = state.micro_batch_size
        half = math.ceil(size / 2)
        if size <= world.world_size:
            raise TrainingError(
                f"out of memory at step {step}, with a single window at a time: use a smaller "
                "model, a shorter --max-seq-len, --activation-checkpointing full or more memory "
                f"({problem})"
            )
        progress.micro_batch_size = half
        state.console.line(
            f"out of memory at step {step}: micro-batches of {half} windows from now on, not "
            f"{size}; the updates stay the same",
            style="yellow",
        )


def _reference_load(state: TrainState) -> Tensor | None:
    """(layers, experts) how busy each expert was in the latest update; before the first: alike."""
    m = state.config.model
    if not m.use_moe:
        return None
    load = state.progress.expert_load or [[1] * m.num_experts] * m.num_hidden_layers
    return to_device(torch.tensor(load, dtype=torch.float32), state.model.device)


def choose_micro_batch_size(state: TrainState) -> None:
    """Choose the configured micro-batch size, the one this run used before, or what fits."""
    asked, plan = state.config.training.micro_batch_size, state.plan
    if state.progress.micro_batch_size is not None:
        return
    chosen = _tried_to_fit(state, _estimated_to_fit(state, plan.micro_batch_size))
    state.progress.micro_batch_size = chosen
    if asked == "auto" or chosen < plan.micro_batch_size:
        state.console.line(
            f"memory     micro-batches of {chosen} windows fit, of {plan.global_batch_size} in the "
            "global batch"
        )


def _estimated_to_fit(state: TrainState, windows: int) -> int:
    """At most so many windows, over all ranks, as fit by an estimate: where no trial would tell.

    That is on a CPU, which would end the process, and with a model that is divided among ranks:
    each pass takes all of them, so none can try by itself.
    """
    sharding, teacher, world = state.train_step.sharding, state.train_step.teacher, state.world
    on_cpu = state.model.device.type == "cpu"
    if not (on_cpu or sharding):
        return windows
    fitting = rows_that_fit(
        state.plan.model,
        math.ceil(windows / world.world_size),
        state.config.data.max_seq_len,
        _masked_keys(state),
        state.model.model.recompute_every,
        teacher.model.config if teacher else None,
        sharding,
        available=None if on_cpu else usable_memory(state.model.device),
    )
    windows = min(windows, fitting * world.world_size)
    return min(world.all_gather(windows)) if sharding else windows


def _tried_to_fit(state: TrainState, windows: int) -> int:
    """At most so many windows, over all ranks, as fit by a trial, where that is wanted.

    With several ranks it always is: to find out within a step costs that step's passes on all of
    them.
    """
    step, ranks = state.train_step, state.world.world_size
    wanted = state.config.training.micro_batch_size == "auto" or ranks > 1
    if step.sharding or not wanted:
        return windows
    total = min(state.plan.global_batch_size, state.batches.windows)
    ordered = state.batches.ordered(0, np.arange(total))
    share = state.batches.load(np.array_split(ordered, ranks)[0])  # the largest of any rank
    rows = math.ceil(windows / ranks)
    fits = micro_batch_that_fits(state.model, share, step.dtype, rows, step.teacher)
    smallest = min(state.world.all_gather(fits))
    return smallest * ranks if smallest < min(rows, len(share.tokens)) else windows


def _masked_keys(state: TrainState) -> int:
    """Keys that the mask has for each token on a CPU: those of its document, or of the window."""
    data, train = state.config.data, state.dataset.train
    if data.packing == "pad" or not data.document_mask or state.model.device.type != "cpu":
        return 0
    length = len(train) // max(1, len(train.documents))
    return data.max_seq_len if length < MIN_MEAN_LENGTH else min(length, data.max_seq_len)


@contextlib.contextmanager
def translate_out_of_memory() -> Iterator[None]:
    """Turn memory that runs out anywhere else into an error that says so.

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


def _documents_of_step(state: TrainState) -> tuple[dict[str, list[int]], str]:
    """The documents that the next step's batch, of all ranks, has text of; and in words."""
    step, batches = state.progress.step, state.batches
    windows, epoch = batches.step_windows(step), batches.span(step).epoch
    documents = {"documents": batches.documents_of(windows, epoch)}
    where = f"documents {_named(documents['documents'])} of the training split"
    others = zip(state.texts.others, batches.mixed_documents_of(windows, epoch), strict=True)
    for text, found in others:
        if found:
            name = "replayed" if text.name == REPLAY else text.name
            documents[f"{name}_documents"] = found
            where += f" and {_named(found)} of the {name} text"
    return documents, where


def _named(documents: list[int]) -> str:
    return ", ".join(map(str, documents[:NAMED])) + (" …" if len(documents) > NAMED else "")


def _count_refused(state: TrainState, result: StepResult) -> None:
    """Count updates refused for a loss or gradient that is not finite, and name their texts."""
    progress, step = state.progress, state.progress.step + 1
    progress.skipped += 1
    documents, where = _documents_of_step(state)
    state.metrics.write("skipped", step, **documents)
    what = f"loss {result.loss}, gradient norm {result.grad_norm}"
    state.console.line(f"step {step}: {what} at {where}: update skipped", style="yellow")
    scaled = state.train_step.scaler.is_enabled()  # a scaler finds its scale by refusals
    limit = MAX_SKIPPED * (4 if scaled else 1)
    if progress.skipped >= limit:
        raise TrainingError(
            f"the run has diverged: {what} in {limit} steps in a row, up to step {step} ({where}); "
            f"no parameter took any of it, and {last_useful_checkpoint(state)}; try a lower "
            "--learning-rate, a longer --warmup-steps, or --dtype float32"
        )


def _watch_loss(state: TrainState, loss: float) -> None:
    """Name the texts where the loss jumps, and have the run go back if the settings say so."""
    progress, step = state.progress, state.progress.step + 1
    deviations = spikes.score(progress.losses, loss)
    spiking = deviations > spikes.LIMIT
    spikes.remember(progress.losses, loss)
    begins = spiking and not progress.spiking  # said once, however long it lasts
    progress.spiking = spiking
    if not begins:
        return
    documents, where = _documents_of_step(state)
    state.metrics.write("spike", step, loss=loss, deviations=deviations, **documents)
    state.console.line(
        f"step {step}: the loss jumps to {loss:.4f}, {deviations:.0f} deviations above the "
        f"latest, at {where}",
        style="yellow",
    )
    if state.config.run.on_loss_spike == "rewind":
        raise LossSpikeError


def rewind_run(state: TrainState) -> None:
    """Go back to the last checkpoint; the step that spiked and the one before will be left out.

    What shows as a jump at a step is the text of that step or the update of the one before. Bad
    text may be long: each further time twice as many steps after the jump are left out too, from 1
    to 15. (PaLM, Chowdhery et al. 2022, went back about 100 steps and left out 200 to 500 batches.)

    Raises:
        TrainingError: the run has gone back often enough.
    """
    jumped, world, folder = state.progress, state.world, state.folder
    if jumped.rewinds >= MAX_REWINDS:
        raise TrainingError(
            f"the loss jumped again at step {jumped.step + 1}, after the run had gone back "
            f"{MAX_REWINDS} times: try a lower --learning-rate, or look at the texts named above; "
            f"{last_useful_checkpoint(state)}"
        )
    settle_saves(state)
    sound = jumped.step - 1  # later checkpoints have the update before the jump
    if not any(ckpt.step_of(path) <= sound for path in ckpt.checkpoints(folder.checkpoints)):
        raise TrainingError(
            f"the loss jumped at step {jumped.step + 1}, and no checkpoint is old enough to go "
            "back to: a larger --keep-checkpoints keeps more"
        )
    world.barrier()  # all have looked
    with world.barrier_after():
        if world.is_main:
            ckpt.hide_checkpoints_after(folder.checkpoints, after=sound)
    restore(state, find_starting_point(state.config, folder, world))
    first, last = jumped.step - 1, jumped.step + 2**jumped.rewinds - 1
    state.progress.omitted = sorted({*jumped.omitted, *range(first, last + 1)})
    state.progress.rewinds = jumped.rewinds + 1
    state.progress.micro_batch_size = jumped.micro_batch_size
    state.console.line(
        f"back to step {state.progress.step}; steps {first + 1} to {last + 1} will be left out",
        style="yellow",
    )
