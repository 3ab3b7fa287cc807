"""The live view of a run: what it shows, and that it fits."""

from __future__ import annotations

import io
import math

import pytest
import rich.console

from jielong.observe.console import Console, one_line
from jielong.observe.live import BLOCKS, View, sparkline
from jielong.observe.metrics import RunningMetrics


def terminal(width: int = 80, encoding: str = "utf-8") -> rich.console.Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return rich.console.Console(
        file=file, force_terminal=True, width=width, soft_wrap=True, _environ={"TERM": "xterm"}
    )


def drawn(view: View, width: int = 80, encoding: str = "utf-8") -> list[str]:
    console = terminal(width, encoding)
    return ["".join(s.text for s in line) for line in console.render_lines(view, pad=False)]


def full_view() -> View:
    return View(
        total_steps=200,
        step=50,
        losses=[8.0, 6.0, 5.0],
        held_out=[3.0, 2.1, 2.2],
        error=0.02,
        status="lr 1.00e-03",
        tokens_per_second=12345.6,
        left_s=90,
        mfu=0.345,
        memory_bytes=1_500_000_000,
        samples=[("To be ▸", " or not" * 40)],
    )


def test_sparklines_run_from_the_lowest_to_the_highest_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BLOCKS
    assert sparkline([3.0, 3.0]) == BLOCKS[0] * 2
    assert sparkline([1.0, math.nan, 2.0]) == f"{BLOCKS[0]} {BLOCKS[-1]}"
    assert sparkline([]) == "" and sparkline([math.nan]) == " "


@pytest.mark.parametrize("count", [25, 100, 12345])
def test_a_long_curve_is_the_means_of_its_parts(count: int) -> None:
    line = sparkline(list(range(count)), 24)
    assert len(line) == 24 and line == "".join(sorted(line)) and line[0] + line[-1] == "▁█"


def test_the_view_has_the_numbers_of_the_run() -> None:
    shown = "\n".join(drawn(full_view()))
    for part in ("50/200", "1m 30s left, ends ", "5.0000 · lr", "2.2000 ± 0.020 bits/byte"):
        assert part in shown
    assert "best 2.1000" in shown and "12,346 tok/s · 34% of the peak (MFU)" in shown
    assert "memory 1.5 GB" in shown and "To be ▸ or not" in shown


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_as_wide_as_the_terminal(width: int) -> None:
    lines = drawn(full_view(), width)
    assert len(lines) == 5 and max(map(len, lines)) < width


def test_a_terminal_that_is_not_utf8_gets_plain_characters() -> None:
    assert all(line.isascii() for line in drawn(full_view(), 79, "ascii")[:4])


def test_what_a_text_would_do_to_a_terminal_is_shown_instead() -> None:
    assert one_line("a\nb\x1b[2Jc\u202ed\u200de") == "a ⏎ b␛[2Jc\ufffdd\u200de"


def test_a_console_draws_curves_held_out_losses_and_samples_on_a_terminal_alone() -> None:
    console, means = Console(), RunningMetrics()
    console.terminal = terminal()
    console.start(0, 20, losses=[6.0], held_out=[2.0])
    for step in (10, 20):
        means.add(5.0 / step, 100, applied=True)
        means.seconds = 1.0
        console.progress(step, means, 1e-3, 1.0, 0.0, mfu=0.5, memory_bytes=10**9)
        console.validation(step, {"loss": 1.0, "perplexity": 2.7, "bits_per_byte": 1.5})
    console.samples([("a", "b\nc")])
    assert console.live is not None
    view = console.live.view
    assert (view.step, view.held_out, view.mfu, len(view.losses)) == (20, [2.0, 1.5, 1.5], 0.5, 3)
    assert view.samples == [("a ▸", "b ⏎ c")]
    console.close()
    console.terminal.file.seek(0)
    shown = console.terminal.file.read()
    assert "── step 20 · held-out loss 1.0000" in shown and "50% of the peak" in shown


def on_screen(console: rich.console.Console) -> str:
    """What a terminal shows of all that was written to it."""
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(80, 24)
    console.file.flush()
    written = console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
    return "\n".join(line.rstrip() for line in screen.display)


def test_a_run_whose_budget_is_corrected_leaves_no_old_view_on_the_screen() -> None:
    console = Console()
    console.terminal = terminal()
    console.start(10, 100, [5.0, 4.0])
    console.line("a line")
    console.start(10, 50, [5.0, 4.0])
    console.close()
    shown = on_screen(console.terminal)
    assert "10/50" in shown and "10/100" not in shown
    assert shown.count("a line") == 1


def test_a_run_that_has_ended_keeps_its_view_when_another_begins() -> None:
    console = Console()
    console.terminal = terminal()
    console.start(100, 100, [5.0, 4.0])
    console.start(0, 50)
    console.close()
    shown = on_screen(console.terminal)
    assert "100/100" in shown and "0/50" in shown
