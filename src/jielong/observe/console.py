"""Console output of a run: a live progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from jielong.observe.metrics import RunningMetrics


class Console:
    """Prints progress: a live bar on a terminal, lines elsewhere, nothing if not `shown`."""

    def __init__(self, shown: bool = True) -> None:
        self.terminal = rich.console.Console(quiet=not shown, highlight=False, soft_wrap=True)
        self.shown = shown
        self.total_steps = 0
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def start(self, step: int, total_steps: int) -> None:
        """Start the progress display at `step` of `total_steps`."""
        self.close()  # an earlier run's
        self.total_steps = total_steps
        if self.shown and self.terminal.is_terminal:
            self.bar = Progress(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=self.terminal
            )
            self.task = self.bar.add_task("starting …", total=total_steps, completed=step)
            self.bar.start()

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line."""
        self.terminal.print(text, style=style, markup=False)

    def progress(
        self, step: int, means: RunningMetrics, learning_rate: float, grad_norm: float, left: float
    ) -> None:
        """Show the mean loss and speed since the last record, after `step` steps.

        Args:
            left: seconds until the end of the run.
        """
        text = (
            f"step {step}/{self.total_steps} · loss {means.loss:.4f} · lr {learning_rate:.2e} · "
            f"grad {grad_norm:.2f} · {means.tokens_per_second:,.0f} tok/s · {duration(left)} left"
        )
        if self.bar:
            self.bar.update(self.task, completed=step, description=text)
        else:
            self.line(text)

    def validation(self, step: int, likelihood: Mapping[str, Any], of: str = "held-out") -> None:
        """Show loss, perplexity and bits per byte of the held-out text."""
        self.line(
            f"── step {step} · {of} loss {likelihood['loss']:.4f} · perplexity "
            f"{perplexity(likelihood)} · {with_error(likelihood)} bits/byte",
            style="bold",
        )

    def sample(self, prompt: str, text: str) -> None:
        """Show a prompt and its continuation on one line."""
        whole = Text("   " + one_line(prompt) + " ▸", style="dim").append(one_line(text), "not dim")
        self.terminal.print(whole)

    def close(self) -> None:
        """Stop the live bar."""
        if self.bar:
            self.bar.stop()


def with_error(likelihood: Mapping[str, Any]) -> str:
    """Format bits per byte with its standard error, where that is known."""
    error = likelihood.get("bits_per_byte_error")
    bits = f"{likelihood['bits_per_byte']:.4f}"
    return bits if error is None else f"{bits} ± {error:.3f}"


def perplexity(likelihood: Mapping[str, Any]) -> str:
    """Format the perplexity; from a million on in powers of ten."""
    value = likelihood["perplexity"]
    if value is None:  # as metrics.jsonl has what is not finite
        return "inf"
    return f"{value:.2f}" if value < 1e6 else f"{value:.1e}"


def one_line(text: str) -> str:
    """Replace line breaks by a visible ⏎."""
    return text.replace("\n", " ⏎ ")


def duration(seconds: float) -> str:
    """Format a duration, e.g. `1h 02m`, `3m 20s`, `12s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m {seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"
