"""How fast a run goes: the time it still takes, and the budget of `--minutes` kept to its time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from jielong.checkpoint.checkpoint import step_name
from jielong.training.minutes import replace_tokens
from jielong.training.save_or_warn import save_checkpoint_or_warn, settle_saves
from jielong.training.scaling import MOST_EPOCHS
from jielong.training.state import TrainState

# Share of a run from which on its budget stays: the learning rate falls towards the end as planned.
LATEST_CHECK = 0.48
FIRST_CHECK = 0.06  # of the time left must be trained before its speed tells anything,
LATER_CHECK = 0.2  # and so much after a correction, or noise is corrected by noise
MOST_CHANGE = 4.0  # times what is left, in one correction
TOLERANCE = 0.05  # of what is left
LEAST_TOTAL = 1.5  # of the tokens done: the least that a budget is cut to
USED_SHARE = 0.97  # of the time left; the rest is for the end of the run


class Pace:
    """The speed of training since the start, and of the pauses for validations and checkpoints."""

    def __init__(self, work: Callable[[int], float], first_step: int) -> None:
        """Begin at `first_step`.

        Args:
            work: the work done before a step, in any unit: early batches are smaller.
        """
        self.work, self.first_step = work, first_step
        self.step, self.trained_s = first_step, 0.0
        self.pauses: list[float] = []
        self.checked_s = 0.0  # of training when the budget was last looked at

    def trained(self, step: int, seconds: float) -> None:
        """Count time of training, up to `step`."""
        self.step, self.trained_s = step, self.trained_s + seconds

    def paused(self, seconds: float) -> None:
        """Count the time of a validation or checkpoint, of which more will come."""
        self.pauses.append(seconds)

    def tells_enough(self, available: float) -> bool:
        """Whether to look at the budget: first after a share of the time, then after twice as much.

        Args:
            available: seconds until the run should end.
        """
        share = LATER_CHECK if self.first_step else FIRST_CHECK
        return self.trained_s >= max(share * available, 2 * self.checked_s)

    def training_left(self, step: int, total_steps: int) -> float:
        """Return the seconds of training from `step` to `total_steps`."""
        done = self.work(self.step) - self.work(self.first_step)
        return (self.work(total_steps) - self.work(step)) * self.trained_s / max(1.0, done)

    def pauses_left(self, count: int) -> float:
        """Return the seconds of `count` pauses."""
        return count * sum(self.pauses) / len(self.pauses) if self.pauses else 0.0


def seconds_left(state: TrainState, pace: Pace) -> float:
    """Return the seconds that the run still takes."""
    step, total = state.progress.step, state.plan.total_steps
    validations = math.ceil((total - step) / state.plan.eval_interval)
    return pace.training_left(step, total) + pace.pauses_left(validations)


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
    if not pace.tells_enough(available):
        return None
    pace.checked_s = pace.trained_s
    step, total, window = state.progress.step, state.plan.total_steps, state.config.data.max_seq_len
    training = pace.training_left(step, total)
    pauses = seconds_left(state, pace) - training
    # at least half of the time is for training, as in the first budget
    ratio = max(available * USED_SHARE - pauses, available / 2) / max(1e-9, training)
    ratio = min(MOST_CHANGE, max(1 / MOST_CHANGE, ratio))
    done, planned = (state.batches.windows_before(s) * window for s in (step, total))
    # an end right here would leave no steps in which the learning rate falls
    tokens = max(done + (planned - done) * ratio, LEAST_TOTAL * done)
    epoch = len(state.dataset.train) * state.batches.windows / state.batches.main_windows
    tokens = min(tokens, MOST_EPOCHS * epoch)
    return None if abs(tokens - planned) <= TOLERANCE * (planned - done) else round(tokens)
