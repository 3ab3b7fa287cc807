"""Compressed files and standard input → plain bytes. What a file holds decides, not its name.

A file of another format, or a pointer in place of the data, is refused with what to do about it; so
is what grows beyond all measure. The library for zstd is imported only when it is needed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING, Any

from jielong.data.sources.items import UnreadableFileError
from jielong.data.sources.other_formats import HEAD_BYTES, refuse_other_formats
from jielong.data.sources.remote import AnyPath, RemotePath

if TYPE_CHECKING:
    import zstandard

BUFFER_BYTES = 2**20
ZSTD_STEP_BYTES = 2**11  # one byte of zstd decompresses to at most 2^15
ZSTD_WINDOW_BYTES = 2**31  # the largest that `zstd --long` writes
XZ_MEMORY_BYTES = 2**30  # `xz -9` takes 65 MiB; only huge dictionaries take more
STEP_BYTES = 2**16  # of xz and bzip2, read and made at once
FREE_BYTES = 2**28  # decompressed text that is never too much
GROWTH = 2000  # more than text is ever compressed; gzip cannot do more than 1032

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\x00"
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or a skippable one


@contextmanager
def open_bytes(path: AnyPath | None, name: str, own: bytes = b"") -> Iterator[io.BufferedReader]:
    """Open a file, or standard input for None, and decompress it while reading.

    Args:
        own: what data of the format begins with that is wanted, if that is no plain text.

    Raises:
        UnreadableFileError: it is of a format that holds no plain text, or a pointer to the data;
            or, when the read reaches the damage, the compressed data is damaged.
    """
    with _opened(path) as raw:
        packed: io.BufferedReader = io.BufferedReader(raw, BUFFER_BYTES)
        try:
            budget = Budget.of(path.stat().st_size if path else None, name)
            plain = open_packed(packed, name, budget, own)
            try:
                yield plain
            except UnreadableFileError as error:
                if plain is not packed:  # the file's size says little about its content's
                    error.size = error.seen + _rest(plain)
                raise
        except DAMAGED as error:
            left = path.stat().st_size - packed.tell() if path else 0
            raise UnreadableFileError(
                name,
                f"the compressed data is damaged or cut short ({error}), and nobody knows how much "
                "came after that; download the file again",
                max(left, 1),
            ) from None
        except WideError as error:
            raise UnreadableFileError(name, f"cannot be decompressed here ({error})") from None


def open_packed(
    packed: io.BufferedReader, name: str, budget: Budget, own: bytes = b""
) -> io.BufferedReader:
    """Decompress gzip, zstd, xz and bzip2 while reading; other bytes are read as they are.

    Raises:
        UnreadableFileError: it is of a format that holds no plain text, or a pointer to the data.
    """
    plain = packed
    if (raw := _decompressor(packed)) is not None:
        plain = io.BufferedReader(_Limited(raw, budget), BUFFER_BYTES)
    refuse_other_formats(plain.peek(HEAD_BYTES)[:HEAD_BYTES], name, own)
    return plain


def _decompressor(packed: io.BufferedReader) -> Any:
    head = packed.peek(10)[:10]
    if head.startswith(GZIP):
        return gzip.GzipFile(fileobj=packed)
    if ZSTD.match(head):
        return ZstdReader(packed)
    if head.startswith(XZ):
        return SteppedReader(packed, _xz)
    if BZIP2.match(head):
        return SteppedReader(packed, bz2.BZ2Decompressor)
    return None


def _opened(path: AnyPath | None) -> io.RawIOBase:
    if isinstance(path, RemotePath):
        return path.open_raw()
    return FileIO(path or 0, closefd=path is not None)


@dataclass
class Budget:
    """The bytes that a file may still grow to when it is decompressed; all members share it."""

    left: float
    name: str

    @classmethod
    def of(cls, size: int | None, name: str) -> Budget:
        """Return the budget of a file of `size` bytes; None is of no known size."""
        return cls(math.inf if size is None else max(FREE_BYTES, GROWTH * size), name)

    def spend(self, count: int) -> None:
        """Take bytes off.

        Raises:
            UnreadableFileError: there were not so many.
        """
        self.left -= count
        if self.left < 0:
            raise UnreadableFileError(
                self.name,
                f"grows to more than {GROWTH:,} times its size: a decompression bomb, or not text",
            )


class _Limited(io.RawIOBase):
    """Reads on as long as the budget lasts."""

    def __init__(self, raw: Any, budget: Budget) -> None:
        self._raw, self._budget = raw, budget

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        # what there is at once: an error that comes after it loses no more than it must
        count: int = getattr(self._raw, "readinto1", self._raw.readinto)(out)
        self._budget.spend(count)
        return count


def _rest(stream: io.BufferedReader) -> int:
    return sum(map(len, iter(lambda: stream.read(BUFFER_BYTES), b"")))


class DamagedError(Exception):
    """The data is not what its format says."""


class WideError(Exception):
    """The data is sound, but takes more memory or a dictionary; the message says what to do."""


# what decompressors raise on data that is damaged
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, DamagedError)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)


class SteppedReader(io.RawIOBase):
    """Decompresses streams of xz or bzip2 that follow each other, a little at a time."""

    def __init__(self, packed: io.BufferedReader, new: Callable[[], Any]) -> None:
        self._packed, self._new, self._decoder = packed, new, new()
        self._any = False  # of the present stream has been read

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data.lstrip(b"\0")  # padding
                self._decoder, self._any = self._new(), False
            if not data and self._decoder.needs_input:
                data = self._packed.read(STEP_BYTES)
                if not data:
                    if self._any:
                        raise EOFError("it ends within a stream")
                    return 0
                if not self._any:
                    data = data.lstrip(b"\0")
            self._any |= bool(data)
            try:
                made = self._decoder.decompress(data, len(out)) if self._any else b""
            except (lzma.LZMAError, OSError, ValueError) as error:
                if isinstance(error, lzma.LZMAError) and "limit" in str(error):
                    raise WideError(f"{error}; run unxz on it") from None
                raise DamagedError(error) from None
            if made:
                out[: len(made)] = made
                return len(made)


class ZstdReader(io.RawIOBase):
    """Decompresses a sequence of zstd frames.

    Unlike the library's reader, it detects a file that ends within a frame. It reads little at a
    time, so that even a decompression bomb expands in small steps.
    """

    def __init__(self, packed: io.BufferedReader) -> None:
        self._packed = packed
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while not self._ready:
            data = self._packed.read(ZSTD_STEP_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends within a zstd frame")
                return 0
            self._ready = memoryview(b"".join(self._decompress(data)))
        count = min(len(out), len(self._ready))
        out[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        import zstandard

        while data:
            frame = (
                self._frame
                or zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
            )
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                if re.search("memory|dictionary|Dictionary", str(error)):
                    raise WideError(f"{error}; run zstd -d --long=31 on it") from None
                raise DamagedError(error) from None
            data = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
