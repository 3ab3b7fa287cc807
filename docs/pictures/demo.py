"""Record a short run in a terminal and draw it as a moving picture: `make demo-picture`.

The commands really run, in a terminal of their own; what they print, and when, is kept. A screen of
that terminal is drawn for each moment, as text in one SVG whose frames CSS shows one after another.
Training is shown faster than it was; the picture says how much.
"""

from __future__ import annotations

import argparse
import codecs
import os
import pty
import select
import shlex
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fcntl import ioctl
from html import escape
from itertools import groupby
from pathlib import Path
from termios import TIOCSWINSZ

import pyte
from pyte.screens import Char

HERE = Path(__file__).resolve().parent
COLUMNS, ROWS = 96, 26
CELL, LINE, MARGIN, TOP = 8.4, 19, 14, 34  # in pixels
FONT = 14  # its height
SECONDS = 24.0  # of the picture, of which the last ones stand still
LAST_S, FRAME_S, KEY_S = 5.0, 0.25, 0.05
COLOURS = {
    "default": "#d7dde8",
    "black": "#5b6575",
    "brightblack": "#5b6575",
    "red": "#ff8272",
    "green": "#8ddb8c",
    "brown": "#f0c674",
    "blue": "#82b1ff",
    "magenta": "#d6a2ff",
    "brightmagenta": "#d6a2ff",
    "cyan": "#7fdbda",
    "white": "#ffffff",
}
STYLE = (
    f"text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',"
    "'Noto Sans Mono CJK SC',monospace;white-space:pre}"
    ".b{font-weight:700}"
)
LANGUAGES = {
    "en": (
        "en_GB.UTF-8",
        "jielong pretrain --data-path sample:shakespeare --minutes {minutes} --out-dir runs/demo",
        ["To be, or not to be", "Enter the King"],
    ),
    "zh": (
        "zh_CN.UTF-8",
        "jielong pretrain --data-path sample:poems --minutes {minutes} --out-dir runs/demo",
        ["《靜夜思》李白", "《春曉》孟浩然"],
    ),
}
Recording = list[tuple[float, str]]  # seconds since the beginning, and what was printed
Row = tuple[tuple[int, str, str, bool], ...]  # runs of alike cells: column, text, colour, bold


def record(command: str, folder: Path, locale: str) -> Recording:
    """Run a command in a terminal; return what it printed and when.

    Raises:
        SystemExit: it failed.
    """
    print(f"$ {command}", flush=True)
    begin, decoder = time.monotonic(), codecs.getincrementaldecoder("utf-8")("replace")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "LC_ALL": locale, "PYTHONWARNINGS": "ignore"}
        words = shlex.split(command)
        os.execv(sys.executable, [sys.executable, "-m", *words])
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    found: Recording = []
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        found.append((time.monotonic() - begin, decoder.decode(data)))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("".join(text for _, text in found))
    return found


def typed(command: str) -> Recording:
    """A command as it is typed."""
    keys = [(0.4 + i * KEY_S, key) for i, key in enumerate(command)]
    return [(0.0, "\x1b[32m$\x1b[0m "), *keys, (keys[-1][0] + 0.5, "\r\n")]


def after(parts: Sequence[Recording]) -> Recording:
    """Recordings one behind another."""
    found: Recording = []
    for part in parts:
        begin = found[-1][0] if found else 0.0
        found += [(begin + seconds, text) for seconds, text in part]
    return found


def faster(recording: Recording, seconds: float) -> Recording:
    """Return a recording that takes as many seconds."""
    factor = min(1.0, seconds / recording[-1][0])
    return [(at * factor, text) for at, text in recording]


def frames(recording: Recording) -> Iterator[tuple[float, tuple[Row, ...]]]:
    """Yield the screens that differ from the one before, and when."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    due, last = 0.0, None
    for at, text in [*recording, (recording[-1][0] + 2 * FRAME_S, "")]:
        if at >= due:
            shown = tuple(_row(screen, y) for y in range(ROWS))
            if shown != last:
                yield at, shown
                last = shown
            due = at + (KEY_S if len(text) == 1 else FRAME_S)
        stream.feed(text)


def _row(screen: pyte.Screen, y: int) -> Row:
    # the second half of a wide character is an empty cell
    cells = [(x, screen.buffer[y][x]) for x in range(COLUMNS) if screen.buffer[y][x].data]
    runs = []
    for (colour, bold, _), part in groupby(cells, lambda cell: _style(cell[1])):
        alike = list(part)
        text = "".join(cell.data for _, cell in alike)
        if text.strip():
            runs.append((alike[0][0], text.rstrip(), colour, bold))
    return tuple(runs)


def _style(cell: Char) -> tuple[str, bool, bool]:
    colour = COLOURS.get(cell.fg, f"#{cell.fg}")
    return colour, cell.bold, not cell.data.isascii()


def svg(shown: Sequence[tuple[float, tuple[Row, ...]]], title: str, note: str) -> str:
    """Draw the frames, side by side, and a style that shows one after another."""
    width, height = COLUMNS * CELL + 2 * MARGIN, ROWS * LINE + TOP + MARGIN
    names: dict[Row, str] = {}
    drawn, keys = [], []
    total = shown[-1][0] + LAST_S
    for i, (at, rows) in enumerate(shown):
        uses = [
            f'<use href="#{names.setdefault(row, f"r{len(names)}")}" y="{y * LINE + FONT}"/>'
            for y, row in enumerate(rows)
            if row
        ]
        drawn.append(f'<g transform="translate({i * width:.0f} 0)">{"".join(uses)}</g>')
        keys.append(f"{100 * at / total:.3f}%{{transform:translateX({-i * width:.0f}px)}}")
    last = f"transform:translateX({-(len(shown) - 1) * width:.0f}px)"
    defined = "".join(f'<text id="{name}">{_spans(row)}</text>' for row, name in names.items())
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * i}" cy="17" r="6" fill="{c}"/>'
        for i, c in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    style = STYLE + (
        f"@keyframes play{{{''.join(keys)}100%{{{last}}}}}"
        f"#film{{animation:play {total:.2f}s step-end infinite}}"
        f"@media (prefers-reduced-motion:reduce){{#film{{animation:none;{last}}}}}"
    )
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    inner = f'width="{width - 2 * MARGIN:.0f}" height="{ROWS * LINE}"'
    right = f'x="{width - MARGIN:.0f}" y="22" text-anchor="end" fill="#8b96a8"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" {size} role="img">'
        f"<title>{escape(title)}</title><style>{style}</style><defs>{defined}</defs>"
        f'<rect width="100%" height="100%" rx="10" fill="#161b26"/>{dots}'
        f"<text {right}>{escape(note)}</text>"
        f'<svg x="{MARGIN}" y="{TOP}" {inner}><g id="film">{"".join(drawn)}</g></svg></svg>\n'
    )


def _spans(row: Row) -> str:
    """Text whose runs stand at their columns; what is not ASCII is fitted to its cells."""
    parts = []
    for x, text, colour, bold in row:
        cells = sum(2 if pyte.screens.wcwidth(char) == 2 else 1 for char in text)
        fitted = "" if text.isascii() else f' textLength="{cells * CELL:.1f}"'
        style = ' class="b"' if bold else ""
        parts.append(
            f'<tspan x="{x * CELL:.1f}" fill="{colour}"{fitted}{style}>{escape(text)}</tspan>'
        )
    return "".join(parts)


def main() -> None:
    """Record and draw the picture of a language."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("--minutes", default="2")
    arguments = parser.parse_args()
    locale, train, prompts = LANGUAGES[arguments.language]
    train = train.format(minutes=arguments.minutes)
    with tempfile.TemporaryDirectory(prefix="jielong-demo-") as folder:
        training = record(train, Path(folder), locale)
        said = []
        for prompt in prompts:
            command = (
                f"jielong generate runs/demo --prompt {shlex.quote(prompt)} --max-new-tokens 40"
            )
            said += [typed(command), faster(record(command, Path(folder), locale), 1.5)]
    others = after([typed(train), *said])[-1][0]
    took = training[-1][0]
    training = faster(training, SECONDS - others)
    film = list(frames(after([typed(train), training, *said])))
    speed = took / training[-1][0]
    note = {"en": f"training shown {speed:.0f} times as fast", "zh": f"训练快放 {speed:.0f} 倍"}
    name = {"en": "demo.svg", "zh": "demo.zh-CN.svg"}[arguments.language]
    text = svg(film, f"$ {train}", note[arguments.language])
    (HERE / name).write_text(text, encoding="utf-8")
    print(f"{name}: {len(film)} frames, {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
