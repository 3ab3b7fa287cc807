"""Readers of JSON Lines, plain text, Parquet and the Hugging Face Hub: bytes → documents.

Everything streams. Memory is bounded by the longest line (at most LINE_BYTES), whatever the size of
a file, compressed or not. An unusable line is yielded as a `BadLine` at its place in the order. The
libraries for zstd, Parquet and the Hub are imported only when such a source is read.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from jielong.data.sources.text_blocks import Block, blocks
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError

if TYPE_CHECKING:
    import zstandard

LINE_BYTES = 64 * 2**20
BUFFER_BYTES = 2**20
PARQUET_ROWS = 1024
ZSTD_STEP_BYTES = 2**11  # one byte of zstd decompresses to at most 2^15


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it begins: its source, and the line or row there, counted from 1.

    Attributes:
        unit: what made it a text of its own: row, file, line, paragraph, a separator, or piece, if
            it is part of a longer text.
    """

    text: str
    source: str
    line: int
    unit: str = "row"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line or row without usable text, and the reason."""

    source: str
    line: int
    reason: str


Item = Document | BadLine


@contextmanager
def open_bytes(path: Path | None, name: str) -> Iterator[io.BufferedReader]:
    """Open a file, or standard input for None, and decompress it while reading.

    Raises:
        DataError: the compressed data is damaged; raised when the read reaches the damage.
    """
    openers: dict[str, Callable[[FileIO], Any]] = {
        ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
        ".zst": ZstdReader,
    }
    opener = openers.get(path.suffix.lower() if path else "", lambda raw: raw)
    with FileIO(path or 0, closefd=path is not None) as raw:
        try:
            yield io.BufferedReader(opener(raw), BUFFER_BYTES)
        except (gzip.BadGzipFile, EOFError, zlib.error, DamagedZstdError) as error:
            raise DataError(
                f"{name}: the compressed data is damaged or cut short ({error}); "
                "download the file again"
            ) from None


class DamagedZstdError(Exception):
    """The data is not valid zstd."""


class ZstdReader(io.RawIOBase):
    """Decompresses a sequence of zstd frames.

    Unlike the library's reader, it detects a file that ends within a frame. It reads little at a
    time, so that even a decompression bomb expands in small steps.
    """

    def __init__(self, raw: FileIO) -> None:
        self._raw = io.BufferedReader(raw, BUFFER_BYTES)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while not self._ready:
            data = self._raw.read(ZSTD_STEP_BYTES)
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
            frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise DamagedZstdError(error) from None
            data = frame.unused_data if frame.eof else b""
            self._frame = None if frame.eof else frame


def skip_to_text(stream: io.BufferedReader, name: str) -> bytes:
    """Skip a byte order mark; return the first non-blank byte without consuming it."""
    head = stream.peek(16)[:4]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{name}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    if head[:3] == b"\xef\xbb\xbf":
        stream.read(3)
    return stream.peek(1).lstrip()[:1]


def read_jsonl(
    stream: io.BufferedReader, name: str, text_field: str, line_bytes: int = LINE_BYTES
) -> Iterator[Item]:
    """Yield `text_field` of each line. Lines over `line_bytes` are bad, and never read whole."""
    for number, line in _lines(stream, line_bytes):
        if line is None:
            yield BadLine(name, number, f"line is longer than {line_bytes:,} bytes")
        elif line.strip():  # blank lines between records are harmless
            yield _record(line, name, number, text_field)


def _record(line: bytes, name: str, number: int, text_field: str) -> Item:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        reason = "invalid UTF-8" if not _is_utf8(line) else f"invalid JSON: {error.msg}"
        return BadLine(name, number, reason)
    if not isinstance(row, dict):
        return BadLine(name, number, f"holds a {_type_name(row)}, not an object")
    if text_field not in row:
        seen = ", ".join(name[:40] for name in itertools.islice(row, 20)) or "none"
        return BadLine(name, number, f"no field {text_field!r}; fields seen: {seen}")
    return _checked(row[text_field], name, number, text_field)


def _checked(text: Any, name: str, number: int, text_field: str) -> Item:
    if not isinstance(text, str):
        return BadLine(name, number, f"field {text_field!r} holds a {_type_name(text)}, no text")
    if not text or text.isspace():
        return BadLine(name, number, "empty text")
    try:
        text.encode()
    except UnicodeEncodeError:
        return BadLine(name, number, "invalid Unicode: a lone surrogate")
    return Document(text, name, number)


def read_text(
    stream: io.BufferedReader, name: str, limit: int, splitting: Splitting
) -> Iterator[Item]:
    """Yield the texts of a file of plain text; one longer than `limit` bytes in pieces."""
    for block in blocks(stream, name, limit, splitting):
        yield from _text_document(block, name)


def _text_document(block: Block, name: str) -> Iterator[Item]:
    try:
        text = block.data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = block.line + block.data.count(b"\n", 0, error.start)
        yield BadLine(
            name, number, "invalid UTF-8; if it is GBK, convert it: iconv -f GB18030 -t UTF-8"
        )
        return
    if text and not text.isspace():
        yield Document(text, name, block.line, unit=block.unit)
    elif block.whole:
        yield BadLine(name, block.line, "empty text")


def read_parquet(path: Path, name: str, text_field: str) -> Iterator[Item]:
    """Yield the column `text_field`, row by row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            schema = file.schema_arrow
            if text_field not in schema.names:
                raise DataError(
                    f"{name}: no column {text_field!r}; columns seen: "
                    f"{', '.join(schema.names)}; choose one with --text-field"
                )
            kind = schema.field(text_field).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not any(t(kind) for t in (pa.types.is_string, pa.types.is_large_string)):
                raise DataError(f"{name}: column {text_field!r} holds {kind}, not strings")
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[text_field]):
                for cell in batch.column(0):
                    number += 1
                    yield _parquet_cell(cell, name, number, text_field)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: not a readable Parquet file ({error})") from None


def _parquet_cell(cell: Any, name: str, number: int, text_field: str) -> Item:
    try:
        return _checked(cell.as_py(), name, number, text_field)
    except UnicodeDecodeError:
        return BadLine(name, number, "invalid UTF-8")


def read_hub(address: str, text_field: str) -> Iterator[Item]:
    """Yield the column `text_field` of `hf://NAME[:CONFIG][@SPLIT]`, streamed from the Hub."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{address}: needs the datasets library: pip install 'jielong[hub]'"
        ) from None
    name, _, split = address.removeprefix("hf://").partition("@")
    name, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if text_field not in row:
                raise DataError(
                    f"{address}: no column {text_field!r}; columns seen: {', '.join(row)}; "
                    "choose one with --text-field"
                )
            yield _checked(row[text_field], address, number, text_field)
    except DataError:
        raise
    except Exception as error:  # the library's failures share no base class
        raise DataError(f"{address}: cannot be loaded: {error}") from None


def _lines(stream: io.BufferedReader, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield numbered lines; one longer than `limit` bytes as None, and never read whole."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line
        else:
            while line and not line.endswith(b"\n"):
                line = stream.readline(BUFFER_BYTES)
            yield number, None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _type_name(value: Any) -> str:
    names = {"NoneType": "null", "int": "number", "float": "number", "bool": "boolean"}
    return names.get(type(value).__name__, {"dict": "object"}.get(type(value).__name__, "list"))
