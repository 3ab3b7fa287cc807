"""What a result is drawn from: a page of a few kinds of block, the same for every way of drawing.

`terminal.py`, `html.py` and `picture.py` each draw all of them. So a result says once what there is
to see, and a new way of drawing needs nothing new of the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "dim", "strong", "warning"]
Scale = Literal["warm", "cool"]  # warm warns (surprise), cool is good (probability)


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Facts:
    """Labels, each with its value."""

    rows: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first `left` columns are words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    left: int = 1


@dataclass(frozen=True)
class Mark:
    """One line of a token's cell."""

    text: str
    heat: float | None = None  # 0 … 1: how deeply it is tinted
    group: int | None = None  # what it belongs to: one colour each
    muted: bool = False  # there, but it does not count


@dataclass(frozen=True)
class Strip:
    """Tokens side by side, each a column of marks under one another; wrapped where it is wide.

    Attributes:
        labels: what each line of a column is.
        columns: a token's marks, as many as there are labels.
        breaks: the columns before which something ends and something new begins.
        scale: the colours of `heat`.
    """

    labels: Sequence[str]
    columns: Sequence[Sequence[Mark]]
    title: str = ""
    breaks: frozenset[int] = frozenset()
    scale: Scale = "warm"


@dataclass(frozen=True)
class Bars:
    """Lengths beside each other: a label, a value that is not negative, and how it is written."""

    rows: Sequence[tuple[str, float, str]]
    title: str = ""


@dataclass(frozen=True)
class Curve:
    """One quantity over another."""

    xs: Sequence[float]
    ys: Sequence[float]
    x_label: str
    title: str = ""


@dataclass(frozen=True)
class Panel:
    """A matrix of values from 0 to 1: rows from top to bottom."""

    title: str
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Heatmaps:
    """Matrices as pictures, side by side; `x_labels` and `y_labels` name columns and rows."""

    panels: Sequence[Panel]
    title: str = ""
    x_labels: Sequence[str] = ()
    y_labels: Sequence[str] = ()
    more: str = ""  # what to say where a terminal leaves panels out


Block = Note | Facts | Table | Strip | Bars | Curve | Heatmaps


@dataclass(frozen=True)
class Page:
    """All there is to see of a result."""

    title: str
    blocks: Sequence[Block]
