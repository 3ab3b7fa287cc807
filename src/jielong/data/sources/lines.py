"""Lines of a stream of bytes, one by one, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

LINE_BYTES = 2**28  # a longer line is left out: with its text and tokens it takes some 2 GB
PART_BYTES = 2**20
DAMAGED_BYTES = 1024  # most that is left out for one damaged place: a line, or a part of a long one


def numbered_lines(
    stream: io.BufferedReader, limit: int
) -> Iterator[tuple[int, bytes | bytearray, int]]:
    """Yield the number of each line, the line, and its bytes.

    A line longer than `limit` bytes is yielded as none at all, and never held whole.
    """
    number = 0
    while part := stream.readline(PART_BYTES):
        number += 1
        line: bytes | bytearray = part
        size = len(part)
        if not part.endswith(b"\n") and len(part) == PART_BYTES:
            line = bytearray(part)
            while part and not part.endswith(b"\n"):
                part = stream.readline(PART_BYTES)
                size += len(part)
                if size <= limit:
                    line += part
                else:
                    line.clear()
        yield number, line if size <= limit else b"", size


def with_line_feeds(stream: io.BufferedReader) -> io.BufferedReader:
    """Return a stream of rows with line feeds, where it has only carriage returns (old Macs)."""
    head = stream.peek(1)
    if b"\r" not in head or b"\n" in head:
        return stream
    return io.BufferedReader(_LineFeeds(stream), PART_BYTES)


class _LineFeeds(io.RawIOBase):
    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        data = self._stream.read1(len(out)).replace(b"\r", b"\n")
        out[: len(data)] = data
        return len(data)


def short_parts(line: bytes) -> Iterator[bytes]:
    """Yield the line in parts of at most DAMAGED_BYTES."""
    while len(line) > DAMAGED_BYTES:
        at = character_start(line, DAMAGED_BYTES)
        yield line[:at]
        line = line[at:]
    yield line


def character_start(data: bytes, at: int) -> int:
    """Return the last position up to `at` where a UTF-8 character begins."""
    for position in range(at, max(at - 4, 0), -1):
        if data[position] & 0xC0 != 0x80:
            return position
    return at
