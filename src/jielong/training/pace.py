"""How fast a run goes: the time it still takes, and the budget of `--minutes` kept to its time."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass

from jielong.checkpoint.checkpoint import step_name
from jielong.training.minutes import PAUSE_S, replace_tokens
from jielong.training.save_or_warn import save_checkpoint_or_warn, settle_saves
from jielong.training.scaling import EVALUATION, MOST_EPOCHS
from jielong.training.state import TrainState

# Share of a run from which on its budget stays: the learning rate falls towards the end as planned.
LATEST_CHECK = 0.48
MOST_CHANGE = 4.0  # times what is left, in one correction
LEAST_TOTAL = 1.5  # of the tokens done: the least that a budget is cut to
USED_SHARE = 0.99  # of the time left; the rest is for noise
END_S = 1.5  # for the last checkpoint and report


@dataclass(frozen=True)
class Check:
    """A look at the budget: from which share of the run on, and the error that is let pass."""

    share: float  # of the steps, or of the time if that comes first
    tolerance: float  # of the training that is left


# Early on only what is grossly wrong is corrected: the speed of the first, smaller batches tells
# little of that of the others, and a correction costs a restart. The last one settles it.
CHECKS = (Check(0.1, 0.3), Check(0.25, 0.1), Check(0.44, 0.015))


@dataclass(frozen=True)
class Work:
    """What training consists of: windows that are passed through the model, and updates."""

    windows: float
    updates: float

    def __add__(self, other: Work) -> Work:
        return Work(self.windows + other.windows, self.updates + other.updates)

    def __sub__(self, other: Work) -> Work:
        return Work(self.windows - other.windows, self.updates - other.updates)


class _UpdateFit:
    """What an update costs beside a window, by stretches with batches of different sizes.

    Least squares of a · windows + b · updates against the seconds of each stretch, relative to
    them. As long as the sizes are alike they do not tell the two apart. So one more observation, as
    heavy as a stretch, says that b is what was expected.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums = [0.0] * 5  # of x², xy, y², x and y: see `add`

    def add(self, work: Work, seconds: float) -> None:
        """Count a stretch of training."""
        x, y = (amount / max(1e-9, seconds) for amount in (work.windows, work.updates))
        self.sums = [a + b for a, b in zip(self.sums, (x * x, x * y, y * y, x, y), strict=True)]
        self.count += 1

    def windows_of_update(self, expected: float) -> float:
        """Return b / a: the windows that are trained on in the time of an update."""
        if not self.count:
            return expected
        xx, xy, yy, x, y = self.sums
        weight = yy / self.count
        xx, xy, yy = xx + weight * expected**2, xy - weight * expected, yy + weight
        a, b = x * yy - y * xy, y * xx - x * xy
        return max(0.0, b / a) if a > 0 else expected


class Pace:
    """The speed of training by its latest half, and of the pauses for validations and checkpoints.

    A run keeps it when its budget is corrected, so that what was measured counts on.
    """

    def __init__(self) -> None:
        self.done = Work(0.0, 0)  # up to which training has been measured
        self.recent = Work(0.0, 0)  # of the latest half
        self.total_s = self.recent_s = 0.0
        self.stretches: deque[tuple[Work, float]] = deque()  # of the latest half, with seconds
        self.fit = _UpdateFit()
        self.expected = 0.0
        self.pauses: list[float] = []
        self.checks = 0  # of CHECKS that are done

    def start(self, windows: float, step: int, total_steps: int, update: float) -> None:
        """Training begins, or goes on, at `step`, after so many `windows`.

        Args:
            update: windows that are trained on in the time of an update, as far as is known.
        """
        self.done, self.expected = Work(windows, step), update
        self.checks = sum(step >= check.share * total_steps for check in CHECKS)

    def trained(self, windows: float, step: int, seconds: float) -> None:
        """Count the seconds of training since the last call, up to `windows` and `step`."""
        done = Work(windows, step)
        work, self.done = done - self.done, done
        self.stretches.append((work, seconds))
        self.fit.add(work, seconds)
        self.total_s += seconds
        self.recent_s += seconds
        self.recent += work
        while len(self.stretches) > 1 and self.recent_s - self.stretches[0][1] >= self.total_s / 2:
            old, old_s = self.stretches.popleft()
            self.recent_s -= old_s
            self.recent -= old

    def paused(self, seconds: float) -> None:
        """Count the time of a validation or checkpoint."""
        self.pauses.append(seconds)

    def seconds_of(self, windows: float, updates: float) -> float:
        """Return the seconds of training that some windows and updates take."""
        update = self.fit.windows_of_update(self.expected)
        recent = self.recent.windows + update * self.recent.updates
        return (windows + update * updates) * self.recent_s / max(1e-9, recent)

    def pause_s(self, expected: float) -> float:
        """Return the seconds of a pause: the median of what was `expected` and of those so far.

        Not the mean, since the first one also imports what it needs.
        """
        return statistics.median_low([expected, *self.pauses])

    def check_due(
        self, step: int, next_step: int, total_steps: int, available: float
    ) -> Check | None:
        """Return the check of the budget that is due after `step`, once.

        Args:
            next_step: when this is asked again; the last check comes before it would be too late.
            available: seconds until the run should end.
        """
        share = max(step / total_steps, self.total_s / max(1e-9, self.total_s + available))
        due = sum(share >= check.share for check in CHECKS)
        if next_step >= LATEST_CHECK * total_steps:
            due = len(CHECKS)
        if due <= self.checks:
            return None
        self.checks = due
        return CHECKS[due - 1]


def training_left(state: TrainState, pace: Pace) -> float:
    """Return the seconds of training until the end of the run."""
    step, total = state.progress.step, state.plan.total_steps
    windows = state.batches.windows_before(total) - state.batches.windows_before(step)
    return pace.seconds_of(windows, total - step)


def pauses_left(state: TrainState, pace: Pace) -> float:
    """Return the seconds of validations until the end of the run, with the one of all the text."""
    plan, window = state.plan, state.config.data.max_seq_len
    splits = [text.dataset.validation for text in state.texts.every]
    whole = [len(split) for split in splits if split is not None]
    each = [min(tokens, plan.eval_tokens) for tokens in whole]
    expected = PAUSE_S + EVALUATION * pace.seconds_of(sum(each) / window, 0)
    count = float(math.ceil((plan.total_steps - state.progress.step) / plan.eval_interval))
    if each != whole:
        count += sum(whole) / sum(each)
    return count * pace.pause_s(expected)


def seconds_left(state: TrainState, pace: Pace) -> float:
    """Return the seconds that the run still takes."""
    return training_left(state, pace) + pauses_left(state, pace)


def corrects_budget(state: TrainState, pace: Pace) -> bool:
    """Give a run of `--minutes` another budget where it would end too early or too late.

    What was measured before the run are some seconds, perhaps odd ones. The run then goes on from a
    checkpoint, saved here, as it would if the user gave it another budget.

    Returns:
        Whether the budget has changed.
    """
    step, total = state.progress.step, state.plan.total_steps
    logged = step % state.config.run.log_interval == 0
    if state.deadline is None or not logged or step >= LATEST_CHECK * total:
        return False
    tokens = _fitting_tokens(state, pace, state.deadline - time.monotonic())
    checkpoint = state.folder.checkpoints / step_name(step)
    # rank 0 decides: each has its own clock, and on another machine perhaps no such folder
    tokens = state.world.all_gather(tokens)[0]
    if tokens is None:
        return False
    settle_saves(state)  # one of this step may be on its way
    saved = state.world.all_gather(checkpoint.is_dir())[0]
    if not saved:
        save_checkpoint_or_warn(state, last=False)
        settle_saves(state)
        saved = state.world.all_gather(checkpoint.is_dir())[0]
    if not saved:  # there is none to go on from
        return False
    with state.world.barrier_after():
        if state.world.is_main:
            replace_tokens(state.folder, tokens)
    before = state.batches.windows_before(total) * state.config.data.max_seq_len
    change = "slower" if tokens < before else "faster"
    state.console.line(
        f"── step {step} · training is {change} than expected: "
        f"{tokens / 1e6:.2f}M tokens instead of {before / 1e6:.2f}M, to end in time"
    )
    return True


def _fitting_tokens(state: TrainState, pace: Pace, available: float) -> int | None:
    """Tokens of a run that ends in `available` seconds; none if it does so about as it is."""
    step, total, window = state.progress.step, state.plan.total_steps, state.config.data.max_seq_len
    check = pace.check_due(step, step + state.config.run.log_interval, total, available)
    if check is None:
        return None
    training = training_left(state, pace)
    pauses = pauses_left(state, pace) + END_S
    # at least half of the time is for training, as in the first budget
    ratio = max(available * USED_SHARE - pauses, available / 2) / max(1e-9, training)
    ratio = min(MOST_CHANGE, max(1 / MOST_CHANGE, ratio))
    done, planned = (state.batches.windows_before(s) * window for s in (step, total))
    # an end right here would leave no steps in which the learning rate falls
    tokens = max(done + (planned - done) * ratio, LEAST_TOTAL * done)
    epoch = len(state.dataset.train) * state.batches.windows / state.batches.main_windows
    tokens = min(tokens, MOST_EPOCHS * epoch)
    change = abs(tokens - planned) / (planned - done)
    # a correction is a restart, which takes about as long as a pause
    gained = change * training > max(END_S, pace.pause_s(END_S))
    return round(tokens) if gained and change > check.tolerance else None
