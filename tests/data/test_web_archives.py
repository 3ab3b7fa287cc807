"""Web archives: each page is a text, in its own encoding; what is damaged is named and counted."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from jielong.data.sources import web_archives
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    Remark,
    expand_sources,
    read_documents,
)
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError

pytest.importorskip("resiliparse")

CHINESE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
PARAGRAPHS = "".join(f"<p>This is paragraph {n} of what the page is about.</p>" for n in range(5))
WITH_MENU = f"<nav><a href=/>Home</a> <a href=/x>Shop</a></nav><article>{PARAGRAPHS}</article>"


def record(kind: str, block: bytes, content: str = "application/http") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://host/{kind}\r\n"
        f"WARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
        f"Content-Type: {content}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def page(
    body: str | bytes, content: str = "text/html", status: str = "200 OK", **fields: str
) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content}\r\n{more}\r\n"
    return record("response", head.encode() + data)


def items_of(path: Path, data: bytes, **reading: object) -> list[Item]:
    path.write_bytes(data)
    return list(read_documents(expand_sources([str(path)]), "text", **reading))  # type: ignore[arg-type]


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def lost(items: list[Item]) -> list[BadLine]:
    return [item for item in items if isinstance(item, BadLine)]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.wet.gz"])
def test_each_page_is_a_text_and_what_is_no_page_is_said(name: str, tmp_path: Path) -> None:
    records = [
        record("warcinfo", b"software: x\r\n", "application/warc-fields"),
        record("request", b"GET / HTTP/1.1\r\n\r\n"),
        page("<title>T</title><p>One"),
        page("gone", status="404 Not Found"),
        page(b"\x89PNG", "image/png"),
        page("Two\nlines\n", "text/plain; charset=utf-8"),
        record("conversion", CHINESE.encode(), "text/plain"),
        record("resource", b"<p>Four", "text/html"),
    ]
    packed = map(gzip.compress, records) if name.endswith("gz") else records
    items = items_of(tmp_path / name, b"".join(packed))
    assert texts(items) == ["One", "Two\nlines", CHINESE, "Four"]
    documents = [item for item in items if isinstance(item, Document)]
    assert [(item.line, item.unit) for item in documents] == [(n, "page") for n in (3, 6, 7, 8)]
    remarks = [item.text for item in items if isinstance(item, Remark)]
    assert remarks == [web_archives.NO_PAGES, web_archives.MAIN]


@pytest.mark.parametrize("data", [b"", b"\r\n", record("request", b"GET / HTTP/1.1\r\n\r\n")])
def test_an_archive_without_pages_is_named(data: bytes, tmp_path: Path) -> None:
    (bad,) = lost(items_of(tmp_path / "a.warc", data))
    assert bad.reason == "no page of text in this web archive" and bad.size == 0


def test_menus_are_read_only_if_that_is_asked_for(tmp_path: Path) -> None:
    data = page(WITH_MENU)
    main, everything = (
        texts(items_of(tmp_path / "a.warc", data, splitting=Splitting(html=html)))[0]
        for html in ("auto", "all")
    )
    assert "paragraph 4" in main and "Shop" not in main
    assert "paragraph 4" in everything and "Shop" in everything
    path = tmp_path / "a.html"
    assert "Shop" in texts(items_of(path, WITH_MENU.encode()))[0]
    assert (
        "Shop" not in texts(items_of(path, WITH_MENU.encode(), splitting=Splitting(html="main")))[0]
    )


def test_a_page_is_read_in_the_encoding_that_it_or_its_server_says(tmp_path: Path) -> None:
    gbk = f"<p>{CHINESE}".encode("gb18030")
    records = [
        page(gbk, "text/html; charset=gb2312"),
        page(b"<meta charset=gbk>" + gbk),
        page(f"<p>{CHINESE}", "text/html; charset=iso-8859-1"),  # says so, and is UTF-8
        page(gbk),
    ]
    items = items_of(tmp_path / "a.warc", b"".join(records))
    assert texts(items) == [CHINESE] * 3
    (bad,) = lost(items)
    assert bad.line == 4 and "read it with --encoding" in bad.reason
    for encoding in ("gb18030", "auto"):
        items = items_of(tmp_path / "a.warc", b"".join(records), encoding=encoding)
        assert texts(items) == [CHINESE] * 4


def test_pages_are_unpacked_and_damage_within_one_costs_that_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brotli = pytest.importorskip("brotli")
    body = b"<p>" + b"word " * 200
    bare = zlib.compressobj(wbits=-15)
    deflated = bare.compress(body) + bare.flush()
    zipped = gzip.compress(body)
    sound = [
        page(zipped, Content_Encoding="gzip"),
        page(body, Content_Encoding="gzip"),  # unpacked by the crawler
        page(zlib.compress(body), Content_Encoding="deflate"),
        page(deflated, Content_Encoding="deflate"),
        page(brotli.compress(body), Content_Encoding="br"),
        page(b"3\r\n<p>\r\n5;x=y\r\nword \r\n0\r\n\r\n", Transfer_Encoding="chunked"),
    ]
    damaged = [
        page(zipped[:-20], Content_Encoding="gzip"),
        page(zipped[:20] + b"x" * 20 + zipped[40:], Content_Encoding="gzip"),
        page(brotli.compress(body)[:-5], Content_Encoding="br"),
        page(b"\xff" * 40, Content_Encoding="br"),
        page(b"5\r\n<p>\r\n", Transfer_Encoding="chunked"),
        page(zipped, Content_Encoding="lzma"),
    ]
    items = items_of(tmp_path / "a.warc", b"".join([*damaged, *sound]))
    assert [text.split()[0] for text in texts(items)] == ["word"] * len(sound)
    assert [bad.line for bad in lost(items)] == [1, 2, 3, 4, 5, 6]
    monkeypatch.setattr(web_archives, "HTML_BYTES", 900)
    items = items_of(tmp_path / "a.warc", sound[0] + sound[4] + page(body))
    assert texts(items) == []
    reasons = [bad.reason for bad in lost(items)]
    assert all("decompression bomb" in reason for reason in reasons[:2])
    assert "has more than 900 bytes" in reasons[2]


@pytest.mark.parametrize(
    ("damage", "kept", "reason"),
    [
        (lambda data: data[:-40], 1, "is damaged or cut short at record 2"),
        (
            lambda data: data + b"WARC/1.0\r\nWARC-Ty",
            2,
            "is damaged or cut short at record 2 or after",
        ),
        (lambda data: data + b"garbage\r\n\r\n", 2, "at record 2 or after"),
        (
            lambda data: data.replace(b"One", b"One longer"),
            1,
            "at record 1 or after",
        ),
        (lambda data: b"no such thing\r\n" * 9, 0, "is no web archive, or is damaged"),
        (lambda data: gzip.compress(data)[:-30], 1, "damaged or cut short|is cut short"),
    ],
)
def test_damage_to_an_archive_costs_what_follows_and_is_counted(
    damage, kept: int, reason: str, tmp_path: Path
) -> None:
    data = damage(page("<p>One") + page("<p>Two " + "word " * 2000))
    (tmp_path / "b.txt").write_text("Other")
    path = tmp_path / "a.warc"
    with pytest.raises(DataError, match=reason):
        items_of(path, data)
    both = expand_sources([str(path), str(tmp_path / "b.txt")])
    items = list(read_documents(both, "text"))
    assert len(texts(items)) == kept + 1 and texts(items)[-1] == "Other"
    (bad,) = lost(items)
    assert bad.line == 0 and 0 < bad.size <= len(data)
