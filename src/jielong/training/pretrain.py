"""The story of a run, top to bottom: prepare, build, resume, loop, log, evaluate, save."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import step_name
from jielong.config.settings import Config
from jielong.data.batches import prefetch
from jielong.data.shards import verify_dataset
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile, RunningMetrics
from jielong.observe.trackers import check_tracker, start_tracker
from jielong.runtime.device import choose_device, choose_dtype, describe
from jielong.runtime.distributed import init_world
from jielong.runtime.run_folder import RunFolder, StopSignals
from jielong.training.compilation import compile_layers, wants_compile
from jielong.training.inputs import (
    StartingPoint,
    dataset_folder,
    ensure_dataset,
    ensure_tokenizer,
    find_starting_point,
    spool_stdin,
)
from jielong.training.recovery import (
    LossSpikeError,
    choose_micro_batch_size,
    rewind_run,
    save_checkpoint_or_warn,
    step_with_recovery,
    translate_out_of_memory,
)
from jielong.training.state import Parts, Progress, build, restore
from jielong.training.summary import explain_first_loss, run_summary, settings_not_used
from jielong.training.validation import catch_up, is_due, is_missing, validate


@dataclass(frozen=True)
class RunResult:
    """Where a run ended: its newest checkpoint, held-out likelihood, and what stopped it."""

    folder: Path
    checkpoint: Path
    step: int
    total_steps: int
    validation: dict[str, Any] | None
    signal: int | None  # of SIGINT, SIGTERM, SIGUSR1; none if the budget was spent


def pretrain(
    config: Config, override: bool = False, quiet: bool = False, verify: bool = False
) -> RunResult:
    """Pretrains a model, or goes on where the run in `config.run.out_dir` stopped.

    Args:
        config: all settings; missing stages (tokenizer, dataset) are made.
        override: resume although settings changed that alter the result.
        quiet: print nothing; metrics.jsonl is written all the same.
        verify: compare every file of the dataset with its SHA-256, also if its size and time say
            that it has not changed since that was last done.

    Raises:
        JielongError: ConfigError, DataError, CheckpointError or TrainingError, in plain words.
    """
    device_type = choose_device(config.training.device).type
    with (
        init_world(device_type) as world,
        translate_out_of_memory(),
        contextlib.ExitStack() as stack,
    ):
        device = choose_device(config.training.device, world.local_rank)
        dtype = choose_dtype(config.training.dtype, device)
        console = Console(shown=world.is_main and not quiet)
        stack.callback(console.close)
        console.line(describe(device, dtype))
        run = RunFolder(config.run.out_dir)
        with world.barrier_after():
            if world.is_main:
                check_tracker(config.run.tracker)
                stack.enter_context(run.locked())
                run.check_config(config, override)
                start = find_starting_point(config, run)
                found = spool_stdin(config, run)
                tokenizer = ensure_tokenizer(found, run, start, console.line)
                ensure_dataset(found, tokenizer, run, console.line)
                verify_dataset(dataset_folder(found, run), again=verify)
            else:
                start = StartingPoint()
        start = world.all_gather(start)[0]
        parts = build(config, run, start, world, device, dtype)
        progress, notes = restore(parts, start)
        if world.is_main:
            run.write_config(config)  # with --override the new settings, now that they fit
        parameters, tokens = parts.model.num_parameters(), len(parts.dataset.train)
        about = run_summary(parts.config, parts.plan, parts.batches, parameters, tokens)
        about.append(attention_in_words(parts))
        for line in [*about, *settings_not_used(config, parts.config), *notes]:
            console.line(line)
        if progress.step < parts.plan.total_steps or is_missing(parts, progress):
            choose_micro_batch_size(parts, progress, console)
            compile_if_it_pays(parts, progress, console)
            with StopSignals() as signals:
                progress = train_to_end(parts, progress, console, signals)
                received = signals.received
        else:
            console.line("this run is complete; a larger budget needs --override")
            received = None
        newest = run.checkpoints / step_name(progress.step)
        total = parts.plan.total_steps
        return RunResult(run.path, newest, progress.step, total, progress.validation, received)


def attention_in_words(parts: Parts) -> str:
    """One line: how attention is computed, and why not in the fastest way."""
    data = parts.config.data
    if data.packing == "pad" or not data.document_mask:
        return "attention causal over the whole window"
    return parts.model.model.describe_attention(parts.model.device, parts.dtype)


def compile_if_it_pays(parts: Parts, progress: Progress, console: Console) -> None:
    """Compiles the layers where `--compile` and the length of the run say so."""
    windows = parts.batches.windows_before(parts.plan.total_steps)
    tokens = windows * parts.config.data.max_seq_len
    device = parts.model.device
    if wants_compile(parts.config, parts.model.num_parameters(), tokens, device):
        console.line("compiling …")
        batch = parts.batches.batch(0, parts.world.rank, parts.world.world_size)
        size = progress.micro_batch_size or parts.plan.micro_batch_size
        count = math.ceil(parts.batches.span(0).count / size)
        problem = compile_layers(parts.model, batch.split(count)[0], parts.dtype)
        if problem:
            console.line(f"torch.compile does not work here, going on without: {problem}", "yellow")


def train_to_end(
    parts: Parts, progress: Progress, console: Console, signals: StopSignals
) -> Progress:
    """Trains, and goes back to the last checkpoint where the loss jumps and the settings say so."""
    c, run, is_main = parts.config, parts.run, parts.world.is_main
    if c.run.on_loss_spike == "rewind" and progress.step == 0:
        save_checkpoint_or_warn(
            parts, progress, console, last=False
        )  # there must be one to go back to
    tracker = None
    if is_main:
        name, project = c.run.tracker, c.run.tracker_project
        tracker = start_tracker(name, project, run.path, progress.step, c.flat(), console.line)
    records = MetricsFile(run.metrics_file, progress.step, progress.omitted, is_main, tracker)
    with contextlib.closing(records):
        while True:
            try:
                train(parts, progress, console, signals, records)
                return progress
            except LossSpikeError:
                progress = rewind_run(parts, progress, console)
                records.rewind(progress.step, progress.omitted)


def train(
    parts: Parts, progress: Progress, console: Console, signals: StopSignals, records: MetricsFile
) -> None:
    """The loop: step, log, validate, save; until the budget is spent or a signal asks to stop."""
    c, total, world = parts.config, parts.plan.total_steps, parts.world
    console.start(progress.step, total, parts.batches.windows_before)
    if is_missing(parts, progress):
        catch_up(parts, progress, console, records)
        if progress.step == total:
            save_checkpoint_or_warn(parts, progress, console, last=True)
    means, last_save = RunningMetrics(), time.monotonic()
    steps = range(progress.step, total)
    read = prefetch(parts.batches, steps, world.rank, world.world_size, c.data.num_workers)
    with contextlib.closing(read):
        for step, batch in zip(steps, read, strict=True):
            lr_scale = parts.schedule.lr_scale(step)
            result = step_with_recovery(parts, progress, batch, lr_scale, console, records)
            done = progress.step = step + 1
            progress.tokens += result.tokens
            means.add(result.loss, result.tokens, result.applied)
            if step == 0 and not c.training.init_from:
                console.line(explain_first_loss(result.loss, c.model.vocab_size))
            if done % c.run.log_interval == 0 or done == total:
                rate = parts.optimizer.peak * lr_scale
                console.progress(done, means, rate, result.grad_norm)
                experts = result.expert_metrics()
                records.train(done, means, rate, result.grad_norm, progress.tokens, **experts)
                means.reset()
            overdue = time.monotonic() - last_save > 60 * c.run.save_minutes
            stop, overdue = world.any_rank(signals.received is not None, overdue)
            # saved before it is measured: what goes wrong in validation costs no training
            saves = done % parts.plan.save_interval == 0 or done == total or stop or overdue
            if saves:
                save_checkpoint_or_warn(parts, progress, console, last=stop or done == total)
            if is_due(parts, done):
                validate(parts, progress, console, records)
                # the best is kept, and the last knows how good it is
                if done == total or (progress.best_step == done and not saves):
                    save_checkpoint_or_warn(parts, progress, console, last=done == total)
                    saves = True
            if saves:
                last_save = time.monotonic()
            if saves or is_due(parts, done):
                means.restart_clock()
            if stop:
                console.line(f"stopped after step {done}; the same command goes on from there")
                break
