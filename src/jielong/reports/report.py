"""`report.html`: what a run, or several beside each other, have done and written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from jielong.config.settings import FIELDS
from jielong.observe.chinese import CHINESE as PRINTED
from jielong.observe.console import with_error
from jielong.observe.times import duration
from jielong.present.finished import shown_by
from jielong.present.words import Say, language_of, sayer
from jielong.reports import charts, comparison, curves, html
from jielong.reports.chinese import CHINESE
from jielong.reports.history import Record, RunHistory, number
from jielong.reports.status import state_of
from jielong.runtime.atomic import write_file

REPORT = "report.html"
LATEST_SAMPLES = 1  # validations whose samples are shown unfolded
CHOICES_SHOWN = (
    *("learning_rate", "global_batch_size", "micro_batch_size", "total_steps", "warmup_steps"),
    *("decay_steps", "weight_decay", "dropout", "input_noise", "bpe_dropout"),
    *("share_spelling", "bigram_share", "eval_interval"),
)


def report(runs: Sequence[RunHistory], language: str = "auto") -> str:
    """Return the page of a run, or of several compared.

    Args:
        language: en, zh or auto.

    Raises:
        ConfigError: the language is unknown.
    """
    chosen = language_of(language)
    say = sayer(chosen, chinese=CHINESE)
    title, body = title_of(runs, say), body_of(runs, say)
    written = time.strftime("%Y-%m-%d %H:%M")
    about = say("written {time} by jielong report; no network, no script", time=written)
    footer = f"<footer>{html.text(about)}</footer>"
    return html.document(f"{title} · jielong", [html.heading(title, 1), *body, footer], chosen)


def title_of(runs: Sequence[RunHistory], say: Say) -> str:
    """Return the heading of the page."""
    return runs[0].name if len(runs) == 1 else say("Comparison of {n} runs", n=len(runs))


def body_of(runs: Sequence[RunHistory], say: Say) -> list[str]:
    """Return the elements of the page below its heading."""
    return _single(runs[0], say) if len(runs) == 1 else comparison.body(runs, say)


def write_report(runs: Sequence[RunHistory], file: Path, language: str = "auto") -> None:
    """Write the page of `report` atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_file(file, report(runs, language).encode("utf-8", "replace"))


def _single(run: RunHistory, say: Say) -> list[str]:
    parts = [html.tiles(_tiles(run, say))]
    parts += [
        html.paragraph(say("cannot be read: {what}", what=p), "warning") for p in run.problems
    ]
    end = run.end
    if end and end.get("state") == "failed":
        parts.append(html.paragraph(str(end.get("why")), "warning"))
    if turned := _turned(run, say):
        parts.append(html.paragraph(turned, "warning"))
    parts += _warnings(run, say)
    if not run.train:
        parts.append(html.paragraph(say("nothing is recorded yet"), "dim"))
    elif charts.available():
        parts += [html.heading(say("Curves")), html.charts(curves.figures(run, say))]
    else:
        parts.append(html.paragraph(say(curves.MISSING), "dim"))
    return [*parts, *_samples(run, say), *_validations(run, say), *_facts(run, say)]


def _tiles(run: RunHistory, say: Say) -> list[tuple[str, str]]:
    last = run.validations[-1] if run.validations else None
    step = f"{run.step:,}"
    if run.total_steps:
        step = say("{step} of {total}", step=step, total=f"{run.total_steps:,}")
    found = [(say("state"), say(state_of(run))), (say("step"), step)]
    if last and run.best:
        bits = say("{bits} at step {step}", bits=with_error(run.best), step=f"{run.best['step']:,}")
        found += [(say("held-out"), say("{bits} bits/byte", bits=with_error(last)))]
        found += [(f"{say('best')} ★", bits)]
    if run.start.get("parameters"):
        found.append((say("parameters"), amount(run.start["parameters"])))
    if run.train:
        speeds = sorted(r["tokens_per_second"] for r in run.train if number(r["tokens_per_second"]))
        found.append((say("tokens"), amount(run.train[-1].get("tokens") or 0)))
        found.append((say("time"), duration(run.seconds[-1])))
        if speeds:
            median = f"{speeds[len(speeds) // 2]:,.0f}"
            found.append((say("speed"), say("{n} tokens/s", n=median)))
    return found


def _turned(run: RunHistory, say: Say) -> str | None:
    """Say where the held-out loss turned, if it has: it ends clearly above its best."""
    best, last = run.best, run.validations[-1] if run.validations else None
    if best is None or last is None or last["bits_per_byte"] < 1.01 * best["bits_per_byte"]:
        return None
    sentence = (
        "The held-out loss turned after step {step}: {best} there, {last} at step {end}. From then "
        "on the model memorises the training text."
    )
    bits = {"best": f"{best['bits_per_byte']:.4f}", "last": f"{last['bits_per_byte']:.4f}"}
    return say(sentence, step=f"{best['step']:,}", end=f"{last['step']:,}", **bits)


def _warnings(run: RunHistory, say: Say) -> list[str]:
    found = run.records.get("warning", [])
    if not found:
        return []
    lines = [
        html.paragraph(shown_by(say, f"step {r['step']}: {r.get('text')}", PRINTED), "warning")
        for r in found
    ]
    return [html.heading(say("What looked wrong")), *lines]


def _samples(run: RunHistory, say: Say) -> list[str]:
    """The latest samples, and folded those before, so that one sees it learn."""
    by_step: dict[int, list[Record]] = {}
    for record in run.records.get("sample", []):
        by_step.setdefault(record["step"], []).append(record)
    if not by_step:
        return []
    blocks: list[str] = []
    for step, records in sorted(by_step.items(), reverse=True):
        shown = [html.sample(str(r.get("prompt")), str(r.get("text"))) for r in records]
        title = say("step {step}", step=f"{step:,}")
        bits = next((v["bits_per_byte"] for v in run.validations if v["step"] == step), None)
        if bits is not None:
            title += f" · {say('{bits} bits/byte', bits=f'{bits:.3f}')}"
        blocks.append(html.folded(title, "".join(shown), unfolded=len(blocks) < LATEST_SAMPLES))
    return [html.heading(say("What it writes")), *blocks]


def _validations(run: RunHistory, say: Say) -> list[str]:
    if not run.validations:
        return []
    columns = [say(word) for word in ("step", "loss", "perplexity", "bits/byte")]
    rows = [
        (
            f"{r['step']:,}{' ★' if r is run.best else ''}",
            f"{r['loss']:.4f}" if number(r.get("loss")) else "–",
            f"{r['perplexity']:.2f}" if number(r.get("perplexity")) else "–",
            with_error(r),
        )
        for r in reversed(run.validations)
    ]
    body = html.table(columns, rows)
    return [
        html.heading(say("Validations")),
        html.folded(say("all {n} validations", n=len(rows)), body, unfolded=len(rows) <= 12),
    ]


def _facts(run: RunHistory, say: Say) -> list[str]:
    """What the data are, the settings, and the machine."""
    parts = [html.heading(say("Text"))]
    rows = text_facts(run, say)
    if rows:
        parts.append(html.table((), rows))
    else:
        parts.append(html.paragraph(say("the dataset of this run is not here"), "dim"))
    start = run.start
    machine = [(say("device"), start.get("machine", "–"))]
    if start.get("processes", 1) != 1:
        machine.append((say("processes"), start["processes"]))
    if memory := max((r.get("memory_bytes") or 0 for r in run.train), default=0):
        machine.append((say("memory, at most"), f"{memory / 1e9:.2f} GB"))
    shares = sorted(r["mfu"] for r in run.train if number(r.get("mfu")))
    if shares:
        share = f"{shares[len(shares) // 2]:.1%}"
        machine.append((say("share of the peak speed (MFU)"), share))
    starts = [r for r in run.records.get("start", []) if not r.get("budget_corrected")]
    machine.append((say("starts"), len(starts) or "–"))
    machine.append((say("folder"), run.folder))
    return [*parts, html.heading(say("Machine")), html.table((), machine), *_settings(run, say)]


def _settings(run: RunHistory, say: Say) -> list[str]:
    """The settings that are not the defaults, what followed from them, and the defaults."""
    given = {k: shown(v) for k, v in sorted(run.settings.items()) if not is_default(k, v)}
    others = {k: shown(v) for k, v in sorted(run.settings.items()) if k not in given}
    choices = run.start.get("choices") or {}
    followed = {name: choices[name] for name in CHOICES_SHOWN if choices.get(name) is not None}
    parts = [html.heading(say("Settings"))]
    for title, values in (
        (say("given or chosen"), given),
        (say("what followed from them"), followed),
        (say("settings left at their defaults"), others),
    ):
        if values:
            table = html.table((), values.items())
            parts.append(html.folded(title, table, unfolded=values is not others))
    return parts


def is_default(name: str, value: object) -> bool:
    """Whether a setting, as a run's files have it, is what it is where nobody gives it."""
    if name not in FIELDS:
        return False
    default = FIELDS[name].default
    return value == (list(default) if isinstance(default, tuple) else default)


def text_facts(run: RunHistory, say: Say) -> list[tuple[str, str]]:
    """What the text of a run is, from its dataset.json."""
    data = run.dataset
    splits = data.get("splits", {})
    train, held = splits.get("train") or {}, splits.get("validation") or {}
    if not number(train.get("tokens")):
        return []
    counts, sources = data.get("counts", {}), data.get("sources") or {}
    names = [str(s.get("name")) for part in sources.values() for s in part]
    rows = [(say("source"), ", ".join(names[:8]) + (" …" if len(names) > 8 else ""))]
    for label, name, unit in (("documents", "documents", ""), ("size", "text_bytes", "B")):
        sizes = {"train": train.get(name, 0), "held": held.get(name, 0)}
        words = {part: amount(size) + unit for part, size in sizes.items()}
        rows.append((say(label), say("{train} to train on, {held} held out", **words)))
    sizes = {"train": amount(train["tokens"]), "held": amount(held.get("tokens", 0))}
    rows.append((say("tokens"), say("{train} to train on, {held} held out", **sizes)))
    if run.bytes_per_token:
        about = "{n} bytes per token, vocabulary {vocabulary}"
        values = {"n": f"{run.bytes_per_token:.2f}", "vocabulary": f"{data.get('vocab_size')}"}
        rows.append((say("tokenizer"), say(about, **values)))
    if counts.get("bad_lines"):
        rows.append((say("left out"), say("{n} bad lines", n=counts["bad_lines"])))
    if number(counts.get("duplicate_share")):
        rows.append((say("duplicates"), f"{counts['duplicate_share']:.1%}"))
    return rows


def amount(value: float) -> str:
    """Write a number with k, M or G from a thousand on."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
