"""What changes over a run: learning rate, batch size and the pull of weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.insight.subject import Log, Subject, opened, silent
from jielong.present.blocks import Curve, Facts, Page
from jielong.present.result import Result
from jielong.present.words import Say
from jielong.training.run_data import RunData
from jielong.training.schedule import Schedule

MOST_POINTS = 400


@dataclass(frozen=True)
class SchedulePoint:
    """A step, counted from 0; `decay` is the share that weight decay takes from a matrix in it."""

    step: int
    tokens_before: int
    learning_rate: float
    batch_tokens: int
    decay: float


@dataclass(frozen=True)
class ScheduleView(Result):
    """A run's schedule, at no more than MOST_POINTS of its steps."""

    kind: str
    optimizer: str
    total_steps: int
    warmup_steps: int
    decay_steps: int
    peak: float
    weight_decay: float
    tokens: int
    epochs: float
    points: tuple[SchedulePoint, ...]

    def page(self, say: Say) -> Page:
        """Return a curve of each quantity."""
        steps = [float(point.step) for point in self.points]
        phases = say("{n:,} steps of warm-up", n=self.warmup_steps)
        if self.kind == "wsd":
            phases += ", " + say("{n:,} steps of decay at the end", n=self.decay_steps)
        facts = [
            (say("steps"), f"{self.total_steps:,}"),
            (say("tokens"), say("{n:,}, {e:.3g} epochs", n=self.tokens, e=self.epochs)),
            (say("schedule"), f"{self.kind}: {phases}"),
            (say("optimizer"), self.optimizer),
            (say("peak learning rate"), f"{self.peak:g}"),
            (say("weight decay"), f"{self.weight_decay:g}"),
        ]
        curves = (
            (say("learning rate"), [point.learning_rate for point in self.points]),
            (say("tokens in a batch"), [float(point.batch_tokens) for point in self.points]),
            (
                say("weight decay: share taken from a weight in a step (learning rate × decay)"),
                [point.decay for point in self.points],
            ),
        )
        return Page(
            say("Schedule of {n:,} steps", n=self.total_steps),
            [Facts(facts), *(Curve(steps, ys, say("step"), title) for title, ys in curves)],
        )


def inspect_schedule(what: Subject, log: Log = silent, **changes: object) -> ScheduleView:
    """Return the schedule of a run, or of one that settings would start.

    Args:
        what: a run's folder, or settings as `pretrain` takes them.
        log: takes the lines of what has to be prepared for settings.
        **changes: settings that differ from the run's.

    Returns:
        Learning rate, tokens of a batch and weight decay at some of the steps, each counted from 0.

    Raises:
        ConfigError: there is no such run, or a setting is wrong.
        DataError: the text cannot be read, or is not prepared.
    """
    with opened(what, log, **changes) as data:
        return view(data)


def view(data: RunData) -> ScheduleView:
    """Describe the schedule of a run."""
    plan, training, batches = data.plan, data.config.training, data.batches
    total, window = plan.total_steps, data.config.data.max_seq_len
    schedule = Schedule.of(training, total)
    count = min(total, MOST_POINTS)
    steps = sorted({i * (total - 1) // max(1, count - 1) for i in range(count)})
    points = []
    for step in steps:
        rate = plan.learning_rate * schedule.lr_scale(step)
        points.append(
            SchedulePoint(
                step=step,
                tokens_before=batches.windows_before(step) * window,
                learning_rate=rate,
                batch_tokens=batches.span(step).count * window,
                decay=rate * plan.weight_decay,
            )
        )
    windows = batches.windows_before(total)
    return ScheduleView(
        kind=schedule.kind,
        optimizer=training.optimizer,
        total_steps=total,
        warmup_steps=schedule.warmup_steps,
        decay_steps=schedule.decay_steps,
        peak=plan.learning_rate,
        weight_decay=plan.weight_decay,
        tokens=windows * window,
        epochs=windows / batches.windows,
        points=tuple(points),
    )
