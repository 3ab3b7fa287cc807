"""How large a batch of an Arrow file becomes when it is decompressed, before it is.

pyarrow decompresses a batch as a whole and has no limit for it. Each compressed buffer begins with
the size that it grows to, so a batch can be refused unread. Where the buffers lie is in a message's
metadata, a flatbuffer (Arrow's columnar format, "Serialization and interprocess communication").
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

# fields of the tables, by their place in Arrow's Message.fbs
HEADER, DICTIONARY_DATA, BUFFERS, COMPRESSION = 2, 1, 2, 3
CONTINUES = 2**32 - 1  # before the size of the metadata of a message


class CheckedMessages:
    """The stream of messages in a file, each of which is passed on once its size is allowed.

    It is itself a file, for pyarrow to read batches from, so the other one is read only once.

    Args:
        file: pyarrow's, where the stream of messages begins.
        spend: called with the bytes of each batch, decompressed, as it says itself; it may raise.
    """

    closed = False

    def __init__(self, file: Any, spend: Callable[[int], None]) -> None:
        self._pieces = _pieces(file, spend)
        self._piece = memoryview(b"")

    def read(self, size: int) -> memoryview | bytes:
        """Return the next bytes, fewer than `size` only at the end."""
        parts = [self._part(size)]
        while parts[-1] and (left := size - sum(map(len, parts))):
            parts.append(self._part(left))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, size: int) -> memoryview:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._piece = piece
        part, self._piece = self._piece[:size], self._piece[size:]
        return part


def _pieces(file: Any, spend: Callable[[int], None]) -> Iterator[memoryview]:
    """Yield the bytes of each message; its body is not copied."""
    import pyarrow as pa

    for message in pa.ipc.MessageReader.open_stream(file):
        metadata = bytes(message.metadata)
        if message.type in ("record batch", "dictionary"):
            spend(_size(metadata, message.type == "dictionary", message.body))
        yield memoryview(struct.pack("<Ii", CONTINUES, len(metadata)) + metadata)
        if message.body is not None:
            yield memoryview(message.body)


def _size(metadata: bytes, is_dictionary: bool, body: Any) -> int:
    batch = _table(metadata, 0, HEADER)
    if is_dictionary:
        batch = _table(metadata, batch, DICTIONARY_DATA, is_position=True)
    if body is None:
        return 0
    if not _field(metadata, batch, COMPRESSION):
        return int(body.size)
    vector = _follow(metadata, _field(metadata, batch, BUFFERS))
    (count,) = struct.unpack_from("<I", metadata, vector)
    total = 0
    for offset, length in struct.iter_unpack("<qq", metadata[vector + 4 : vector + 4 + 16 * count]):
        if length >= 8 and 0 <= offset <= body.size - 8:
            (grown,) = struct.unpack("<q", body[offset : offset + 8])
            total += length if grown < 0 else grown  # -1: this buffer is not compressed
    return total


def _table(metadata: bytes, at: int, field: int, is_position: bool = False) -> int:
    """Return where the table in a field of another begins, which an offset or a position tells."""
    table = at if is_position else _follow(metadata, at)
    return _follow(metadata, _field(metadata, table, field))


def _follow(metadata: bytes, at: int) -> int:
    (offset,) = struct.unpack_from("<I", metadata, at)
    return at + int(offset)


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return where a table has a field; 0 if it has none."""
    (back,) = struct.unpack_from("<i", metadata, table)
    fields = table - back
    (size,) = struct.unpack_from("<H", metadata, fields)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, fields + 4 + 2 * number)
    return table + offset if offset else 0
