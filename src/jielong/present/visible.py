"""Text of models and corpora, made safe to print: nothing in it acts on the terminal."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any

from jielong.present.blocks import Page, Panel

_NAMED = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\x7f": "␡"}


def visible(text: str) -> str:
    """Return the text with a sign for each character that would act instead of being seen.

    Control characters have signs of their own (U+2400 …); what turns the direction of writing, or
    has no width, is written as its code.
    """
    if text.isprintable():
        return text
    return "".join(map(_sign, text))


def _sign(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if ord(char) < 0x20:
        return chr(0x2400 + ord(char))
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"<U+{ord(char):04X}>"
    return char


def spelled(piece: bytes) -> str:
    """Return a token's bytes as text to look at: a space is ␣, a part of a character its bytes."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"‹{byte:02X}›" if byte >= 0x80 else visible(chr(byte)) for byte in piece)
    return visible(text).replace(" ", "␣") if text else "∅"


def safe(page: Page) -> Page:
    """Return a page with all its text made `visible`; each way of drawing begins with it."""
    made: Page = _safe(page)
    return made


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Panel):  # the rest of it is many numbers
        return dataclasses.replace(value, title=visible(value.title))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _safe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value
