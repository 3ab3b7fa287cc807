"""Which peak learning rate a run takes that goes on from a model: a short trial of a few.

A new kind of text wants the rate of a new run; more of what the model knows wants a lower one,
since a high one first loses what was learnt (docs/experiments.md). The trial trains on the run's
first batches at each rate, compares the held-out losses, and puts everything back but the rate.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from dataclasses import dataclass

import torch

from jielong.config.settings import Config
from jielong.runtime.parts import local
from jielong.training.recovery import choose_micro_batch_size, step_that_fits
from jielong.training.scaling import EVALUATION, RATE_TRIAL_SHARE
from jielong.training.schedule import Schedule
from jielong.training.starting_point import StartingPoint
from jielong.training.state import Progress, TrainState
from jielong.training.validation import likelihood

FACTORS = (1.0, 0.3, 0.1)  # of a new run's rate
SHARE = RATE_TRIAL_SHARE  # the most that the whole trial takes
# A trial ends before a high rate has regained what it lost at first, so it favours low rates: the
# highest rate is taken whose loss is at most so much above the best one's.
TOLERANCE = 0.03
LEAST_STEPS = 3  # at each rate; fewer do not tell the rates apart (docs/experiments.md)
MOST_STEPS = 100


def chooses_rate(config: Config, start: StartingPoint) -> bool:
    """Whether the run chooses its peak learning rate: a new one, from a model, with none given."""
    return start.init_from is not None and config.training.learning_rate is None


def choose_learning_rate(state: TrainState, start: StartingPoint) -> list[str]:
    """Try a few peak learning rates where the run is to choose, and take the best of them.

    Every rank calls it, and all choose alike. The rate becomes part of the plan, which is saved
    with each checkpoint; so a resumed run tries nothing.

    Returns:
        A line for the user on what was tried and chosen; none where there was nothing to choose.
    """
    if not chooses_rate(state.config, start):
        return []
    usual = state.plan.learning_rate
    steps = _steps_of_each(state)
    if state.dataset.validation is None or steps < LEAST_STEPS:
        why = "no text is held out" if state.dataset.validation is None else "the run is too short"
        return [
            f"rate       {usual:.2g}, that of a new run, since {why}: no other was tried; for more "
            f"text of a kind that the model knows, give --learning-rate {0.1 * usual:.2g}"
        ]
    state.console.line(f"trying {len(FACTORS)} learning rates …")
    choose_micro_batch_size(state)
    rates = [float(f"{factor * usual:.2g}") for factor in FACTORS]
    before = _held_out_loss(state, steps)
    losses = [_loss_after(state, rate, steps) for rate in rates]
    # all ranks have the same sums; rank 0 decides, to be safe from a last digit
    chosen = state.world.all_gather(_highest_good(rates, losses))[0]
    state.plan = dataclasses.replace(state.plan, learning_rate=chosen)
    state.train_step.optimizer.peak = chosen
    tried = ", ".join(f"{loss:.4f} at {r:.2g}" for r, loss in zip(rates, losses, strict=True))
    return [
        f"rate       {chosen:.2g}, by a trial of {steps} steps at each of {len(rates)} rates: "
        f"held-out loss {before:.4f}, then {tried} (--learning-rate sets it)"
    ]


def _highest_good(rates: list[float], losses: list[float]) -> float:
    """The highest rate whose loss is near the best one; the lowest if none is finite."""
    best = min(losses)
    if not math.isfinite(best):
        return min(rates)
    near = best * (1 + TOLERANCE)
    return max(rate for rate, loss in zip(rates, losses, strict=True) if loss <= near)


def _steps_of_each(state: TrainState) -> int:
    """Steps at each rate, so that all together take SHARE of the run's work at most."""
    work = state.work_before(state.plan.total_steps)
    # trained at each rate; measured, on as many tokens, before that and once at the start
    shares = len(FACTORS) * (1 + EVALUATION) + EVALUATION
    most = range(min(MOST_STEPS, state.plan.total_steps) + 1)
    return bisect.bisect_right(most, SHARE * work / shares, key=state.work_before) - 1


def _loss_after(state: TrainState, rate: float, steps: int) -> float:
    """The held-out loss after `steps` at a peak rate, with their own warm-up and decay.

    The state is as before: weights, optimizer, random numbers and progress.
    """
    before = _Snapshot.of(state)
    shape = dataclasses.replace(
        state.config.training,
        schedule="wsd",
        warmup_steps=None,
        warmup_ratio=0.1,
        decay_ratio=0.5,
        min_lr_ratio=0.0,
    )
    schedule = Schedule.of(shape, steps)
    state.train_step.optimizer.peak = rate
    world = state.world
    for step in range(steps):
        state.progress.step = step
        state.batches.expect(step)
        batch = state.batches.batch(step, world.rank, world.world_size)
        result = step_that_fits(state, batch, schedule.lr_scale(step))
        if result.applied and result.expert_load is not None:
            state.progress.expert_load = result.expert_load.long().tolist()
    loss = _held_out_loss(state, steps)
    before.put_back(state)
    return loss


def _held_out_loss(state: TrainState, steps: int) -> float:
    """Of the latest weights, on about as many tokens as a trial of `steps` trains on."""
    assert state.dataset.validation is not None
    tokens = state.batches.windows_before(steps) * state.config.data.max_seq_len
    tokens = min(tokens, state.plan.eval_tokens)
    loss = likelihood(state, state.dataset.validation, tokens).loss
    return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class _Snapshot:
    """What a trial changes, as it was at step 0: the optimizer had no state then."""

    weights: dict[str, torch.Tensor]
    scaler: dict[str, object]
    random: torch.Tensor
    peak: float

    @classmethod
    def of(cls, state: TrainState) -> _Snapshot:
        return cls(
            {name: local(value).clone() for name, value in state.model.state_dict().items()},
            state.train_step.scaler.state_dict(),
            torch.get_rng_state(),
            state.train_step.optimizer.peak,
        )

    def put_back(self, state: TrainState) -> None:
        step = state.train_step
        with torch.no_grad():
            for name, value in state.model.state_dict().items():
                local(value).copy_(self.weights[name])
        step.optimizer.load_state_tensors({})
        step.optimizer.zero_grad()
        step.optimizer.peak = self.peak
        step.scaler.load_state_dict(self.scaler)
        torch.set_rng_state(self.random)
        state.progress = Progress(micro_batch_size=state.progress.micro_batch_size)
