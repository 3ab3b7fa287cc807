"""The live view of a run on a terminal: how far it is, curves, speed and its last samples."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from jielong.observe.times import clock, duration

BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
SPARK_WIDTH = 24
MOST_SAMPLES = 3
FRAME_S = 0.2  # between two drawings, at least


@dataclass
class View:
    """What is shown; `LiveView` draws it.

    Attributes:
        losses, held_out: all so far, of training and in bits per byte.
        status: the learning rate and so on, beside the curve of the losses.
        left_s: seconds to the end.
        mfu: share of the peak speed; none where that is not known.
        memory_bytes: the most that was used.
        samples: prompts and continuations of the last validation.
        word: says an English word or phrase in the language of the view.
    """

    total_steps: int
    step: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    error: float | None = None
    status: str = ""
    tokens_per_second: float = 0.0
    left_s: float | None = None
    mfu: float | None = None
    memory_bytes: int | None = None
    samples: list[tuple[str, str]] = field(default_factory=list)
    word: Callable[[str], str] = str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # each line is cut to the width: the console does not wrap what is printed, and a line that
        # the terminal wraps could not be drawn over
        width = options.max_width - 1
        for line in self.lines(options.ascii_only):
            line.truncate(width, overflow="ellipsis")
            yield line

    def lines(self, ascii_only: bool = False) -> list[Text]:
        """Return what is shown, a `Text` for each line."""
        blocks = PLAIN_BLOCKS if ascii_only else BLOCKS
        dot = " - " if ascii_only else " · "
        word = self.word
        bar = _bar(self.step, self.total_steps, ascii_only)
        lines = [_line(word("step"), bar, self._position(dot))]
        if self.losses:
            spark = Text(sparkline(self.losses, SPARK_WIDTH, blocks), "cyan")
            lines.append(
                _line(word("loss"), spark, f"{self.losses[-1]:.4f}{dot}{word(self.status)}")
            )
        if self.held_out:
            best = min(self.held_out)
            error = "" if self.error is None else f" {'+-' if ascii_only else '±'} {self.error:.3f}"
            text = word(f"{self.held_out[-1]:.4f}{error} bits/byte")
            if best < self.held_out[-1]:
                text += dot + word(f"best {best:.4f}")
            spark = Text(sparkline(self.held_out, SPARK_WIDTH, blocks), "green")
            lines.append(_line(word("held-out"), spark, text))
        if self.tokens_per_second:
            lines.append(_line(word("speed"), Text(self._speed(dot))))
        for prompt, text in self.samples[:MOST_SAMPLES]:
            lines.append(_line(word("sample"), Text(prompt, "dim").append(text, "not dim")))
        return lines

    def _position(self, dot: str) -> str:
        text = f"{self.step}/{self.total_steps}"
        if self.left_s is None:
            return text + dot + self.word("starting")
        if self.step < self.total_steps:
            ends = clock(time.time() + self.left_s)
            text += dot + self.word(f"{duration(self.left_s)} left, ends {ends}")
        return text

    def _speed(self, dot: str) -> str:
        parts = [f"{self.tokens_per_second:,.0f} tok/s"]
        if self.mfu is not None:
            parts.append(f"{self.mfu:.0%} of the peak (MFU)")
        if self.memory_bytes:
            parts.append(f"memory {self.memory_bytes / 1e9:.1f} GB")
        return dot.join(map(self.word, parts))


class LiveView:
    """Draws a `View` at the bottom of a terminal, below the lines that are printed."""

    def __init__(self, console: Console, view: View) -> None:
        self.view, self.drawn = view, 0.0
        self.live = Live(view, console=console, auto_refresh=False)
        self.live.start(refresh=True)

    def refresh(self, now: bool = False) -> None:
        """Draw again, unless that was done a moment ago."""
        if now or time.monotonic() - self.drawn >= FRAME_S:
            self.drawn = time.monotonic()
            self.live.refresh()

    def stop(self) -> None:
        """Draw a last time and leave the view on the screen."""
        self.live.stop()

    def wipe(self) -> None:
        """Take the view off the screen."""
        self.live.transient = True
        self.live.stop()


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH, blocks: str = BLOCKS) -> str:
    """Return values as a row of blocks: the mean of neighbours, from the lowest to the highest.

    What is not finite is a space.
    """
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)] if count else []
    parts = [values[a:b] for a, b in itertools.pairwise(edges)]
    finite = [[v for v in part if math.isfinite(v)] for part in parts]
    means = [sum(part) / len(part) if part else math.nan for part in finite]
    known = [m for m in means if math.isfinite(m)]
    if not known:
        return " " * count
    low, span = min(known), (max(known) - min(known)) or 1.0
    top = len(blocks) - 1
    return "".join(
        blocks[round((m - low) / span * top)] if math.isfinite(m) else " " for m in means
    )


def _line(label: str, content: Text, after: str = "") -> Text:
    line = Text(label + " " * (9 - cell_len(label)), "dim").append_text(
        Text(style="not dim").append_text(content)
    )
    if after:
        line.append(" " * (SPARK_WIDTH + 1 - len(content))).append(after, "not dim")
    return line


def _bar(step: int, total_steps: int, ascii_only: bool) -> Text:
    done = round(SPARK_WIDTH * step / max(1, total_steps))
    full, empty = ("#", "-") if ascii_only else ("━", "━")
    return Text(full * done, "bold magenta").append(empty * (SPARK_WIDTH - done), "bright_black")
