"""Plain text → documents.

Everything streams, in bounded memory. A line that is not valid UTF-8 is left out, and yielded as a
`BadLine` at its place in the order.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from jielong.data.sources.encodings import is_utf8
from jielong.data.sources.items import INVALID_UTF8, NOT_UTF8, BadLine, Document, Item
from jielong.data.sources.lines import parts_of_lines, short_parts


def read_text(stream: io.BufferedReader, name: str, limit: int) -> Iterator[Item]:
    """Yield the whole text, or documents of at most `limit` bytes if it is longer."""
    lines: list[bytes] = []
    size, begin, cut = 0, 1, False
    for line in parts_of_lines(stream, limit):
        while lines and size + len(line) > limit:
            cut, count = True, _good_cut(lines)
            yield from _text_document(lines[:count], name, begin, cut)
            begin += sum(part.endswith(b"\n") for part in lines[:count])
            lines = lines[count:]
            size = sum(map(len, lines))
        lines.append(line)
        size += len(line)
    if lines or not cut:
        yield from _text_document(lines, name, begin, cut)


def _good_cut(lines: list[bytes]) -> int:
    """Return how many lines to cut off: up to a blank line in the last half, else all."""
    for count in range(len(lines), len(lines) // 2, -1):
        if not lines[count - 1].strip():
            return count
    return len(lines)


def _text_document(lines: list[bytes], name: str, begin: int, cut: bool) -> Iterator[Item]:
    data = b"".join(lines)
    damaged: list[BadLine] = []
    if not is_utf8(data):
        lines, damaged = _without_damage(lines, name, begin)
        data = b"".join(lines)
    text = data.decode("utf-8")
    text = text.strip("\r\n") if cut else text
    if text and not text.isspace():
        yield Document(text, name, begin, len(data))
    elif not cut and not damaged:
        yield BadLine(name, begin, "empty text")
    yield from damaged


def _without_damage(lines: list[bytes], name: str, begin: int) -> tuple[list[bytes], list[BadLine]]:
    """Return the lines without those that are not UTF-8; of a long one, only a part is left out."""
    kept, damaged, number = [], [], begin
    for line in lines:
        for part in [line] if is_utf8(line) else short_parts(line):
            if is_utf8(part):
                kept.append(part)
            else:
                damaged.append(BadLine(name, number, INVALID_UTF8, NOT_UTF8, len(part)))
        number += line.endswith(b"\n")
    return kept, damaged
