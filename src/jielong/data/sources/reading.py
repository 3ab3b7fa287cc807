"""A stream of bytes of a known kind → documents, in whatever file or archive it lies."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from jielong.data.sources.containers import BUFFER_BYTES
from jielong.data.sources.csv_rows import read_csv
from jielong.data.sources.encodings import Utf8Stream
from jielong.data.sources.items import Item, Remark
from jielong.data.sources.json_rows import looks_like_json, read_json
from jielong.data.sources.readers import read_text
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting


@dataclass(frozen=True)
class Reading:
    """How text is read.

    Attributes:
        texts: what the text of a row is.
        text_limit: bytes from which on plain text is cut into pieces.
        encoding: of what is not UTF-8.
        splitting: where a text ends.
    """

    texts: RowText
    text_limit: int
    encoding: str | None
    splitting: Splitting


def read_stream(plain: io.BufferedReader, name: str, kind: str, reading: Reading) -> Iterator[Item]:
    """Yield the documents of a stream.

    Args:
        kind: jsonl, text, csv, tsv, or stdin, which is told by what it holds.

    Raises:
        UnreadableFileError: it holds something else, or in another encoding.
    """
    utf8 = Utf8Stream(plain, name, reading.encoding)
    stream: io.BufferedReader = io.BufferedReader(utf8, BUFFER_BYTES)
    head = stream.peek(1)
    is_rows = kind in ("csv", "tsv")
    is_json = kind == "jsonl" or (kind == "stdin" and head.lstrip()[:1] == b"{")
    if not is_json and not is_rows and looks_like_json(head):
        is_json = True
        yield Remark(name, "read as JSON, which it holds")
    if is_rows:
        yield from read_csv(stream, name, reading.texts, kind == "tsv")
    elif is_json:
        yield from read_json(stream, name, reading.texts)
    else:
        yield from read_text(stream, name, reading.text_limit, reading.splitting)
    if utf8.used:
        yield Remark(name, f"read as {utf8.used}")
