"""The story of a run, top to bottom: prepare, build, resume, loop, log, evaluate, save."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import step_name
from jielong.config.settings import Config
from jielong.data.batches import read_ahead
from jielong.data.shards import verify_dataset
from jielong.observe.console import Display
from jielong.observe.metrics import Averages, MetricsFile
from jielong.observe.trackers import check_tracker, start_tracker
from jielong.runtime.device import choose_device, choose_dtype, describe
from jielong.runtime.distributed import join_ranks
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
    guarded_step,
    out_of_memory_said,
    rewound,
    save_or_say,
    settle_micro_batches,
)
from jielong.training.state import Parts, Progress, build, restore
from jielong.training.summary import explain_first_loss, run_summary, settings_not_used
from jielong.training.validation import catch_up, eval_interval, is_due, is_missing, validate


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
    with join_ranks(device_type) as ranks, out_of_memory_said(), contextlib.ExitStack() as stack:
        device = choose_device(config.training.device, ranks.local_rank)
        dtype = choose_dtype(config.training.dtype, device)
        screen = Display(shown=ranks.is_main and not quiet)
        stack.callback(screen.close)
        screen.line(describe(device, dtype))
        run = RunFolder(config.run.out_dir)
        with ranks.after_main():
            if ranks.is_main:
                check_tracker(config.run.tracker)
                stack.enter_context(run.hold())
                run.settle_config(config, override)
                start = find_starting_point(config, run)
                found = spool_stdin(config, run)
                tokenizer = ensure_tokenizer(found, run, start, screen.line)
                ensure_dataset(found, tokenizer, run, screen.line)
                verify_dataset(dataset_folder(found, run), again=verify)
            else:
                start = StartingPoint()
        start = ranks.gather(start)[0]
        parts = build(config, run, start, ranks, device, dtype)
        progress, notes = restore(parts, start)
        if ranks.is_main:
            run.write_config(config)  # with --override the new settings, now that they fit
        about = run_summary(
            parts.config,
            parts.model.num_parameters(),
            len(parts.dataset.train),
            parts.batches,
            parts.schedule,
            parts.optimizer.peak,
        )
        about.append(attention_in_words(parts))
        for line in [*about, *settings_not_used(config, parts.config), *notes]:
            screen.line(line)
        if progress.step < parts.schedule.total_steps or is_missing(parts, progress):
            settle_micro_batches(parts, progress, screen)
            compile_if_it_pays(parts, progress.pieces or 1, screen)
            with StopSignals() as signals:
                progress = train_to_end(parts, progress, screen, signals)
                received = signals.received
        else:
            screen.line("this run is complete; a larger budget needs --override")
            received = None
        newest = run.checkpoints / step_name(progress.step)
        total = parts.schedule.total_steps
        return RunResult(run.path, newest, progress.step, total, progress.validation, received)


def attention_in_words(parts: Parts) -> str:
    """One line: how attention is computed, and why not in the fastest way."""
    data = parts.config.data
    if data.packing == "pad" or not data.document_mask:
        return "attention causal over the whole window"
    return parts.model.model.attention_in_words(parts.model.device, parts.dtype)


def compile_if_it_pays(parts: Parts, pieces: int, screen: Display) -> None:
    """Compiles the layers where `--compile` and the length of the run say so."""
    windows = parts.batches.windows_before(parts.schedule.total_steps)
    tokens = windows * parts.config.data.max_seq_len
    device = parts.model.device
    if wants_compile(parts.config, parts.model.num_parameters(), tokens, device):
        screen.line("compiling …")
        batch = parts.batches.micro_batches(0, parts.ranks.rank, parts.ranks.world_size)[0]
        problem = compile_layers(parts.model, batch.split(pieces)[0], parts.dtype)
        if problem:
            screen.line(f"torch.compile does not work here, going on without: {problem}", "yellow")


def train_to_end(
    parts: Parts, progress: Progress, screen: Display, signals: StopSignals
) -> Progress:
    """Trains, and goes back to the last checkpoint where the loss jumps and the settings say so."""
    c, run, is_main = parts.config, parts.run, parts.ranks.is_main
    if c.run.on_loss_spike == "rewind" and progress.step == 0:
        save_or_say(parts, progress, screen, last=False)  # there must be one to go back to
    tracker = None
    if is_main:
        name, project = c.run.tracker, c.run.tracker_project
        tracker = start_tracker(name, project, run.path, progress.step, c.flat(), screen.line)
    records = MetricsFile(run.metrics_file, progress.step, progress.omitted, is_main, tracker)
    with contextlib.closing(records):
        while True:
            try:
                train(parts, progress, screen, signals, records)
                return progress
            except LossSpikeError:
                progress = rewound(parts, progress, screen)
                records.rewind(progress.step, progress.omitted)


def train(
    parts: Parts, progress: Progress, screen: Display, signals: StopSignals, records: MetricsFile
) -> None:
    """The loop: step, log, validate, save; until the budget is spent or a signal asks to stop."""
    c, total, ranks = parts.config, parts.schedule.total_steps, parts.ranks
    save_interval = c.run.save_interval or eval_interval(parts)
    screen.start(progress.step, total, parts.batches.windows_before)
    if is_missing(parts, progress):
        catch_up(parts, progress, screen, records)
        if progress.step == total:
            save_or_say(parts, progress, screen, last=True)
    means, last_save = Averages(), time.monotonic()
    steps = range(progress.step, total)
    read = read_ahead(parts.batches, steps, ranks.rank, ranks.world_size, c.data.num_workers)
    with contextlib.closing(read):
        for step, micro_batches in zip(steps, read, strict=True):
            factor = parts.schedule.factor(step)
            result = guarded_step(parts, progress, micro_batches, factor, screen, records)
            done = progress.step = step + 1
            progress.tokens += result.tokens
            means.add(result.loss, result.tokens, result.applied)
            if step == 0 and not c.training.init_from:
                screen.line(explain_first_loss(result.loss, c.model.vocab_size))
            if done % c.run.log_interval == 0 or done == total:
                rate = parts.optimizer.peak * factor
                screen.progress(done, means, rate, result.grad_norm)
                experts = result.expert_metrics()
                records.train(done, means, rate, result.grad_norm, progress.tokens, **experts)
                means.reset()
            overdue = time.monotonic() - last_save > 60 * c.run.save_minutes
            stop, overdue = ranks.agree(signals.received is not None, overdue)
            # saved before it is measured: what goes wrong in validation costs no training
            saves = done % save_interval == 0 or done == total or stop or overdue
            if saves:
                save_or_say(parts, progress, screen, last=stop or done == total)
            if is_due(parts, done):
                validate(parts, progress, screen, records)
                # the best is kept, and the last knows how good it is
                if done == total or (progress.best_step == done and not saves):
                    save_or_say(parts, progress, screen, last=done == total)
                    saves = True
            if saves:
                last_save = time.monotonic()
            if saves or is_due(parts, done):
                means.restart_clock()
            if stop:
                screen.line(f"stopped after step {done}; the same command goes on from there")
                break
