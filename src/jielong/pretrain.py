"""The story of a run, top to bottom: prepare, build, resume, loop, log, evaluate, save."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.build import Parts, Progress, build, restore
from jielong.checkpoint import step_name
from jielong.config import Config
from jielong.data.batches import read_ahead
from jielong.device import autocast, choose_device, choose_dtype, describe
from jielong.distributed import join_ranks
from jielong.evaluation.likelihood import evaluate_stream
from jielong.generation.generate import generate_samples
from jielong.generation.sampling import Sampling
from jielong.guard import (
    LossSpikeError,
    guarded_step,
    out_of_memory_said,
    rewound,
    save_or_say,
    settle_micro_batches,
)
from jielong.observe.explain import explain_first_loss, run_summary, settings_not_used
from jielong.observe.metrics import Averages, Display, MetricsFile
from jielong.observe.trackers import check_tracker, start_tracker
from jielong.run import RunFolder, StopSignals
from jielong.stages import ensure_dataset, ensure_tokenizer, spool_stdin
from jielong.training.compilation import compile_layers, wants_compile


@dataclass(frozen=True)
class RunResult:
    """Where a run ended: its newest checkpoint, held-out likelihood, and what stopped it."""

    folder: Path
    checkpoint: Path
    step: int
    total_steps: int
    validation: dict[str, Any] | None
    signal: int | None  # of SIGINT, SIGTERM, SIGUSR1; none if the budget was spent


def pretrain(config: Config, override: bool = False, quiet: bool = False) -> RunResult:
    """Pretrains a model, or goes on where the run in `config.run.out_dir` stopped.

    Args:
        config: all settings; missing stages (tokenizer, dataset) are made.
        override: resume although settings changed that alter the result.
        quiet: print nothing; metrics.jsonl is written all the same.

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
                found = spool_stdin(config, run)
                ensure_dataset(found, ensure_tokenizer(found, run, screen.line), run, screen.line)
        parts = build(config, run, ranks, device, dtype)
        progress, notes = restore(parts)
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
        for line in [*about, *settings_not_used(config, parts.config), *notes]:
            screen.line(line)
        if progress.step < parts.schedule.total_steps:
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
    if parts.config.run.on_loss_spike == "rewind" and progress.step == 0:
        save_or_say(parts, progress, screen, last=False)  # there must be one to go back to
    while True:
        try:
            train(parts, progress, screen, signals)
            return progress
        except LossSpikeError:
            progress = rewound(parts, progress, screen)


def train(parts: Parts, progress: Progress, screen: Display, signals: StopSignals) -> None:
    """The loop: step, log, validate, save; until the budget is spent or a signal asks to stop."""
    c, total, ranks = parts.config, parts.schedule.total_steps, parts.ranks
    eval_interval = c.run.eval_interval or -(-total // 10)
    save_interval = c.run.save_interval or eval_interval
    tracker = None
    if ranks.is_main:
        tracker = start_tracker(
            c.run.tracker, c.run.tracker_project, parts.run.path, c.flat(), screen.line
        )
    records = MetricsFile(parts.run.metrics_file, progress.step, ranks.is_main, tracker)
    screen.start(progress.step, total, parts.batches.windows_before)
    means, last_save = Averages(), time.monotonic()
    steps = range(progress.step, total)
    read = read_ahead(parts.batches, steps, ranks.rank, ranks.world_size, c.data.num_workers)
    with contextlib.closing(records), contextlib.closing(read):
        for step, micro_batches in zip(steps, read, strict=True):
            factor = parts.schedule.factor(step)
            result = guarded_step(parts, progress, micro_batches, factor, screen, records)
            done = progress.step = step + 1
            progress.tokens += result.tokens
            means.add(result)
            if step == 0 and not c.training.init_from:
                screen.line(explain_first_loss(result.loss, c.model.vocab_size))
            if done % c.run.log_interval == 0 or done == total:
                rate = parts.optimizer.peak * factor
                screen.progress(done, means, rate, result.grad_norm)
                records.train(done, means, rate, result, progress.tokens)
                means.reset()
            if done % eval_interval == 0 or done == total:
                with parts.as_measured():
                    validate(parts, progress, screen, records)
                means.restart_clock()
            overdue = time.monotonic() - last_save > 60 * c.run.save_minutes
            stop, overdue = ranks.agree(signals.received is not None, overdue)
            best = progress.best_step == done  # of the validation just done: it is kept
            if done % save_interval == 0 or done == total or stop or overdue or best:
                save_or_say(parts, progress, screen, last=stop or done == total)
                last_save = time.monotonic()
                means.restart_clock()
            if stop:
                screen.line(f"stopped after step {done}; the same command goes on from there")
                break


def validate(parts: Parts, progress: Progress, screen: Display, records: MetricsFile) -> None:
    """Likelihood of the held-out split, and a sample; draws nothing from training's randomness."""
    c, ranks, step = parts.config, parts.ranks, progress.step
    if parts.dataset.validation is not None:
        likelihood = evaluate_stream(
            parts.model,
            parts.dataset.validation,
            c.data.max_seq_len,
            parts.batches.batch_size,
            parts.tokenizer.token_bytes(),
            max_tokens=None if step == parts.schedule.total_steps else c.run.eval_tokens,
            autocast=autocast(parts.model.device, parts.dtype),
            rank=ranks.rank,
            world_size=ranks.world_size,
            sum_over_ranks=ranks.sum_number,
        )
        progress.validation = {"step": step, **dataclasses.asdict(likelihood)}
        if likelihood.loss < (math.inf if progress.best_loss is None else progress.best_loss):
            progress.best_step, progress.best_loss = step, likelihood.loss
        screen.validation(step, likelihood)
        records.write("validation", step, **dataclasses.asdict(likelihood))
    if ranks.is_main and c.run.sample_tokens:
        sampling = Sampling(seed=c.training.seed)
        texts = generate_samples(
            parts.model, parts.tokenizer, parts.prompts, c.run.sample_tokens, sampling
        )
        for prompt, text in zip(parts.prompts, texts, strict=True):
            screen.sample(prompt, text)
            records.write("sample", step, prompt=prompt, text=text)
