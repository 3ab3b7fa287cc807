"""A stream of bytes of a known kind → documents, in whatever file or archive it lies."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from jielong.config.encodings import AUTO
from jielong.data.sources.containers import BUFFER_BYTES
from jielong.data.sources.csv_rows import read_csv
from jielong.data.sources.document_files import (
    Extractor,
    declared_encoding,
    read_document_file,
    read_html,
)
from jielong.data.sources.encodings import Utf8Stream
from jielong.data.sources.file_kinds import PACKED_DOCUMENTS
from jielong.data.sources.items import Item, Remark
from jielong.data.sources.json_rows import looks_like_json, read_json
from jielong.data.sources.readers import read_text
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.data.sources.web_archives import read_web_archive


@dataclass(frozen=True)
class Reading:
    """How text is read.

    Attributes:
        texts: what the text of a row is.
        text_limit: bytes from which on plain text is cut into pieces.
        encoding: of what is not UTF-8.
        splitting: where a text ends.
        extractor: has HTML, EPUB, DOCX and PDF read.
    """

    texts: RowText
    text_limit: int
    encoding: str | None
    splitting: Splitting
    extractor: Extractor = field(default_factory=Extractor)


def read_stream(plain: io.BufferedReader, name: str, kind: str, reading: Reading) -> Iterator[Item]:
    """Yield the documents of a stream.

    Args:
        kind: jsonl, text, csv, tsv, a value of `file_kinds.DOCUMENTS`, or stdin, which is told
            by what it holds.

    Raises:
        UnreadableFileError: it holds something else, or in another encoding.
    """
    how = reading.text_limit, reading.splitting, reading.extractor
    if kind == "warc":
        main = reading.splitting.html != "all"
        yield from read_web_archive(plain, name, reading.encoding, main, reading.extractor)
        return
    if kind in PACKED_DOCUMENTS:
        yield from read_document_file(plain, name, kind, *how)
        return
    encoding = reading.encoding
    if kind == "html" and encoding in (None, AUTO):
        encoding = declared_encoding(plain.peek(1)) or encoding
    utf8 = Utf8Stream(plain, name, encoding)
    stream: io.BufferedReader = io.BufferedReader(utf8, BUFFER_BYTES)
    head = stream.peek(1)
    is_rows, is_html = kind in ("csv", "tsv"), kind == "html"
    is_json = kind == "jsonl" or (kind == "stdin" and head.lstrip()[:1] == b"{")
    if not (is_json or is_rows or is_html) and looks_like_json(head):
        is_json = True
        yield Remark(name, "read as JSON, which it holds")
    if is_rows:
        yield from read_csv(stream, name, reading.texts, kind == "tsv")
    elif is_html:
        yield from read_html(stream, name, *how)
    elif is_json:
        yield from read_json(stream, name, reading.texts)
    else:
        yield from read_text(stream, name, reading.text_limit, reading.splitting)
    if utf8.used:
        yield Remark(name, f"read as {utf8.used}")
