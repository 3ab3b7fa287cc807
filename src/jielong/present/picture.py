"""A page as a PNG, by matplotlib: the extra `plots`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from jielong.present.blocks import (
    Bars,
    Block,
    Curve,
    Facts,
    Heatmaps,
    Note,
    Page,
    Strip,
    Table,
)
from jielong.present.colours import background, hex_of, on
from jielong.present.plotting import fonts, require_matplotlib
from jielong.present.terminal import chunks
from jielong.present.visible import safe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, MARGIN, LINE = 11.0, 0.3, 0.22  # inches
CHAR = 0.092  # inches of a monospaced character of 11 points, about
ROWS_SHOWN = 60  # of a table: more make no picture
Box = tuple[float, float, float, float]  # of a figure: left, bottom, width and height, as shares


@dataclass(frozen=True)
class Ink:
    """The colours of a picture."""

    text: str
    dim: str
    paper: str
    line: str
    bar: str


LIGHT = Ink("#1d2330", "#667085", "#ffffff", "#d7dbe3", "#3b82c4")
DARK = Ink("#e4e7ee", "#98a2b3", "#151922", "#343b4a", "#5aa0d8")


def png(page: Page, dark: bool = False) -> bytes:
    """Draw a page.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib

    settings: Any = {
        "font.family": fonts(),
        "text.parse_math": False,  # text of models is no formula
        "font.size": 10,
        "axes.unicode_minus": False,
    }
    out = io.BytesIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # see `plotting.lacks_chinese`
        _figure(safe(page), DARK if dark else LIGHT).savefig(out, format="png", dpi=110)
    return out.getvalue()


def _figure(page: Page, ink: Ink) -> Figure:
    from matplotlib.figure import Figure

    blocks = list(page.blocks)
    heights = [_height(block) for block in blocks]
    title = 0.45 if page.title else 0.0
    total = title + sum(heights) + 2 * MARGIN
    figure = Figure(figsize=(WIDTH, total), facecolor=ink.paper)
    top = total - MARGIN
    if page.title:
        figure.text(MARGIN / WIDTH, top / total, page.title, va="top", size=14, color=ink.text)
        top -= title
    for block, height in zip(blocks, heights, strict=True):
        if not isinstance(block, Note) and block.title:
            place = (top - 0.12) / total
            figure.text(MARGIN / WIDTH, place, block.title, va="top", color=ink.text, weight="bold")
        bottom = top - height
        inner = height - _heading(block)
        box = (MARGIN / WIDTH, bottom / total, 1 - 2 * MARGIN / WIDTH, inner / total)
        _draw(block, figure, box, ink)
        top = bottom
    return figure


def _heading(block: Block) -> float:
    return 0.0 if isinstance(block, Note) or not block.title else 0.42


def _height(block: Block) -> float:
    if isinstance(block, Note):
        inner = LINE * len(list(_wrapped(block.text)))
    elif isinstance(block, Facts):
        inner = LINE * len(block.rows)
    elif isinstance(block, Table):
        inner = LINE * (1 + min(len(block.rows), ROWS_SHOWN + 1))
    elif isinstance(block, Strip):
        inner = len(_stretches(block)) * (len(block.labels) + 0.6) * LINE
    elif isinstance(block, Bars):
        inner = LINE * len(block.rows)
    elif isinstance(block, Curve):
        inner = 2.6
    else:
        _, down, size = _panels(block)
        inner = down * (size + 0.35) + _label_room(block)
    return inner + _heading(block) + 0.08


def _wrapped(text: str) -> Iterator[str]:
    """Lines of a text that fit; Chinese breaks anywhere, other text at spaces if it can."""
    line = ""
    for char in text:
        line += char
        if cell_len(line) * CHAR > WIDTH - 2 * MARGIN:
            cut = line.rfind(" ") if " " in line[-24:] else len(line) - 1
            yield line[:cut]
            line = line[cut:].lstrip()
    yield line


def _stretches(strip: Strip) -> list[tuple[int, int]]:
    sizes = [max(cell_len(mark.text) for mark in column) for column in strip.columns]
    return list(chunks(sizes, strip.breaks, _room(strip)))


def _room(strip: Strip) -> int:
    return int((WIDTH - 2 * MARGIN) / CHAR) - max(map(cell_len, strip.labels)) - 2


def _draw(block: Block, figure: Figure, box: Box, ink: Ink) -> None:
    if isinstance(block, Curve):
        _curve(block, figure, box, ink)
    elif isinstance(block, Heatmaps):
        _heatmaps(block, figure, box, ink)
    else:
        axes = figure.add_axes(box)
        axes.set_axis_off()
        height = figure.get_figheight() * box[3]
        axes.set_xlim(0, (WIDTH - 2 * MARGIN) / CHAR)  # in characters
        axes.set_ylim(height / LINE, 0)  # in lines
        if isinstance(block, Strip):
            _strip(block, axes, ink)
        elif isinstance(block, Bars):
            _bars(block, axes, ink)
        else:
            _lines(block, axes, ink)


def _lines(block: Note | Facts | Table, axes: Any, ink: Ink) -> None:
    if isinstance(block, Note):
        colour = {"dim": ink.dim, "warning": "#c8701a"}.get(block.tone, ink.text)
        for number, line in enumerate(_wrapped(block.text)):
            axes.text(0, number + 0.2, line, va="top", color=colour)
        return
    heading = [list(block.columns)] if isinstance(block, Table) else []
    rows = [*heading, *(list(row) for row in block.rows[:ROWS_SHOWN])]
    if len(block.rows) > ROWS_SHOWN:
        rows.append([f"… {len(block.rows) - ROWS_SHOWN}", *[""] * (len(rows[0]) - 1)])
    left = block.left if isinstance(block, Table) else 2
    sizes = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        place = 0
        for i, cell in enumerate(row):
            dim = (number == 0 and heading) or (not heading and i == 0)
            words = i < left
            axes.text(
                place if words else place + sizes[i],
                number + 0.2,
                cell,
                va="top",
                ha="left" if words else "right",
                color=ink.dim if dim else ink.text,
            )
            place += sizes[i] + 2


def _strip(strip: Strip, axes: Any, ink: Ink) -> None:
    from matplotlib.patches import Rectangle

    margin = max(map(cell_len, strip.labels)) + 2
    sizes = [max(cell_len(mark.text) for mark in column) for column in strip.columns]
    for number, (first, stop) in enumerate(_stretches(strip)):
        top = number * (len(strip.labels) + 0.6)
        for line, label in enumerate(strip.labels):
            axes.text(0, top + line + 0.5, label, va="center", color=ink.dim)
        place = float(margin)
        for i in range(first, stop):
            if i in strip.breaks:
                axes.plot([place, place], [top, top + len(strip.labels)], color=ink.text, lw=2)
                place += 1
            for line, mark in enumerate(strip.columns[i]):
                colour = background(mark, strip.scale)
                if colour is not None:
                    size = sizes[i] + 0.6
                    corner = place - 0.3, top + line + 0.03
                    axes.add_patch(Rectangle(corner, size, 0.94, color=hex_of(colour), lw=0))
                text = on(colour) if colour else ink.dim if mark.muted else ink.text
                axes.text(place, top + line + 0.5, mark.text, va="center", color=text)
            place += sizes[i] + 1


def _bars(bars: Bars, axes: Any, ink: Ink) -> None:
    most = max((value for _, value, _ in bars.rows), default=0.0) or 1.0
    margin = max((cell_len(label) for label, _, _ in bars.rows), default=0) + 2
    for number, (label, value, written) in enumerate(bars.rows):
        axes.text(0, number + 0.5, label, va="center", color=ink.text)
        length = 50 * value / most
        axes.barh(number + 0.5, length, 0.7, left=margin, color=ink.bar)
        axes.text(margin + length + 1, number + 0.5, written, va="center", color=ink.text)


def _curve(curve: Curve, figure: Figure, box: Box, ink: Ink) -> None:
    inches = figure.get_figheight()
    axes = figure.add_axes(
        (box[0] + 0.06, box[1] + 0.5 / inches, box[2] - 0.06, box[3] - 0.55 / inches)
    )
    axes.set_facecolor(ink.paper)
    axes.plot(list(curve.xs), list(curve.ys), color=ink.bar)
    axes.set_xlabel(curve.x_label, color=ink.dim)
    axes.tick_params(colors=ink.dim)
    axes.set_ylim(min(0.0, *curve.ys), max(curve.ys) * 1.05 or 1.0)
    axes.grid(color=ink.line, lw=0.6)
    for spine in axes.spines.values():
        spine.set_color(ink.line)


def _label_room(block: Heatmaps) -> float:
    return 0.1 + CHAR * 0.75 * max(map(cell_len, block.x_labels), default=0)


def _panels(block: Heatmaps) -> tuple[int, int, float]:
    """Panels in a row, rows, and the height of a panel in inches."""
    count = max(1, len(block.panels))
    across = 1 if count == 1 else 2 if count == 2 else min(4, count)
    rows, columns = len(block.panels[0].values), len(block.panels[0].values[0])
    width = (WIDTH - 2 * MARGIN) / across - 0.3
    size = min(width, 5.0) * rows / columns
    return across, -(-count // across), min(5.0, max(0.6, size))


def _heatmaps(block: Heatmaps, figure: Figure, box: Box, ink: Ink) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    across, _, size = _panels(block)
    inches = figure.get_figheight()
    colours = LinearSegmentedColormap.from_list("jielong", [ink.paper, ink.bar, ink.text])
    alone = len(block.panels) == 1
    left = (0.2 + CHAR * max(map(cell_len, block.y_labels), default=0)) / WIDTH if alone else 0.0
    for number, panel in enumerate(block.panels):
        row, column = divmod(number, across)
        top = box[1] + box[3] - (row * (size + 0.35) + 0.25) / inches
        width = (box[2] - left) / across
        axes = figure.add_axes(
            (box[0] + left + column * width, top - size / inches, width * 0.94, size / inches)
        )
        axes.imshow(
            [list(values) for values in panel.values],
            cmap=colours,
            vmin=0,
            vmax=1,
            aspect="auto" if alone else "equal",
            interpolation="nearest",
        )
        axes.set_title(panel.title, color=ink.dim, size=9, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
        if alone:
            names = list(block.x_labels)
            axes.set_xticks(range(len(names)), names, rotation=90, color=ink.dim, size=8)
            axes.set_yticks(range(len(block.y_labels)), block.y_labels, color=ink.dim, size=8)
        for spine in axes.spines.values():
            spine.set_color(ink.line)
