"""Compressed files and standard input → plain bytes. What a file holds decides, not its name.

A file of another format, or a pointer in place of the data, is refused with what to do about it.
The library for zstd is imported only when it is needed.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jielong.data.sources.items import UnreadableFileError

if TYPE_CHECKING:
    import zstandard

BUFFER_BYTES = 2**20
HEAD_BYTES = 1024  # enough for every signature, and for a pointer of Git LFS
ZSTD_STEP_BYTES = 2**11  # one byte of zstd decompresses to at most 2^15
ZSTD_WINDOW_BYTES = 2**31  # the largest that `zstd --long` writes

GZIP = b"\x1f\x8b"
ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or a skippable one
LFS_POINTER = re.compile(rb"version https://git-lfs\S*\n(?:.*\n)*?size (\d+)")
OTHER_FORMATS = {
    b"PAR1": "is a Parquet file: give it a name that ends in .parquet",
    b"ARROW1": "is an Arrow file: give it a name that ends in .arrow",
    b"PK\x03\x04": "is a ZIP archive (or a document of Word, Excel or EPUB): extract its text",
    b"%PDF-": "is a PDF: extract its text, for example with pdftotext",
    b"{\\rtf": "is rich text (RTF): save it as plain text",
    b"BZh": "is compressed with bzip2: run bunzip2 on it",
    b"\xfd7zXZ\x00": "is compressed with xz: run unxz on it",
    b"7z\xbc\xaf\x27\x1c": "is a 7-Zip archive: extract it",
    b"Rar!": "is a RAR archive: extract it",
    b"SQLite format 3\x00": "is an SQLite database: export its text as JSON Lines",
}


@contextmanager
def open_bytes(path: Path | None, name: str) -> Iterator[io.BufferedReader]:
    """Open a file, or standard input for None, and decompress gzip and zstd while reading.

    Raises:
        UnreadableFileError: it is of a format that holds no plain text, or a pointer to the data;
            or, when the read reaches the damage, the compressed data is damaged.
    """
    with FileIO(path or 0, closefd=path is not None) as raw:
        packed: io.BufferedReader = io.BufferedReader(raw, BUFFER_BYTES)
        try:
            plain = _decompressed(packed)
            refuse_other_formats(plain.peek(HEAD_BYTES)[:HEAD_BYTES], name)
            try:
                yield plain
            except UnreadableFileError as error:
                if plain is not packed:  # the file's size says little about its content's
                    error.size = error.seen + _rest(plain)
                raise
        except (gzip.BadGzipFile, EOFError, zlib.error, DamagedZstdError) as error:
            left = path.stat().st_size - packed.tell() if path else 0
            raise UnreadableFileError(
                name,
                f"the compressed data is damaged or cut short ({error}), and nobody knows how much "
                "came after that; download the file again",
                max(left, 1),
            ) from None
        except WideZstdError as error:
            raise UnreadableFileError(
                name, f"cannot be decompressed here ({error}); run zstd -d --long=31 on it"
            ) from None


def _decompressed(packed: io.BufferedReader) -> io.BufferedReader:
    head = packed.peek(4)[:4]
    if head.startswith(GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=packed), BUFFER_BYTES)
    if ZSTD.match(head):
        return io.BufferedReader(ZstdReader(packed), BUFFER_BYTES)
    return packed


def _rest(stream: io.BufferedReader) -> int:
    return sum(map(len, iter(lambda: stream.read(BUFFER_BYTES), b"")))


def refuse_other_formats(head: bytes, name: str, own: bytes = b"") -> None:
    """Refuse data that begins like a pointer, or like a format other than `own`.

    Raises:
        UnreadableFileError: it says what the file is, and what to do.
    """
    if pointer := LFS_POINTER.match(head):
        raise UnreadableFileError(
            name, "is a pointer of Git LFS, not the data: run git lfs pull", int(pointer[1])
        )
    if re.match(rb"(\.\./)*(\.git)?/annex/objects/", head):
        raise UnreadableFileError(
            name, "is a pointer of git-annex, not the data: run git annex get"
        )
    for signature, meaning in OTHER_FORMATS.items():
        if signature != own and head.startswith(signature):
            raise UnreadableFileError(name, meaning)


class DamagedZstdError(Exception):
    """The data is not valid zstd."""


class WideZstdError(Exception):
    """The data is sound, but takes more memory or a dictionary."""


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
                    raise WideZstdError(error) from None
                raise DamagedZstdError(error) from None
            data = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame
