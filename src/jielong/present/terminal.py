"""A page in a terminal, by rich; in plain text where it is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import rich.console
from rich.cells import cell_len
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from jielong.present.blocks import (
    Bars,
    Block,
    Curve,
    Facts,
    Heatmaps,
    Mark,
    Note,
    Page,
    Panel,
    Scale,
    Strip,
    Table,
)
from jielong.present.colours import background, hex_of, on, tint
from jielong.present.visible import safe

TONES = {"plain": "", "dim": "dim", "strong": "bold", "warning": "yellow"}
CURVE_ROWS = 8
EIGHTHS = " ▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"
MOST_PANELS = 16
MOST_CELLS = 20  # columns of a matrix that is drawn large
BAR_WIDTH = 32


def print_page(page: Page, console: rich.console.Console | None = None) -> None:
    """Print a page as wide as the terminal is."""
    page = safe(page)
    given, console = console, console or rich.console.Console(highlight=False, soft_wrap=False)
    console.print(Text(page.title, style="bold"))
    for block in page.blocks:
        if not isinstance(block, Note) and block.title:
            console.print()
            console.print(Text(block.title, style="bold"))
        if given is None and isinstance(block, Table) and not console.is_terminal:
            _print_whole(_table(block), console)
            continue
        for line in lines_of(block, console):
            console.print(line)


def _print_whole(table: RichTable, console: rich.console.Console) -> None:
    """Print a table where nothing has a width, a file or a pipe: a row is a line."""
    width = console.width
    wide = console.options.update(width=1000)
    console.width = max(width, Measurement.get(console, wide, table).maximum)
    console.print(table)
    console.width = width


def lines_of(block: Block, console: rich.console.Console) -> Iterator[Text | RichTable]:
    """Draw one block, without its title."""
    width = console.width
    if isinstance(block, Note):
        yield Text(block.text, style=TONES[block.tone])
    elif isinstance(block, Facts):
        yield _facts(block)
    elif isinstance(block, Table):
        yield _table(block)
    elif isinstance(block, Strip):
        yield from _strip(block, width)
    elif isinstance(block, Bars):
        yield from _bars(block, width)
    elif isinstance(block, Curve):
        yield from _curve(block, width)
    else:
        yield from _heatmaps(block, width, console.color_system is not None)


def _grid() -> RichTable:
    return RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)


def _facts(facts: Facts) -> RichTable:
    table = _grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in facts.rows:
        table.add_row(Text(label), Text(value))
    return table


def _table(block: Table) -> RichTable:
    table = _grid()
    table.show_header = True
    for number, column in enumerate(block.columns):
        justify = "left" if number < block.left else "right"
        heading = Text(column, style="dim")
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in block.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _strip(strip: Strip, width: int) -> Iterator[Text]:
    """As many columns as fit under one another, then the next ones."""
    labels = strip.labels
    margin = max(map(cell_len, labels), default=0) + 2
    sizes = [max(cell_len(mark.text) for mark in column) for column in strip.columns]
    for number, (first, stop) in enumerate(chunks(sizes, strip.breaks, width - margin)):
        if number:
            yield Text()
        for line, label in enumerate(labels):
            text = Text(_padded(label, margin), style="dim")
            for place in range(first, stop):
                if place in strip.breaks:
                    text.append("┃", style="not dim bold")
                mark = strip.columns[place][line]
                text.append(_padded(mark.text, sizes[place]), style=_style(mark, strip.scale))
                text.append(" ", style="not dim")
            yield text


def chunks(sizes: Sequence[int], breaks: frozenset[int], width: int) -> Iterator[tuple[int, int]]:
    """Cut columns of these sizes, a space after each, into stretches that fit into the width."""
    first, used = 0, 0
    for place, size in enumerate(sizes):
        needed = size + 1 + (place in breaks)
        if place > first and used + needed > width:
            yield first, place
            first, used = place, 0
        used += needed
    if sizes:
        yield first, len(sizes)


def _padded(text: str, size: int) -> str:
    return text + " " * (size - cell_len(text))


def _style(mark: Mark, scale: Scale) -> Style:
    colour = background(mark, scale)
    if colour is not None:
        return Style(bgcolor=hex_of(colour), color=on(colour), dim=False)
    return Style(dim=mark.muted)


def _bars(bars: Bars, width: int) -> Iterator[Text]:
    most = max((value for _, value, _ in bars.rows), default=0.0) or 1.0
    margin = max((cell_len(label) for label, _, _ in bars.rows), default=0) + 2
    tail = max((cell_len(text) for _, _, text in bars.rows), default=0) + 1
    room = max(4, min(BAR_WIDTH, width - margin - tail))
    for label, value, written in bars.rows:
        text = Text(_padded(label, margin))
        length = round(room * value / most)
        text.append("█" * length + " " * (room - length) + " ", style="blue")
        yield text.append(written)


def _curve(curve: Curve, width: int) -> Iterator[Text]:
    """Columns of blocks as high as the values."""
    low, high = min(0.0, *curve.ys), max(curve.ys)
    names = f"{high:.3g}", f"{low:.3g}"
    margin = max(map(len, names)) + 2
    room = max(8, min(width - margin, 100))
    places = [curve.ys[min(len(curve.ys) - 1, i * len(curve.ys) // room)] for i in range(room)]
    scale = (high - low) or 1.0
    heights = [round((y - low) / scale * CURVE_ROWS * 8) for y in places]
    for row in range(CURVE_ROWS, 0, -1):
        name = names[0] if row == CURVE_ROWS else names[1] if row == 1 else ""
        filled = (min(8, max(0, height - 8 * (row - 1))) for height in heights)
        line = "".join(EIGHTHS[eighths] for eighths in filled)
        yield Text(name.rjust(margin - 2) + " ┤", style="dim").append(line, style="not dim blue")
    ends = f"{curve.xs[0]:,.6g}", f"{curve.xs[-1]:,.6g}"
    middle = curve.x_label.center(max(0, room - sum(map(len, ends))))
    yield Text(" " * margin + ends[0] + middle + ends[1], style="dim")


def _heatmaps(block: Heatmaps, width: int, coloured: bool) -> Iterator[Text]:
    """Panels beside one another, as many as fit."""
    shown = block.panels[:MOST_PANELS]
    if not shown:
        return
    alone = len(shown) == 1
    names = list(block.y_labels) if alone else []
    margin = max(map(cell_len, names), default=-1) + 1
    draw = _cells if len(shown[0].values[0]) <= MOST_CELLS else _half_blocks
    parts = [[Text(panel.title), *draw(panel, coloured)] for panel in shown]
    size = max(cell_len(line.plain) for lines in parts for line in lines) + 3
    across = max(1, (width - margin) // size)
    for start in range(0, len(parts), across):
        row = parts[start : start + across]
        for number, lines in enumerate(itertools.zip_longest(*row)):
            name = names[number - 1] if 0 < number <= len(names) and draw is _cells else ""
            text = Text(_padded(name, margin), style="dim")
            for line in lines:
                text.append_text(line)
                text.append(" " * (size - cell_len(line.plain)))
            text.rstrip()
            if number or line.plain:
                yield text
    if len(block.panels) > len(shown):
        yield Text(f"… {len(block.panels) - len(shown)}: {block.more}", style="dim")


def _cells(panel: Panel, coloured: bool) -> list[Text]:
    """A value is two characters, about a square."""
    lines = []
    for values in panel.values:
        line = Text()
        for value in values:
            if coloured:
                line.append("██", style=Style(color=_pixel(value), dim=False))
            else:
                line.append(2 * _shade(value), style="not dim")
        lines.append(line)
    return lines


def _half_blocks(panel: Panel, coloured: bool) -> list[Text]:
    """A character is two values, one above the other."""
    lines = []
    rows = [*panel.values, [0.0] * len(panel.values[0])]
    for upper, lower in zip(rows[:-1:2], rows[1::2], strict=True):
        line = Text()
        for top, bottom in zip(upper, lower, strict=True):
            if coloured:
                style = Style(color=_pixel(top), bgcolor=_pixel(bottom), dim=False)
                line.append("▀", style=style)
            else:
                line.append(_shade(max(top, bottom)), style="not dim")
        lines.append(line)
    return lines


def _shade(value: float) -> str:
    return SHADES[min(4, int(5 * value))]


def _pixel(value: float) -> str:
    """The colour of a value: nearly black for none, so that a picture has an outline."""
    return "#20242c" if value < 0.02 else hex_of(tint(1 - value, "cool"))
