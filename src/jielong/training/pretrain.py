"""The story of a run, top to bottom: prepare, build, resume, loop, log, evaluate, save."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from jielong.config.settings import Config
from jielong.observe.console import Console
from jielong.observe.metrics import RunningMetrics
from jielong.observe.trackers import check_trackers
from jielong.present.words import language_of
from jielong.runtime.device import choose_device, describe, dtype_of_any_width, fast_products
from jielong.runtime.distributed import World, init_world
from jielong.runtime.run_folder import RunFolder
from jielong.runtime.stop_signals import StopSignals
from jielong.training.after_step import save_and_validate
from jielong.training.chain import teacher_runs, with_last_teacher
from jielong.training.compilation import compile_if_it_pays
from jielong.training.inputs import prepare_inputs
from jielong.training.pace import Pace, corrects_budget, seconds_left
from jielong.training.rate_trial import choose_learning_rate
from jielong.training.recovery import (
    LossSpikeError,
    choose_micro_batch_size,
    rewind_run,
    step_with_recovery,
    translate_out_of_memory,
)
from jielong.training.result import RunResult, result_of
from jielong.training.save_or_warn import ask_ranks, save_checkpoint_or_warn
from jielong.training.saving import restore
from jielong.training.speed import Machine
from jielong.training.starting_point import find_starting_point
from jielong.training.state import TrainState, build, read_batches
from jielong.training.summary import (
    explain_best,
    explain_first_loss,
    run_summary,
    settings_not_used,
)
from jielong.training.validation import (
    measure_best,
    stops_early,
    validate_resumed,
    validation_is_missing,
)
from jielong.training.watch import Watch, watching


def pretrain(
    config: Config,
    override: bool = False,
    quiet: bool = False,
    verify: bool = False,
    language: str = "auto",
) -> RunResult:
    """Pretrain a model, or go on where the run in `config.run.out_dir` stopped.

    Args:
        config: all settings; missing stages (tokenizer, dataset) are made.
        override: resume although settings changed that alter the result.
        quiet: print nothing; metrics.jsonl is written all the same.
        verify: compare every file of the dataset with its SHA-256, also if its size and time say
            that it has not changed since that was last done.
        language: of what is printed: en, zh, or auto, the locale's.

    Raises:
        JielongError: ConfigError, DataError, CheckpointError or TrainingError, in plain words.
    """
    language_of(language)  # a mistake in it is told by all ranks, before they meet
    device_type = choose_device(config.training.device).type
    timeout_s = config.run.rank_timeout
    with init_world(device_type, timeout_s) as world, translate_out_of_memory(), fast_products():
        device = choose_device(config.training.device, world.local_rank)
        dtype = dtype_of_any_width(config.training.dtype, device)
        console = Console(shown=world.is_main and not quiet, language=language)
        with contextlib.closing(console):
            console.line(f"device     {describe(device, dtype)}")
            place = Place(world, Machine(device, world.world_size), console)
            return run(config, place, override, verify)


@dataclass(frozen=True)
class Place:
    """Where a run takes place, and where it says so."""

    world: World
    machine: Machine
    console: Console


def run(config: Config, place: Place, override: bool, verify: bool) -> RunResult:
    """A run, after those that make its teachers."""
    started = time.monotonic()
    pace = Pace()
    result = run_part(config, place, override, verify, started, pace)
    while result is None:  # its budget was corrected
        result = run_part(config, place, override, False, started, pace, goes_on=True)
    return result


def run_part(
    config: Config,
    place: Place,
    override: bool,
    verify: bool,
    started: float,
    pace: Pace,
    goes_on: bool = False,
) -> RunResult | None:
    """A run as far as its end, a signal, or where its budget is corrected: then the result is None.

    Args:
        started: when the run began, as `time.monotonic` says.
        pace: what is known of its speed.
        goes_on: with a corrected budget, of which all has been said.
    """
    world, machine, console = place.world, place.machine, place.console
    log = Console(shown=False).line if goes_on else console.line
    folder = RunFolder(config.run.out_dir)
    with contextlib.ExitStack() as stack:
        with world.barrier_after():
            if world.is_main:
                check_trackers(config.run.tracker)
                stack.enter_context(folder.locked())
                folder.check_config(config, override)
        start = find_starting_point(config, folder, world)
        with world.barrier_after():
            chosen = config
            if world.is_main:
                chosen = prepare_inputs(config, folder, machine, start, log, verify)
        chosen = world.all_gather(chosen)[0]
        teachers = teacher_runs(chosen, folder, start)
        for number, teacher in enumerate(teachers, start=1):
            console.line(f"\n── teacher {number} of {len(teachers)}")
            result = run(teacher, place, override, verify)
            if result.signal is not None:
                return result
        if teachers:
            console.line("\n── the model itself")
        state = build(with_last_teacher(chosen, folder), folder, start, console, world, machine)
        notes = [*restore(state, start), *choose_learning_rate(state, start)]
        if world.is_main:
            folder.write_config(config)  # with --override the new settings, now that they fit
        for line in [*run_summary(state), *settings_not_used(chosen, state.config), *notes]:
            log(line)
        received, progress, state.budget_corrected = None, state.progress, goes_on
        if config.training.minutes is not None and (goes_on or progress.step == 0):
            state.deadline = started + 60 * config.training.minutes
        complete = progress.step >= state.plan.total_steps
        if validation_is_missing(state) or not (complete or stops_early(state)):
            choose_micro_batch_size(state)
            compile_if_it_pays(state)
            with StopSignals() as signals:
                if train_to_end(state, signals, pace):
                    return None
                received = signals.on_any_rank(world)
        elif complete:
            console.line("this run is complete; a larger budget needs --override")
        if received is None and (about_best := explain_best(state)):
            console.line(about_best, "yellow")
        return result_of(state, received, time.monotonic() - started)


def train_to_end(state: TrainState, signals: StopSignals, pace: Pace) -> bool:
    """Train; go back to the last checkpoint where the loss jumps and the settings say so.

    Returns:
        Whether it is not the end, since the budget was corrected.
    """
    run = state.config.run
    if run.on_loss_spike == "rewind" and state.progress.step == 0:
        save_checkpoint_or_warn(state, last=False)  # there must be one to go back to
    with watching(state) as watch:
        while True:
            try:
                corrected = train(state, signals, watch, pace)
                break
            except LossSpikeError:
                rewind_run(state)
                watch.rewind()
        stopped = signals.on_any_rank(state.world) is not None
        watch.goes_on = corrected and not stopped
        step = state.progress.step
        if stopped and step < state.plan.total_steps and not stops_early(state):
            state.console.line(f"stopped after step {step}; the same command goes on from there")
        elif not (stopped or corrected):
            measure_best(state)
    return watch.goes_on


def train(state: TrainState, signals: StopSignals, watch: Watch, pace: Pace) -> bool:
    """The loop: step, log, validate, save; until the budget is spent or a signal asks to stop.

    Returns:
        Whether it ended since the budget was corrected.
    """
    c, total = state.config, state.plan.total_steps
    progress, console = state.progress, state.console
    windows = state.batches.windows_before
    pace.start(windows(progress.step), progress.step, total, state.update_windows)
    console.start(progress.step, total, *watch.curves())
    if validation_is_missing(state):
        validate_resumed(state)
        if progress.step == total:
            save_checkpoint_or_warn(state, last=True)
    means, last_save = RunningMetrics(), time.monotonic()
    steps = range(progress.step, total)
    read = read_batches(state, steps)
    with contextlib.closing(read):
        for step, batch in zip(steps, read, strict=True):
            lr_scale = state.schedule.lr_scale(step)
            result = step_with_recovery(state, batch, lr_scale)
            done = progress.step = step + 1
            progress.tokens += result.tokens
            means.add(result.loss, result.tokens, result.applied)
            if step == 0 and not c.training.init_from:
                console.line(explain_first_loss(result.loss, c.model.vocab_size))
            if done % c.run.log_interval == 0 or done == total:
                lr = state.plan.learning_rate * lr_scale
                pace.trained(windows(done), done, means.seconds)
                watch.training(done, means, lr, result, seconds_left(state, pace))
                means.reset()
            overdue = time.monotonic() - last_save > 60 * c.run.save_minutes
            stop, overdue = ask_ranks(state, signals.received is not None, overdue)
            paused = time.perf_counter()
            saved, validated = save_and_validate(state, overdue, ends=stop or done == total)
            if validated:
                watch.validation()
            if saved:
                last_save = time.monotonic()
            if saved or validated:
                means.restart_clock()
                pace.paused(time.perf_counter() - paused)
            if stop or stops_early(state):
                break
            if corrects_budget(state, pace):
                return True
    return False
