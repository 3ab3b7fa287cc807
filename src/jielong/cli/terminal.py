"""Rows on a terminal, output where it is not UTF-8, and arguments typed there."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Sequence

REPLACE = "jielong.replace"  # name of the error handler
PLAIN = {  # what our own lines have beyond ASCII
    "·": "-",
    "…": "...",
    "─": "-",
    "×": "x",
    "▸": ">",
    "⏎": "|",
    "±": "+-",
    "→": "->",
    "÷": "/",
    "√": "sqrt ",
}


def replace_what_cannot_be_shown() -> None:
    """Make output replace characters that its encoding lacks, instead of raising an error."""
    codecs.register_error(REPLACE, _replaced)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream of another kind, as in notebooks
            stream.reconfigure(errors=REPLACE)  # type: ignore[union-attr]


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(char, "?") for char in text), error.end


def print_row(label: str, value: str, width: int = 12) -> None:
    """Print a label, filled up to `width` columns, and a value."""
    from rich.cells import cell_len

    print(f"{label}{' ' * (width - cell_len(label))}{value}")


def as_utf8(words: Sequence[str]) -> list[str]:
    """Read arguments that the locale could not decode as UTF-8, which terminals mostly send."""
    return [_as_utf8(word) for word in words]


def _as_utf8(word: str) -> str:
    try:
        return os.fsencode(word).decode("utf-8") if not word.isascii() else word
    except UnicodeError:
        return word
