"""Charts by matplotlib, the extra `plots`: as SVG for a page, or together as one PNG.

The SVG has no colours of its own, but names of colours that the page defines for light and dark
screens, and no text but numbers: the page has the words, in its own language.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jielong.present.plotting import fonts, require_matplotlib
from jielong.present.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 400  # of a curve
INK, GRID = "#010101", "#020202"
COLOURS = tuple(f"#0304{i:02x}" for i in range(8))  # replaced by var(--c0) … var(--c7)
# the same on white paper, for a PNG
PAPER_INK, PAPER_GRID = "#1d2330", "#a9b0bd"
PAPER_COLOURS = (
    *("#2f6fb5", "#c4561c", "#1f8a5b", "#8a4fb0"),
    *("#9a7b00", "#b8316f", "#3d8f9e", "#6b6f78"),
)
ACROSS, PANEL = 2, (6.0, 3.6)  # charts in a row of a PNG, and the inches of one
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jielong",
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Series:
    """One curve: values over x, as a line or as points with bars of error.

    Attributes:
        colour: number of its colour.
        low, high: a band around the line.
        errors: half the length of each bar of error.
        best: index of the point to mark.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    errors: Sequence[float] | None = None
    points: bool = False
    best: int | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over the same x.

    Attributes:
        ticks: how a value of x is written.
        steps: x counts steps, and `ticks` writes three lines below each.
        cut_top: leave the first moments out of the range of y, where the loss falls from ln(V).
    """

    series: Sequence[Series]
    ticks: Callable[[float], str] = field(default="{:g}".format)
    log: bool = False  # of y, where its values span more than a decade
    cut_top: bool = False
    steps: bool = True


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Attributes:
        keys: what each colour stands for.
    """

    title: str
    chart: Chart
    caption: str = ""
    keys: Sequence[tuple[int, str]] = ()


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def thin(xs: Sequence[float], ys: Sequence[float | None], most: int = MOST_POINTS) -> Series:
    """Mean, lowest and highest of neighbours, so that a curve has at most `most` points.

    Args:
        ys: values; those that are None are left out.
    """
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None and math.isfinite(y)]
    size = max(1, math.ceil(len(pairs) / most))
    bins = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    values = [[y for _, y in part] for part in bins]
    return Series(
        xs=[part[-1][0] for part in bins],
        ys=[sum(part) / len(part) for part in values],
        low=[min(part) for part in values] if size > 1 else None,
        high=[max(part) for part in values] if size > 1 else None,
    )


def draw(chart: Chart) -> str:
    """Return a chart as an `<svg>` element that fills the width it is given."""
    import matplotlib
    from matplotlib.figure import Figure as Picture

    with matplotlib.rc_context(SETTINGS):
        figure = Picture(figsize=(5.6, 2.9))
        bottom = 0.2 if chart.steps else 0.09
        axes = figure.add_axes((0.105, bottom, 0.845, 0.96 - bottom))
        _fill(axes, chart, COLOURS, INK)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue())


def png(figures: Sequence[Figure], title: str) -> bytes:
    """Return charts with their words as one picture on white paper.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure as Picture
    from matplotlib.lines import Line2D

    down = math.ceil(len(figures) / ACROSS)
    colours: dict[Any, Any] = {"text.color": PAPER_INK, "axes.edgecolor": PAPER_GRID}
    colours |= {"xtick.labelcolor": PAPER_INK, "ytick.labelcolor": PAPER_INK}
    colours |= {"grid.color": PAPER_GRID, "font.family": fonts(), "text.parse_math": False}
    out = io.BytesIO()
    with matplotlib.rc_context(SETTINGS | colours), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # no font here has Chinese, say
        size = (PANEL[0] * min(ACROSS, len(figures)), PANEL[1] * down + 0.4)
        picture = Picture(figsize=size, layout="constrained", facecolor="white")
        picture.suptitle(visible(title), x=0.01, ha="left", size=12)
        for number, figure in enumerate(figures, start=1):
            axes = picture.add_subplot(down, min(ACROSS, len(figures)), number)
            _fill(axes, figure.chart, PAPER_COLOURS, PAPER_INK)
            axes.set_title(visible(figure.title), loc="left", size=10)
            axes.set_xlabel(visible(figure.caption), size=8)
            handles = [Line2D([], [], color=PAPER_COLOURS[c % 8]) for c, _ in figure.keys]
            if handles:
                names = [visible(name) for _, name in figure.keys]
                axes.legend(handles, names, frameon=False, fontsize=8)
        picture.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _fill(axes: Axes, chart: Chart, colours: Sequence[str], ink: str) -> None:
    """Draw the curves of a chart, with their scales."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for series in chart.series:
        _draw_series(axes, series, colours[series.colour % len(colours)], ink)
    values = [y for series in chart.series for y in series.ys]
    if chart.log and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif (top := _top(chart)) is not None:
        axes.set_ylim(top=top)
    axes.grid(visible=True)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=5, integer=chart.steps)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda x, _: chart.ticks(x) if x >= 0 else "")


def _draw_series(axes: Axes, series: Series, colour: str, ink: str) -> None:
    if series.low is not None and series.high is not None:
        axes.fill_between(series.xs, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    style = "o-" if series.points or len(series.xs) == 1 else "-"
    axes.plot(series.xs, series.ys, style, color=colour, linewidth=1.4, markersize=3.5)
    if series.errors is not None:
        axes.errorbar(
            series.xs, series.ys, series.errors, fmt="none", ecolor=colour, elinewidth=1, capsize=2
        )
    if series.best is not None:
        x, y = series.xs[series.best], series.ys[series.best]
        axes.plot([x], [y], "*", color=ink, markersize=11, markeredgewidth=0)


def _top(chart: Chart) -> float | None:
    """The upper end of y where the first moments are left out of it."""
    if not chart.cut_top:
        return None
    tops = []
    for series in chart.series:
        later = series.ys[len(series.ys) // 25 :]
        if len(later) >= 20 or (series.points and later):
            tops.append(max(later))
    values = [y for series in chart.series for y in series.ys]
    if not tops or max(tops) >= max(values):
        return None
    return max(tops) + 0.08 * (max(tops) - min(values))


def _inline(svg: str) -> str:
    """Make a file an element of a page: no header, no fixed size, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{number})")
    return re.sub(r"\n\s*", "\n", svg)
