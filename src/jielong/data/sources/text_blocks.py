"""A file of plain text → the bytes of each of its texts; memory is bounded by the longest one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from jielong.data.sources.lines import character_start
from jielong.data.sources.text_units import (
    HEAD_BYTES,
    LONGEST_SEPARATOR,
    Ends,
    Splitting,
    ends_in,
)

CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class Block:
    """The bytes of one text, or of a piece of one that is too long, with line breaks around it.

    Attributes:
        line: where it begins in its file, counted from 1.
        unit: what ends it (`Ends.unit`), or piece.
        begins: tokens that begin a text, and are no part of it.
        whole: it is all that its file holds, and is the text as it is.
    """

    data: bytes
    line: int
    unit: str
    begins: Sequence[bytes] = ()
    whole: bool = False


def blocks(stream: BinaryIO, name: str, limit: int, splitting: Splitting) -> Iterator[Block]:
    """Yield the texts of a file; one longer than `limit` bytes is cut, best at blank lines."""
    head = stream.read(HEAD_BYTES)
    ends = ends_in(head, name, splitting)
    text = _Text(ends.limit or limit, ends.begins)
    for data, is_end in _fragments(stream, head, ends.pattern):
        if is_end:
            yield from text.end(data, ends.unit or data.strip().decode())
        else:
            yield from text.add(data)
    yield from text.finish()


def split_row(text: str, ends: Ends) -> list[str]:
    """Split the text of one row at a given separator; parts of blanks only are dropped."""
    assert ends.pattern is not None
    parts = (trimmed(part, ends.begins) for part in ends.pattern.split(text.encode()))
    return [part.decode() for part in parts if part.strip()]


def trimmed(data: bytes, begins: Sequence[bytes]) -> bytes:
    """Return a text without line breaks at both ends, and without a token that begins it."""
    data = data.strip(b"\r\n")
    for begin in begins:
        if data.lstrip().startswith(begin):
            return data.lstrip().removeprefix(begin).lstrip(b" \t").lstrip(b"\r\n")
    return data


class _Text:
    """Collects the lines of a text, and cuts it where it grows too long."""

    def __init__(self, limit: int, begins: Sequence[bytes]) -> None:
        self._limit, self._begins = limit, begins
        self._lines: list[bytes] = []
        self._size = 0
        self._line = 1  # where what is collected begins
        self._is_cut = False  # the text has been cut already
        self._unit, self._any = "", False  # of the text before; whether there was any

    def add(self, data: bytes) -> Iterator[Block]:
        """Take more of the text; yield what is cut off."""
        for line in io.BytesIO(data):
            while line:
                at = len(line) if len(line) <= self._limit else character_start(line, self._limit)
                yield from self._cut_for(at)
                self._lines.append(line[:at])
                self._size += at
                line = line[at:]

    def _cut_for(self, more: int) -> Iterator[Block]:
        while self._lines and self._size + more > self._limit:
            count = _good_cut(self._lines)
            data = b"".join(self._lines[:count])
            self._lines = self._lines[count:]
            self._size -= len(data)
            yield from self._block(data, "piece")
            self._is_cut = True

    def end(self, separator: bytes, unit: str) -> Iterator[Block]:
        """Yield the text that a separator ends."""
        yield from self._rest(unit)
        self._line += separator.count(b"\n")
        self._unit = unit

    def finish(self) -> Iterator[Block]:
        """Yield what is left at the end of the file."""
        if self._unit or self._is_cut:
            yield from self._rest(self._unit or "piece")
            if self._any:
                return
        yield Block(b"".join(self._lines), self._line, "file", whole=True)

    def _rest(self, unit: str) -> Iterator[Block]:
        yield from self._block(b"".join(self._lines), "piece" if self._is_cut else unit)
        self._lines, self._size, self._is_cut = [], 0, False

    def _block(self, data: bytes, unit: str) -> Iterator[Block]:
        begins = () if self._is_cut else self._begins
        if trimmed(data, begins).strip():
            self._any = True
            yield Block(data, self._line, unit, begins)
        self._line += data.count(b"\n")


def _fragments(
    stream: BinaryIO, head: bytes, pattern: re.Pattern[bytes] | None
) -> Iterator[tuple[bytes, bool]]:
    """Yield a file's bytes in order: parts of texts, and (with True) what ends one.

    A part ends with a line if that is possible, and never within a separator or a character.
    """
    buffer, last = head, len(head) < HEAD_BYTES
    while buffer:
        stop = len(buffer) if last else max(0, len(buffer) - LONGEST_SEPARATOR)
        if not last:
            stop = buffer.rfind(b"\n", 0, stop) + 1 or character_start(buffer, stop)
        at = 0
        for match in pattern.finditer(buffer) if pattern is not None else ():
            if match.start() >= stop:
                break
            if match.start() > at:
                yield buffer[at : match.start()], False
            yield match[0], True
            at = match.end()
        if at < stop:
            yield buffer[at:stop], False
        buffer = buffer[max(at, stop) :]
        if not last:
            more = stream.read(CHUNK_BYTES)
            last = not more
            buffer += more


def _good_cut(lines: list[bytes]) -> int:
    """Return how many lines to cut off: up to a blank line in the last half, else all."""
    for count in range(len(lines), len(lines) // 2, -1):
        if not lines[count - 1].strip():
            return count
    return len(lines)
