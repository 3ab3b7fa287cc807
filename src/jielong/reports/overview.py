"""A table of runs: where each stands, how good it is, how old and how large."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jielong.observe.chinese_errors import ERRORS
from jielong.observe.console import one_line
from jielong.observe.times import duration
from jielong.present.finished import shown_by
from jielong.present.words import Say
from jielong.reports.chinese import CHINESE
from jielong.reports.history import folder_size, is_run, read_history
from jielong.reports.status import state_of

INSIDE = ("checkpoints", "data", "tokenizer", "replay")  # of a run, where no other runs are
NOTES = ERRORS | CHINESE  # what stands beside a run, in Chinese
STYLES = {"running": "green", "finished": "", "stopped": "yellow", "failed": "red"}
DEEPEST = 6  # folders below the one that is looked through


@dataclass(frozen=True)
class RunRow:
    """A run in the table.

    Attributes:
        run: its folder.
        bits_per_byte, best_bits_per_byte, best_step: of the held-out text: the latest and the best.
        age_s: seconds since something was last recorded.
        size_bytes: of all its files.
        note: what is wrong with it, if anything.
    """

    run: str
    state: str
    step: int
    total_steps: int | None
    bits_per_byte: float | None
    best_bits_per_byte: float | None
    best_step: int | None
    age_s: float
    size_bytes: int
    note: str | None = None


def find_runs(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Find the runs at and below a folder, those of teachers too; links are not followed."""
    if is_run(folder):
        yield folder
    if depth == DEEPEST:
        return
    try:
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
    except OSError:
        return
    for path in inner:
        if not path.name.startswith(".") and not (path.name in INSIDE and is_run(folder)):
            yield from find_runs(path, depth + 1)


def row_of(folder: Path) -> RunRow:
    """Describe a run; what is wrong with its folder becomes a note."""
    run = read_history(folder)
    last, best = (run.validations[-1], run.best) if run.validations else (None, None)
    state = state_of(run)
    note = "; ".join(run.problems) or None
    if state in ("finished", "failed") and run.end and run.end.get("why"):
        note = str(run.end["why"])
    elif not run.records and state != "running":
        note = note or "nothing is recorded yet"
    return RunRow(
        run=str(folder),
        state=state,
        step=run.step,
        total_steps=run.total_steps,
        bits_per_byte=last["bits_per_byte"] if last else None,
        best_bits_per_byte=best["bits_per_byte"] if best else None,
        best_step=best["step"] if best else None,
        age_s=max(0.0, time.time() - run.changed),
        size_bytes=folder_size(folder),
        note=note,
    )


def rows_of(folder: Path) -> list[RunRow]:
    """Describe all runs at and below a folder; one that cannot be read has a row too."""
    rows = []
    for path in find_runs(folder):
        try:
            rows.append(row_of(path))
        except Exception as error:
            why = f"cannot be read: {type(error).__name__}: {error}"
            rows.append(RunRow(str(path), "stopped", 0, None, None, None, None, 0.0, 0, why))
    return rows


def print_runs(rows: Sequence[RunRow], folder: Path, say: Say) -> None:
    """Print the table."""
    if not rows:
        print(say("no runs in {folder}", folder=folder))
        return
    # where it is no terminal there is room
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(_table(rows, folder, say))


def watch_runs(folder: Path, interval_s: float, say: Say) -> None:
    """Draw the table again and again, until Ctrl-C."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                rows = rows_of(folder)
                none = Text(say("no runs in {folder}", folder=folder))
                live.update(_table(rows, folder, say) if rows else none, refresh=True)
                time.sleep(interval_s)
        except KeyboardInterrupt:
            return


def _table(rows: Sequence[RunRow], folder: Path, say: Say) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(say("run"), overflow="fold")
    table.add_column(say("state"))
    for name in ("step", "bits/byte", "best", "age", "size"):
        table.add_column(say(name), justify="right", no_wrap=True)
    if any(row.note for row in rows):
        table.add_column(say("note"), overflow="fold")
    for row in rows:
        name, state, *numbers, note = cells_of(row, folder, say)
        cells: list[Text | str] = [_plain(name), Text(state, STYLES[row.state]), *numbers]
        table.add_row(*cells, *([_plain(note)] if note else []))
    return table


def cells_of(row: RunRow, folder: Path, say: Say) -> tuple[str, ...]:
    """Return run, state, step, bits per byte, the best, age, size and note of a row."""
    total = "" if row.total_steps is None else f"/{row.total_steps}"
    best = "–"
    if row.best_bits_per_byte is not None:
        best = f"{row.best_bits_per_byte:.4f} ({row.best_step})"
    return (
        below(row.run, folder),
        say(row.state),
        f"{row.step}{total}",
        "–" if row.bits_per_byte is None else f"{row.bits_per_byte:.4f}",
        best,
        age(row.age_s),
        size(row.size_bytes),
        shown_by(say, row.note or "", NOTES),
    )


def _plain(words: str) -> Text:
    """A name or message as it is: no markup, and nothing that acts on the terminal."""
    return Text(one_line(words))


def below(run: str, folder: Path) -> str:
    """Name a run by its path below a folder."""
    path = Path(run)
    return str(path.relative_to(folder)) if path != folder else path.name or str(path.resolve())


def age(seconds: float) -> str:
    """Write how long something is ago."""
    return duration(seconds) if seconds < 86_400 else f"{seconds / 86_400:.0f}d"


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:.1f} {unit}"
    return f"{count:.0f} B"
