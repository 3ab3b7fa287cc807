"""Several runs beside each other, in bits per byte, so that tokenizers compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jielong.observe.times import duration
from jielong.present.blocks import Table
from jielong.present.words import Say
from jielong.reports import charts, curves, html
from jielong.reports.charts import Chart, Figure, Series, thin
from jielong.reports.history import RunHistory, number
from jielong.reports.status import state_of

NOT_COMPARED = ("out_dir", "tracker", "tracker_project")


def body(runs: Sequence[RunHistory], say: Say) -> list[str]:
    """Return the elements of a page that compares runs."""
    names = names_of(runs)
    table = summary(runs, names, say)
    parts = [html.table(table.columns, table.rows)]
    parts += [html.paragraph(line, "warning") for line in not_comparable(runs, names, say)]
    if not any(run.train for run in runs):
        parts.append(html.paragraph(say("nothing is recorded yet"), "dim"))
    elif charts.available():
        parts += [html.heading(say("Curves")), html.charts(figures(runs, names, say))]
    else:
        parts.append(html.paragraph(say(curves.MISSING), "dim"))
    parts.append(html.heading(say("Settings that differ")))
    if rows := differing(runs, say("none")):
        parts.append(html.table([say("setting"), *names], rows))
    else:
        parts.append(html.paragraph(say("no setting differs"), "dim"))
    return [*parts, *_samples(runs, names, say)]


def names_of(runs: Sequence[RunHistory]) -> list[str]:
    """A name for each run: its folder's, or its path where folders are called alike."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for run, name in zip(runs, names, strict=True)
    ]


def differing(runs: Sequence[RunHistory], none: str) -> list[list[str]]:
    """Rows of the settings that are not the same in all runs: the name, and each run's value.

    Settings that follow from others are taken as they were decided.
    """
    return [
        [name, *(none if value is None else _shown(value) for value in values)]
        for name, values in values_that_differ(runs).items()
    ]


def values_that_differ(runs: Sequence[RunHistory]) -> dict[str, tuple[Any, ...]]:
    """Return what `differing` shows, as values by name; None where a run has no such setting."""
    known = [settings_of(run) for run in runs]
    found = {}
    for name in sorted(set().union(*known) - set(NOT_COMPARED)):
        values = tuple(settings.get(name) for settings in known)
        if any(value != values[0] for value in values):
            found[name] = values
    return found


def settings_of(run: RunHistory) -> dict[str, Any]:
    """Settings of a run by bare name, with what followed from them where it is known."""
    choices = dict(run.start.get("choices") or {})
    model = choices.pop("model", None) or {}
    decided = {**choices, **model}
    if run.start.get("parameters"):
        decided["parameters"] = run.start["parameters"]
    if run.dataset.get("vocab_size"):
        decided["vocab_size"] = run.dataset["vocab_size"]
    return run.settings | {k: v for k, v in decided.items() if v is not None}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def summary(runs: Sequence[RunHistory], names: Sequence[str], say: Say) -> Table:
    """Return where each run stands, the lowest held-out loss with a star."""
    heads = ("run", "state", "step", "held-out", "best", "parameters", "tokens", "time")
    known = [run.best["bits_per_byte"] for run in runs if run.best]
    rows = []
    for run, name in zip(runs, names, strict=True):
        last, best = (run.validations[-1], run.best) if run.validations else (None, None)
        mark = " ★" if best and best["bits_per_byte"] == min(known) else ""
        rows.append(
            (
                name,
                say(state_of(run)),
                f"{run.step:,}" + (f" / {run.total_steps:,}" if run.total_steps else ""),
                f"{last['bits_per_byte']:.4f}" if last else "–",
                f"{best['bits_per_byte']:.4f}{mark}" if best else "–",
                f"{run.start['parameters'] / 1e6:.2f} M" if run.start.get("parameters") else "–",
                curves.short(run.train[-1].get("tokens") or 0) if run.train else "–",
                duration(run.seconds[-1]) if run.seconds else "–",
            )
        )
    return Table([say(word) for word in heads], rows, left=2)


def not_comparable(runs: Sequence[RunHistory], names: Sequence[str], say: Say) -> list[str]:
    """Say where the held-out texts differ: bits per byte of other texts do not compare."""
    unknown = (
        "The held-out text of {name} is not known here, so whether its bits per byte compare is "
        "not either."
    )
    lines = [
        say(unknown, name=name)
        for run, name in zip(runs, names, strict=True)
        if not run.dataset.get("sources")
    ]
    known = [run.dataset for run in runs if run.dataset.get("sources")]
    what = []
    if any(data["sources"] != known[0]["sources"] for data in known):
        what.append(say("different text"))
    held = [(data.get("splits", {}).get("validation") or {}).get("text_bytes") for data in known]
    # the same text is cut at a document, so tokenizers change it by little
    sizes: list[float] = [size for size in held if number(size) and size > 0]
    if not what and (len(sizes) < len(held) or (sizes and max(sizes) > 1.02 * min(sizes))):
        what.append(say("another share of it is held out"))
    if what:
        sentence = (
            "The held-out texts are not the same, so the bits per byte cannot be compared: {what}."
        )
        lines.append(say(sentence, what=", ".join(what)))
    return lines


def figures(runs: Sequence[RunHistory], names: Sequence[str], say: Say) -> list[Figure]:
    """Return the charts of several runs together."""
    keys = list(enumerate(names))
    found = []
    for title, axis, ticks in (
        ("Bits per byte against tokens", _tokens, curves.short),
        ("Bits per byte against time", _seconds, duration),
    ):
        series = [s for i, run in enumerate(runs) for s in _lines(run, i, axis(run))]
        if series:
            chart = Chart(series, ticks, cut_top=True, steps=False)
            caption = say("points: held-out text; line: training text")
            found.append(Figure(say(title), chart, caption, keys))
    return found


def _tokens(run: RunHistory) -> list[float]:
    return [float(r.get("tokens") or 0) for r in run.train]


def _seconds(run: RunHistory) -> list[float]:
    return run.seconds


def _lines(run: RunHistory, colour: int, xs: Sequence[float]) -> list[Series]:
    """Training text as a line, held-out text as points, both in bits per byte."""
    if not run.train:
        return []
    steps = [float(r["step"]) for r in run.train]
    held = curves.points(run.validations, "bits_per_byte", colour)
    places = [curves.at(step, steps, xs) for step in held.xs]
    found = [replace(held, xs=places, errors=None)] if places else []
    if run.bytes_per_token:
        scale = 1 / (math.log(2) * run.bytes_per_token)
        bits = [r["loss"] * scale if number(r.get("loss")) else None for r in run.train]
        line = replace(thin(xs, bits), colour=colour, low=None, high=None)
        found.append(line)
    return found


def _samples(
    runs: Sequence[RunHistory], names: Sequence[str], say: Callable[..., str]
) -> list[str]:
    parts = []
    for run, name in zip(runs, names, strict=True):
        records = run.records.get("sample", [])
        latest = [r for r in records if r["step"] == records[-1]["step"]]
        shown = [html.sample(str(r.get("prompt")), str(r.get("text"))) for r in latest]
        if shown:
            parts += [html.heading(name, 3), *shown]
    return [html.heading(say("What it writes")), *parts] if parts else []
