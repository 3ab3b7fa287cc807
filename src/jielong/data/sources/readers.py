"""Plain text → documents.

Everything streams, in bounded memory. A line that is not valid UTF-8 is left out, and yielded as a
`BadLine` at its place in the order.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from jielong.data.sources.encodings import is_utf8
from jielong.data.sources.items import INVALID_UTF8, NOT_UTF8, BadLine, Document, Item
from jielong.data.sources.lines import short_parts
from jielong.data.sources.text_blocks import Block, blocks, trimmed
from jielong.data.sources.text_units import Splitting


def read_text(
    stream: io.BufferedReader, name: str, limit: int, splitting: Splitting
) -> Iterator[Item]:
    """Yield the texts of a file of plain text; one longer than `limit` bytes in pieces."""
    for block in blocks(stream, name, limit, splitting):
        yield from _text_document(block, name)


def _text_document(block: Block, name: str) -> Iterator[Item]:
    data = block.data
    damaged: list[BadLine] = []
    if not is_utf8(data):
        data, damaged = without_damage(data, name, block.line)
    kept = data if block.whole else trimmed(data, block.begins)
    text = kept.decode("utf-8")
    if text and not text.isspace():
        line = block.line + data.count(b"\n", 0, data.index(kept))
        yield Document(text, name, line, len(data), unit=block.unit)
    elif block.whole and not damaged:
        yield BadLine(name, block.line, "empty text")
    yield from damaged


def without_damage(data: bytes, name: str, begin: int) -> tuple[bytes, list[BadLine]]:
    """Return text without the lines that are not UTF-8; of a long one, only a part is left out."""
    kept, damaged, number = [], [], begin
    for line in io.BytesIO(data):
        for part in [line] if is_utf8(line) else short_parts(line):
            if is_utf8(part):
                kept.append(part)
            else:
                damaged.append(BadLine(name, number, INVALID_UTF8, NOT_UTF8, len(part)))
        number += line.endswith(b"\n")
    return b"".join(kept), damaged
