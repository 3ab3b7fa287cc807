"""Console output of a run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
from rich.text import Text

from jielong.observe.chinese import CHINESE
from jielong.observe.live import LiveView, View
from jielong.observe.metrics import RunningMetrics
from jielong.observe.times import duration
from jielong.present.finished import in_chinese
from jielong.present.words import language_of

# classes of characters that turn the direction of what follows them
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


class Console:
    """Prints progress: a live view on a terminal, lines elsewhere, nothing if not `shown`.

    What comes in is English, and is shown in `language`: en, zh or auto.
    """

    def __init__(self, shown: bool = True, language: str = "en") -> None:
        self.chinese = CHINESE if language_of(language) == "zh" else {}
        self.terminal = rich.console.Console(quiet=not shown, highlight=False, soft_wrap=True)
        self.shown = shown
        self.total_steps = 0
        self.live: LiveView | None = None

    def start(
        self,
        step: int,
        total_steps: int,
        losses: Sequence[float] = (),
        held_out: Sequence[float] = (),
    ) -> None:
        """Start the progress display at `step` of `total_steps`.

        Args:
            losses, held_out: of the run before this step, in nats and in bits per byte.
        """
        if self.live and self.live.view.step < self.live.view.total_steps:
            self.live.wipe()  # the same run's, whose budget changed or which went back
            self.live = None
        self.close()  # an earlier run's
        self.total_steps = total_steps
        if self.shown and self.terminal.is_terminal and not self.terminal.is_dumb_terminal:
            view = View(total_steps, step, list(losses), list(held_out), word=self._shown)
            self.live = LiveView(self.terminal, view)

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line."""
        # the style is the text's own: the live view, which is printed again with it, has none
        self.terminal.print(Text(self._shown(text), style or ""))

    def _shown(self, text: str) -> str:
        return in_chinese(text, self.chinese)

    def progress(
        self,
        step: int,
        means: RunningMetrics,
        learning_rate: float,
        grad_norm: float,
        left: float,
        mfu: float | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Show the mean loss and speed since the last record, after `step` steps.

        Args:
            left: seconds until the end of the run.
            mfu, memory_bytes: share of the device's peak speed and memory used, if known; shown
                in the live view.
        """
        text = (
            f"step {step}/{self.total_steps} · loss {means.loss:.4f} · lr {learning_rate:.2e} · "
            f"grad {grad_norm:.2f} · {means.tokens_per_second:,.0f} tok/s · {duration(left)} left"
        )
        if self.live is None:
            self.line(text)
            return
        view = self.live.view
        view.step, view.left_s, view.tokens_per_second = step, left, means.tokens_per_second
        view.losses.append(means.loss)
        view.status = f"lr {learning_rate:.2e} · grad {grad_norm:.2f}"
        view.mfu, view.memory_bytes = mfu, memory_bytes
        self.live.refresh(now=step == self.total_steps)

    def validation(self, step: int, likelihood: Mapping[str, Any], of: str = "held-out") -> None:
        """Show loss, perplexity and bits per byte of the held-out text."""
        self.line(
            f"── step {step} · {of} loss {likelihood['loss']:.4f} · perplexity "
            f"{perplexity(likelihood)} · {with_error(likelihood)} bits/byte",
            style="bold",
        )
        if self.live and of == "held-out" and likelihood["bits_per_byte"] is not None:
            view = self.live.view
            view.held_out.append(likelihood["bits_per_byte"])
            view.error = likelihood.get("bits_per_byte_error")
            self.live.refresh(now=True)

    def samples(self, samples: Sequence[tuple[str, str]]) -> None:
        """Show prompts and their continuations, each on one line, or in the live view."""
        shown = [(f"{one_line(prompt)} ▸", one_line(text)) for prompt, text in samples]
        if self.live:
            self.live.view.samples = shown
            self.live.refresh(now=True)
            return
        for prompt, text in shown:
            self.terminal.print(Text(f"   {prompt}", style="dim").append(text, "not dim"))

    def close(self) -> None:
        """Stop the live view, which stays on the screen as it is."""
        if self.live:
            self.live.stop()
            self.live = None


def with_error(likelihood: Mapping[str, Any]) -> str:
    """Format bits per byte with its standard error, where that is known."""
    error = likelihood.get("bits_per_byte_error")
    bits = f"{likelihood['bits_per_byte']:.4f}"
    return f"{bits} ± {error:.3f}" if isinstance(error, int | float) else bits


def perplexity(likelihood: Mapping[str, Any]) -> str:
    """Format the perplexity; from a million on in powers of ten."""
    value = likelihood["perplexity"]
    if value is None:  # as metrics.jsonl has what is not finite
        return "inf"
    return f"{value:.2f}" if value < 1e6 else f"{value:.1e}"


def one_line(text: str) -> str:
    """Replace line breaks by a visible ⏎, and what would act on the terminal by a sign."""
    return "".join(map(_sign, text.replace("\n", " ⏎ ")))


def _sign(char: str) -> str:
    if unicodedata.category(char) == "Cc":  # ESC and the like: the sign is of Unicode's own
        return chr(0x2400 + ord(char)) if ord(char) < 0x20 else "\ufffd"
    return "\ufffd" if unicodedata.bidirectional(char) in TURNS else char
