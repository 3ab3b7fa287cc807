"""A page as HTML: one file that needs no network, for light and dark screens.

All text is escaped, and the file's own policy forbids scripts and everything from elsewhere: what a
model or a corpus says is never markup.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from html import escape

from jielong.present.blocks import (
    Bars,
    Block,
    Curve,
    Facts,
    Heatmaps,
    Mark,
    Note,
    Page,
    Scale,
    Strip,
    Table,
)
from jielong.present.colours import background, hex_of, on
from jielong.present.visible import safe

STYLE = """
.jl{--ink:#1d2330;--paper:#fff;--dim:#667085;--line:#d7dbe3;--bar:#3b82c4;color:var(--ink);
background:var(--paper);font:15px/1.5 system-ui,"Noto Sans CJK SC","PingFang SC",sans-serif;
padding:1.2em;max-width:76em;margin:0 auto}
@media DARK{.jl{--ink:#e4e7ee;--paper:#151922;--dim:#98a2b3;--line:#343b4a;
--bar:#5aa0d8}}
.jl h1{font-size:1.35em;margin:0 0 .6em}.jl h2{font-size:1.05em;margin:1.4em 0 .4em}
.jl p{margin:.3em 0}.jl .dim{color:var(--dim)}.jl .strong{font-weight:600}
.jl .warning{border-left:4px solid #e08a2e;padding-left:.6em}
.jl table{border-collapse:collapse;background:none;color:inherit}
.jl .wide{overflow-x:auto}
.jl th,.jl td{padding:.15em .9em .15em 0;text-align:right;white-space:pre;border:0;background:none}
.jl th{color:var(--dim);font-weight:400}.jl .word{text-align:left;white-space:pre-wrap}
.jl .bars .word:first-child{white-space:nowrap}
.jl .strip{display:flex;flex-wrap:wrap;gap:6px 2px;font:13px/1.45 ui-monospace,Menlo,Consolas,
"Noto Sans Mono CJK SC",monospace}
.jl .strip>div{display:grid;border:1px solid var(--line);border-radius:3px}
.jl .strip span{padding:0 4px;white-space:pre}.jl .strip .labels{border:0;color:var(--dim)}
.jl .strip .break{border-left:4px solid var(--ink);margin-left:6px}
.jl .strip .muted{color:var(--dim)}
.jl .bar{display:inline-block;height:.8em;background:var(--bar);vertical-align:middle}
.jl img{max-width:100%}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# on which screens a page is dark
SCREENS = {"auto": "(prefers-color-scheme:dark)", "light": "not all", "dark": "all"}


def document(page: Page, language: str = "en", scheme: str = "auto") -> str:
    """Return a whole HTML file.

    Args:
        language: en or zh.
        scheme: light, dark, or auto, as the screen is.

    Raises:
        ConfigError: the page has curves or heatmaps, and matplotlib is not installed.
    """
    return whole(safe(page).title, fragment(page, scheme), language, scheme)


def whole(title: str, body: str, language: str, scheme: str = "auto") -> str:
    """Return a file that has `body`, which must be markup of ours."""
    return (
        f'<!doctype html>\n<html lang="{escape(language)}"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>body{{margin:0}}@media {SCREENS[scheme]}{{body{{background:#151922}}}}</style>\n"
        f"</head><body>\n{body}\n</body></html>\n"
    )


def style(scheme: str = "auto") -> str:
    """Return the style sheet of our pages; scheme as `document` has it."""
    return STYLE.replace("DARK", SCREENS[scheme])


def fragment(page: Page, scheme: str = "auto") -> str:
    """Return the page as a part of another one, with its style: what a notebook shows."""
    page, dark = safe(page), SCREENS[scheme]
    parts = [
        f"<style>{style(scheme)}</style>",
        '<div class="jl">',
        f"<h1>{escape(page.title)}</h1>",
    ]
    for block in page.blocks:
        if not isinstance(block, Note) and block.title:
            parts.append(f"<h2>{escape(block.title)}</h2>")
        parts.append(_block(block, dark))
    return "\n".join([*parts, "</div>"])


def _block(block: Block, dark: str) -> str:
    if isinstance(block, Note):
        return f'<p class="{block.tone}">{escape(block.text)}</p>'
    if isinstance(block, Facts):
        return _rows((), block.rows, left=2)
    if isinstance(block, Table):
        return _rows(block.columns, block.rows, block.left)
    if isinstance(block, Strip):
        return _strip(block)
    if isinstance(block, Bars):
        return _bars(block)
    return _picture(block, dark)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="word">{escape(cell)}</{tag}>'
            if number < left
            else f"<{tag}>{escape(cell)}</{tag}>"
            for number, cell in enumerate(row)
        )

    head = f"<tr>{cells(columns, 'th')}</tr>" if columns else ""
    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table>{head}{body}</table></div>'


def _strip(strip: Strip) -> str:
    labels = "".join(f"<span>{escape(label)}</span>" for label in strip.labels)
    parts = [f'<div class="strip"><div class="labels">{labels}</div>']
    for place, column in enumerate(strip.columns):
        pairs = zip(strip.labels, column, strict=True)
        about = "\n".join(f"{label}: {mark.text}" for label, mark in pairs if mark.text)
        marks = "".join(_mark(mark, strip.scale) for mark in column)
        kind = ' class="break"' if place in strip.breaks else ""
        parts.append(f'<div{kind} title="{_lines(about)}">{marks}</div>')
    return "".join([*parts, "</div>"])


def _lines(text: str) -> str:
    return "&#10;".join(escape(line) for line in text.split("\n"))


def _mark(mark: Mark, scale: Scale) -> str:
    colour = background(mark, scale)
    style = f' style="background:{hex_of(colour)};color:{on(colour)}"' if colour else ""
    kind = ' class="muted"' if mark.muted else ""
    return f"<span{kind}{style}>{escape(mark.text) or '&nbsp;'}</span>"


def _bars(bars: Bars) -> str:
    most = max((value for _, value, _ in bars.rows), default=0.0) or 1.0
    rows = "\n".join(
        f'<tr><td class="word">{escape(label)}</td><td class="word">'
        f'<span class="bar" style="width:{16 * value / most:.2f}em"></span> {escape(written)}'
        "</td></tr>"
        for label, value, written in bars.rows
    )
    return f'<table class="bars">{rows}</table>'


def _picture(block: Curve | Heatmaps, screens: str) -> str:
    """A picture for light screens, and one for dark screens."""
    from jielong.present.picture import png

    untitled = dataclasses.replace(block, title="")  # it stands above the picture
    sources = [_data(png(Page("", (untitled,)), dark=dark)) for dark in (True, False)]
    dark, light = sources
    alternative = escape(block.title)
    return (
        f'<picture><source media="{screens}" srcset="{dark}">'
        f'<img src="{light}" alt="{alternative}"></picture>'
    )


def _data(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
