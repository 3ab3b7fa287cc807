"""What `jielong.report` and `jielong.runs` return: typed, for programs and for notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jielong.errors import DataError
from jielong.present.blocks import Block, Note, Page, Table
from jielong.present.result import Result
from jielong.present.words import Say, language_of, sayer
from jielong.reports import charts, comparison, curves, html
from jielong.reports.chinese import CHINESE
from jielong.reports.history import Record, RunHistory, number, read_history
from jielong.reports.overview import RunRow, cells_of, rows_of
from jielong.reports.report import body_of, report, title_of
from jielong.reports.status import state_of


@dataclass(frozen=True)
class HeldOut:
    """A validation: of the held-out text after `step` updates.

    Attributes:
        tokens: trained on until then, if that is known.
        seconds: of training until then, pauses between two starts left out.
        loss: nats per token; none where it was not finite.
        bits_per_byte_error: standard error, where it was measured.
    """

    step: int
    tokens: int | None
    seconds: float | None
    loss: float | None
    perplexity: float | None
    bits_per_byte: float
    bits_per_byte_error: float | None


@dataclass(frozen=True)
class ReportedRun:
    """A run as its folder tells it.

    Attributes:
        run: its folder; `name` is what tables call it.
        state: running, finished, stopped or failed; `why` says why, where the run has said it.
        tokens, seconds: of training so far.
        best: the validation with the lowest held-out loss.
        held_out: all validations, in order.
        problems: what of the folder could not be read.
    """

    run: str
    name: str
    state: str
    why: str | None
    step: int
    total_steps: int | None
    parameters: int | None
    tokens: int | None
    seconds: float | None
    best: HeldOut | None
    held_out: tuple[HeldOut, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RunReport(Result):
    """One run, or several beside each other.

    Attributes:
        runs: in the order asked for.
        settings_that_differ: by name, the value in each run; None where a run has it not.
        warnings: why the bits per byte of these runs may not compare.
        histories: all records; not in `to_json`.
    """

    runs: tuple[ReportedRun, ...]
    settings_that_differ: dict[str, tuple[Any, ...]]
    warnings: tuple[str, ...]
    histories: tuple[RunHistory, ...] = field(repr=False)

    def page(self, say: Say) -> Page:
        """Return a table of the runs, and what differs in their settings, without curves."""
        shown = comparison.differing(self.histories, say("none"))
        names = [run.name for run in self.runs]
        blocks: list[Block] = [comparison.summary(self.histories, names, say)]
        blocks += [Note(line, "warning") for line in self.warnings]
        if shown:
            title = say("Settings that differ")
            blocks.append(Table([say("setting"), *names], shown, title, 1 + len(names)))
        return Page(title_of(self.histories, say), blocks)

    def to_json(self) -> dict[str, Any]:
        """Return runs, held-out text by step, settings that differ and warnings."""
        plain = RunReport(self.runs, self.settings_that_differ, self.warnings, ())
        found = Result.to_json(plain)
        del found["histories"]
        return found

    def html(self, language: str = "auto") -> str:
        """Return the whole page, as `report.html` has it.

        Raises:
            ConfigError: the language is not en, zh or auto.
        """
        return report(self.histories, language)

    def png(self, language: str = "auto") -> bytes:
        """Return the curves as a picture.

        Raises:
            ConfigError: matplotlib is not installed, or the language is unknown.
            DataError: nothing is recorded yet.
        """
        say = _sayer(language)
        if not any(run.train for run in self.histories):
            where = ", ".join(run.run for run in self.runs)
            raise DataError(f"{where}: nothing is recorded yet, so there are no curves to draw")
        return charts.png(figures_of(self.histories, say), title_of(self.histories, say))

    def _repr_html_(self) -> str:
        say = _sayer()
        title = html.heading(title_of(self.histories, say), 1)
        return html.fragment([title, *body_of(self.histories, say)])


@dataclass(frozen=True)
class RunsTable(Result):
    """The runs at and below a folder."""

    folder: str
    runs: tuple[RunRow, ...]

    def __iter__(self) -> Iterator[RunRow]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def page(self, say: Say) -> Page:
        """Return the table of `jielong runs`."""
        words = ("run", "state", "step", "bits/byte", "best", "age", "size", "note")
        rows = [cells_of(row, Path(self.folder), say) for row in self.runs]
        title = say("Runs in {folder}", folder=self.folder)
        if not rows:
            return Page(title, [Note(say("no runs in {folder}", folder=self.folder), "dim")])
        return Page(title, [Table([say(word) for word in words], rows, left=2)])

    def to_json(self) -> dict[str, Any]:
        """Return the rows under `runs`."""
        return {"runs": Result.to_json(self)["runs"]}

    def _repr_html_(self) -> str:
        from jielong.present.html import fragment

        return fragment(self.page(_sayer()))


def read_report(runs: str | Path | Sequence[str | Path]) -> RunReport:
    """Read one run, or several to compare: what `jielong report` shows.

    Args:
        runs: folders of runs; one that is named twice counts once.

    Returns:
        Each run with its validations (loss in nats a token, bits per byte), what differs in their
        settings, and warnings where bits per byte may not compare.

    Raises:
        DataError: a folder does not exist or is not a run's, or none is named.
    """
    folders = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    histories = tuple(read_history(folder) for folder in dict.fromkeys(map(Path, folders)))
    if not histories:
        raise DataError("no run is named: give the folder of one, its --out-dir")
    names = comparison.names_of(histories)
    return RunReport(
        runs=tuple(map(_reported, histories, names)),
        settings_that_differ=comparison.values_that_differ(histories),
        warnings=tuple(comparison.not_comparable(histories, names, _sayer("en"))),
        histories=histories,
    )


def list_runs(folder: str | Path = "runs") -> RunsTable:
    """Find all runs at and below a folder: what `jielong runs` shows.

    Args:
        folder: where to look; runs lie in it or below.

    Returns:
        A row for each run: state, step, held-out bits per byte, age (seconds) and size (bytes).

    Raises:
        DataError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(
            f"{folder}: no such folder: give the folder that runs are in, such as `jielong runs .`"
        )
    return RunsTable(str(folder), tuple(rows_of(Path(folder))))


def figures_of(histories: Sequence[RunHistory], say: Say) -> list[charts.Figure]:
    """Return the charts of one run, or of several together."""
    if len(histories) == 1:
        return curves.figures(histories[0], say)
    return comparison.figures(histories, comparison.names_of(histories), say)


def _sayer(language: str = "auto") -> Say:
    return sayer(language_of(language), chinese=CHINESE)


def _reported(run: RunHistory, name: str) -> ReportedRun:
    held_out = tuple(_held_out(run, record) for record in run.validations)
    end, last = run.end or {}, run.train[-1] if run.train else {}
    return ReportedRun(
        run=str(run.folder),
        name=name,
        state=state_of(run),
        why=str(end["why"]) if end.get("why") else None,
        step=run.step,
        total_steps=run.total_steps,
        parameters=run.start.get("parameters"),
        tokens=last.get("tokens"),
        seconds=round(run.seconds[-1], 3) if run.seconds else None,
        best=held_out[run.validations.index(run.best)] if run.best else None,
        held_out=held_out,
        problems=tuple(run.problems),
    )


def _held_out(run: RunHistory, record: Record) -> HeldOut:
    def finite(name: str) -> float | None:
        value = record.get(name)
        return float(value) if number(value) else None

    tokens = seconds = None
    if run.train:
        steps = [float(r["step"]) for r in run.train]
        counts = [float(r.get("tokens") or 0) for r in run.train]
        tokens = round(curves.at(record["step"], steps, counts))
        seconds = round(curves.at(record["step"], steps, run.seconds), 3)
    return HeldOut(
        step=record["step"],
        tokens=tokens,
        seconds=seconds,
        loss=finite("loss"),
        perplexity=finite("perplexity"),
        bits_per_byte=float(record["bits_per_byte"]),
        bits_per_byte_error=finite("bits_per_byte_error"),
    )
