"""Web archives (WARC and WET) → documents: the pages that a crawl has stored, one text each.

Records are found, and what a page is packed in (chunks, gzip, Brotli) is unpacked, here: libraries
for it pass over what is cut short.
"""

from __future__ import annotations

import http.client
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from jielong.config.encodings import AUTO, codec_name
from jielong.data.sources.containers import BUFFER_BYTES
from jielong.data.sources.document_files import (
    HTML_BYTES,
    Extractor,
    declared_encoding,
    is_installed,
)
from jielong.data.sources.encodings import guess, is_utf8
from jielong.data.sources.items import (
    NOT_UTF8,
    PART,
    TOO_LONG,
    BadLine,
    Document,
    Item,
    Remark,
    UnreadableFileError,
)
from jielong.errors import ConfigError

VERSION = re.compile(rb"WARC/[01]\.\d+")
LINE_BYTES = 2**16
END = b"\r\n\r\n"  # of a record
PAGE = "page"  # the unit of a text
HTML = ("text/html", "application/xhtml+xml")
SHOWN = 200  # characters of an address in a message
NO_PAGES = "records that are no pages of text (requests, errors, redirects, pictures) are not read"
MAIN = "of pages the main text is read; --html-text all reads menus and the like too"


class _DamagedError(Exception):
    """A page that cannot be unpacked; the message says why."""


class _DamagedArchiveError(Exception):
    """The archive has no sound record where one should be."""


@dataclass
class _Record:
    """A record of an archive.

    Attributes:
        size: bytes of its block, which follows in `stream`.
    """

    headers: Message
    size: int
    stream: io.BufferedReader
    taken: int = 0

    def read(self, size: int) -> bytes:
        """Return bytes of the block.

        Raises:
            _DamagedArchiveError: the archive ends within it.
        """
        data = self.stream.read(min(size, self.size - self.taken))
        self.taken += len(data)
        if len(data) < size and self.taken < self.size:
            raise _DamagedArchiveError
        return data


def _records(stream: io.BufferedReader) -> Iterator[_Record]:
    """Yield the records; what is not read of one is passed over.

    Raises:
        _DamagedArchiveError: there is no sound record where one should be.
    """
    while line := stream.readline(LINE_BYTES):
        if line in (b"\r\n", b"\n"):
            continue
        if not VERSION.fullmatch(line.rstrip()):
            raise _DamagedArchiveError
        try:
            headers = http.client.parse_headers(stream)
            size = int(headers.get("Content-Length", ""))
        except (http.client.HTTPException, ValueError):
            raise _DamagedArchiveError from None
        if size < 0 or "WARC-Type" not in headers:
            raise _DamagedArchiveError
        record = _Record(headers, size, stream)
        yield record
        while record.read(BUFFER_BYTES):
            pass
        if stream.read(len(END)) != END:
            raise _DamagedArchiveError


def read_web_archive(
    stream: io.BufferedReader, name: str, encoding: str | None, main: bool, extractor: Extractor
) -> Iterator[Item]:
    """Yield the text of each page of HTML or plain text.

    Args:
        encoding: of pages that are not UTF-8 and do not say what they are in.
        main: of HTML, the main text only.

    Raises:
        UnreadableFileError: it is no web archive, or is damaged; what comes after that is lost.
    """
    if not is_installed("warc"):
        fix = "pip install 'jielong[documents]'"
        raise UnreadableFileError(name, f"to read web archives: {fix}")
    number = 0
    any_other = any_page = any_html = False
    record = None
    try:
        for number, record in enumerate(_records(stream), 1):
            item = None
            for item in _items(record, name, number, encoding, main, extractor):
                any_page = True
                any_html |= record.headers["WARC-Type"].lower() != "conversion"
                yield item
            any_other |= item is None
    except _DamagedArchiveError:
        lost = 0 if record is None else record.taken
        while data := stream.read(BUFFER_BYTES):
            lost += len(data)
        reason = f"is damaged or cut short at record {number:,} or after it; download it again"
        if record is None:
            reason = "is no web archive, or is damaged"
        raise UnreadableFileError(name, reason, max(1, lost), lost) from None
    if any_other:
        yield Remark(name, NO_PAGES)
    if not any_page:
        yield BadLine(name, 0, "no page of text in this web archive")
    elif main and any_html:
        yield Remark(name, MAIN)


def _items(
    record: _Record, name: str, number: int, encoding: str | None, main: bool, extractor: Extractor
) -> Iterator[Item]:
    """Yield the text of a record, or why it has none; nothing if it is no page of text."""
    kind = record.headers["WARC-Type"].lower()
    if kind not in ("response", "resource", "conversion"):
        return
    size, address = record.size, record.headers.get("WARC-Target-URI", "")[:SHOWN]

    def bad(reason: str, kind: str = PART) -> BadLine:
        return BadLine(name, number, f"{address}: {reason}", kind, size)

    if size > HTML_BYTES:
        yield bad(f"has more than {HTML_BYTES:,} bytes", TOO_LONG)
        return
    block = record.read(size)
    headers = Message()
    headers["Content-Type"] = record.headers.get("Content-Type", "")
    if kind == "response":
        head, _, block = block.partition(b"\r\n\r\n")
        status, _, fields = head.partition(b"\r\n")
        if not status.startswith(b"HTTP/") or status.split()[1:2] != [b"200"]:
            return
        try:
            headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        except http.client.HTTPException:
            yield bad("has damaged headers")
            return
    content = headers.get_content_type()
    if content not in (*HTML, "text/plain"):
        return
    try:
        data = _unpacked(block, headers)
        text = _decoded(data, headers.get_content_charset(), content in HTML, encoding)
    except _DamagedError as error:
        yield bad(str(error))
        return
    except UnicodeError as error:
        yield bad(f"is not UTF-8, nor what it says ({error}); read it with --encoding", NOT_UTF8)
        return
    if content in HTML:
        made = _text_of_html(text, name, main, extractor)
        if isinstance(made, UnreadableFileError):
            yield bad(made.reason)
            return
        text = made
    text = text.strip("\r\n")
    if not text or text.isspace():
        yield BadLine(name, number, f"{address}: empty text")
        return
    yield Document(text, name, number, unit=PAGE)


def _unpacked(data: bytes, headers: Message) -> bytes:
    """Undo the encodings in which a page was sent.

    Raises:
        _DamagedError: it is damaged or cut short, of an unknown encoding, or too large.
    """
    if "chunked" in headers.get("Transfer-Encoding", "").lower() and _has_chunks(data):
        data = _dechunked(data)
    for encoding in reversed(headers.get("Content-Encoding", "").lower().split(",")):
        if (encoding := encoding.strip()) in ("", "identity", "utf-8", "none"):
            continue
        if encoding in ("gzip", "x-gzip", "deflate"):
            if encoding != "deflate" and not data.startswith(b"\x1f\x8b"):
                continue  # crawls often store what they have unpacked
            data = _inflated(data)
        elif encoding == "br":
            data = _from_brotli(data)
        else:
            raise _DamagedError(f"is in an unknown encoding, {encoding[:20]}")
    return data


def _has_chunks(data: bytes) -> bool:
    size = data.partition(b"\r\n")[0].partition(b";")[0].strip()
    return bool(size) and all(byte in b"0123456789abcdefABCDEF" for byte in size)


def _dechunked(data: bytes) -> bytes:
    parts, at = list[bytes](), 0
    while True:
        end = data.find(b"\r\n", at)
        try:
            size = int(data[at : end if end >= 0 else None].partition(b";")[0], 16)
        except ValueError:
            raise _DamagedError("has damaged chunks") from None
        if size == 0:
            return b"".join(parts)
        if end < 0 or not 0 < size <= len(data) - end - 2:
            raise _DamagedError("is cut short within its chunks")
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _inflated(data: bytes) -> bytes:
    is_bare = not data.startswith(b"\x1f\x8b") and data[:1] not in (b"\x78", b"\x58", b"\x08")
    decoder = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS | 32)
    try:
        text = decoder.decompress(data, HTML_BYTES)
    except zlib.error as error:
        raise _DamagedError(f"its compressed data is damaged ({error})") from None
    if decoder.unconsumed_tail:
        raise _DamagedError(f"grows to more than {HTML_BYTES:,} bytes: a decompression bomb")
    if not decoder.eof:
        raise _DamagedError("its compressed data is cut short")
    return text


def _from_brotli(data: bytes) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    try:
        text: bytes = decoder.process(data, output_buffer_limit=HTML_BYTES)
    except brotli.error as error:
        raise _DamagedError(f"its compressed data is damaged ({error})") from None
    if len(text) >= HTML_BYTES:
        raise _DamagedError(f"grows to more than {HTML_BYTES:,} bytes: a decompression bomb")
    if not decoder.is_finished():
        raise _DamagedError("its compressed data is cut short")
    return text


def _decoded(data: bytes, charset: str | None, is_html: bool, encoding: str | None) -> str:
    """Decode a page: as UTF-8 if it is, else as its headers say, as it says itself, as asked for.

    Raises:
        UnicodeError: it is none of these.
    """
    if is_utf8(data):
        return data.decode("utf-8-sig")
    said = [charset, declared_encoding(data) if is_html else None]
    said.append(guess(data) if encoding == AUTO else encoding)
    for name in filter(None, said):
        try:
            return data.decode(codec_name(name))
        except (ConfigError, UnicodeError):
            continue
    return data.decode("utf-8")  # which says where it is not


def _text_of_html(
    html: str, name: str, main: bool, extractor: Extractor
) -> str | UnreadableFileError:
    parts = []
    stream: io.BufferedReader = io.BufferedReader(io.BytesIO(html.encode("utf-8", "replace")))
    for answer in extractor.answers(stream, name, "html", main):
        if "error" in answer:
            return UnreadableFileError(name, answer["error"])
        parts.append(answer.get("text", ""))
    return "".join(parts)
