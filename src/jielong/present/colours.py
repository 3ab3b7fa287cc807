"""The colours of tints and groups: the same in terminals, pages and pictures."""

from __future__ import annotations

from jielong.present.blocks import Mark, Scale

RGB = tuple[int, int, int]
SCALES: dict[Scale, tuple[RGB, RGB, RGB]] = {  # pale, middle, deep
    "warm": ((250, 226, 150), (236, 140, 80), (178, 32, 44)),
    "cool": ((205, 229, 242), (90, 160, 208), (18, 76, 130)),
}
# told apart by colour-blind readers as well (Okabe & Ito 2008), and light enough for black text
GROUPS: tuple[RGB, ...] = (
    *((86, 180, 233), (230, 159, 0), (64, 188, 145), (240, 228, 66)),
    *((204, 141, 180), (226, 122, 66), (150, 170, 215), (190, 190, 190)),
)
UNTINTED = 0.08  # heat below which nothing is tinted


def background(mark: Mark, scale: Scale) -> RGB | None:
    """Return the colour behind a mark; none if it has no tint and no group."""
    if mark.group is not None:
        return GROUPS[mark.group % len(GROUPS)]
    if mark.heat is None or mark.heat < UNTINTED:
        return None
    return tint(mark.heat, scale)


def tint(heat: float, scale: Scale) -> RGB:
    """Return the colour of a heat from 0 to 1."""
    pale, middle, deep = SCALES[scale]
    low, high, share = (pale, middle, 2 * heat) if heat < 0.5 else (middle, deep, 2 * heat - 1)
    share = min(1.0, max(0.0, share))
    return (
        round(low[0] + share * (high[0] - low[0])),
        round(low[1] + share * (high[1] - low[1])),
        round(low[2] + share * (high[2] - low[2])),
    )


def on(colour: RGB) -> str:
    """Return black or white: what can be read on a colour."""
    red, green, blue = colour
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "#ffffff"


def hex_of(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
