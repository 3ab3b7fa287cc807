"""The curves of a run: each against its steps, its tokens and its time."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import replace

from jielong.observe.times import duration
from jielong.present.words import Say
from jielong.reports.charts import Chart, Figure, Series, thin
from jielong.reports.history import Record, RunHistory, number

MISSING = "No curves: they need matplotlib (pip install 'jielong[plots]', then jielong report)."


def figures(run: RunHistory, say: Say) -> list[Figure]:
    """Return the charts of a run that has records of training."""
    ticks, steps = _ticks(run), [r["step"] for r in run.train]
    found: list[Figure] = []

    def add(title: str, *series: Series, keys: Sequence[tuple[int, str]] = (), **how: bool) -> None:
        drawn = [s for s in series if s.xs]
        if drawn:
            chart = Chart(drawn, ticks, **how)
            found.append(Figure(say(title), chart, say("step / tokens / time"), keys))

    held_out = points(run.validations, "loss", colour=1)
    keys = [(0, say("training")), (1, say("held-out"))] if held_out.xs else [(0, say("training"))]
    add("Loss (nats per token)", _curve(run, steps, "loss"), held_out, keys=keys, cut_top=True)
    best = run.validations.index(run.best) if run.best else None
    bits = replace(points(run.validations, "bits_per_byte", colour=1), best=best)
    older = points(run.records.get("replay_validation", []), "bits_per_byte", colour=3)
    keys = [(1, f"{say('held-out')} · {say('★ the best checkpoint')}")]
    keys += [(3, say("older text"))] if older.xs else []
    add("Held-out text (bits per byte)", bits, older, keys=keys)
    add("Learning rate", _curve(run, steps, "learning_rate", colour=2))
    add("Gradient norm", _curve(run, steps, "grad_norm", colour=3), log=True)
    add("Speed (tokens per second)", _curve(run, steps, "tokens_per_second", colour=6))
    add("Busiest expert over the mean", _curve(run, steps, "imbalance", colour=4))
    return found


def points(records: Sequence[Record], name: str, colour: int) -> Series:
    """Validations as points, bits per byte with their errors."""
    found = [r for r in records if number(r.get(name))]
    errors = [r.get("bits_per_byte_error") or 0.0 for r in found]
    return Series(
        xs=[r["step"] for r in found],
        ys=[r[name] for r in found],
        colour=colour,
        errors=errors if name == "bits_per_byte" and any(errors) else None,
        points=True,
    )


def _curve(run: RunHistory, steps: Sequence[float], name: str, colour: int = 0) -> Series:
    return replace(thin(steps, [_value(r, name) for r in run.train]), colour=colour)


def _value(record: Record, name: str) -> float | None:
    value = record.get(name)
    return float(value) if number(value) else None


def _ticks(run: RunHistory) -> Callable[[float], str]:
    """How a step is written below a chart: itself, the tokens and the time until then."""
    steps = [0, *(r["step"] for r in run.train)]
    tokens = [0.0, *(_value(r, "tokens") or 0.0 for r in run.train)]
    first = run.seconds[0] if run.seconds else 0.0
    seconds = [0.0, *(s or first for s in run.seconds)]

    def write(step: float) -> str:
        if step > steps[-1]:
            return f"{step:,.0f}"
        return (
            f"{step:,.0f}\n{short(at(step, steps, tokens))}\n{duration(at(step, steps, seconds))}"
        )

    return write


def at(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The value at x of the line through points whose xs rise; beyond them the nearest one's."""
    place = bisect.bisect_left(xs, x)
    if place == 0 or place == len(xs):
        return ys[min(place, len(ys) - 1)]
    left, right = xs[place - 1], xs[place]
    share = (x - left) / (right - left) if right > left else 1.0
    return ys[place - 1] + share * (ys[place] - ys[place - 1])


def short(value: float) -> str:
    """Write a number of tokens in few characters."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"
