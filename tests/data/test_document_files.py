"""HTML, EPUB, DOCX and PDF: their text is read; what cannot be is named, and costs only itself."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from document_samples import (
    LOCKED,
    PICTURE,
    docx_of,
    epub_of,
    paragraph,
    pdf_of,
    xhtml,
    zip_of,
)
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.sources import document_files, listing
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    Remark,
    expand_sources,
    find_sources,
    read_documents,
)
from jielong.data.sources.file_kinds import further_suffixes
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer

pytest.importorskip("resiliparse")
pytest.importorskip("mammoth")
pytest.importorskip("pypdfium2")

HTML = b"<title>T</title><h1>Head</h1><p>One &amp; two</p>"
FILES = {
    "a.html": (HTML, "Head\n\nOne & two"),
    "a.epub": (epub_of({"1.xhtml": xhtml("<p>One</p>"), "2.xhtml": xhtml("Two")}), "One\n\nTwo"),
    "a.docx": (docx_of(paragraph("One") + paragraph("Two")), "One\n\nTwo"),
    "a.pdf": (pdf_of(["One\ntwo", "Three"]), "One\ntwo\nThree"),
}


def items_of(path: Path | str, **reading: object) -> list[Item]:
    return list(read_documents(expand_sources([str(path)]), "text", **reading))  # type: ignore[arg-type]


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def lost(items: list[Item]) -> list[BadLine]:
    return [item for item in items if isinstance(item, BadLine)]


def file_of(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("name", FILES)
def test_the_text_of_each_kind_of_document_is_read(name: str, tmp_path: Path) -> None:
    data, text = FILES[name]
    (item,) = items_of(file_of(tmp_path, name, data))
    assert isinstance(item, Document)
    assert (item.text, item.unit, item.size) == (text, "file", len(text))


def test_documents_in_folders_and_archives_are_read_as_those_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, (data, _) in FILES.items():
        file_of(folder, name, data)
    file_of(folder, "b.html.gz", gzip.compress(HTML))
    wanted = sorted([text for _, text in FILES.values()] + ["Head\n\nOne & two"])
    assert sorted(texts(items_of(folder))) == wanted
    members = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    file_of(tmp_path, "a.zip", zip_of(members))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    for archive in ("a.zip", "a.tar.gz"):
        assert sorted(texts(items_of(tmp_path / archive))) == wanted


def test_documents_are_split_as_plain_text_is(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.docx", docx_of("".join(map(paragraph, ("One", "Two", "Three")))))
    split = items_of(path, splitting=Splitting("paragraph"))
    assert texts(split) == ["One", "Two", "Three"]
    assert [item.line for item in split if isinstance(item, Document)] == [1, 3, 5]
    assert texts(items_of(path, splitting=Splitting(separator="Two"))) == ["One", "Three"]


def test_a_long_document_is_cut_into_pieces_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(2000)]
    path = file_of(tmp_path, "a.html", "".join(f"<p>{word}</p>" for word in words))
    pieces = texts(items_of(path))
    assert len(pieces) > 1
    assert "\n".join(pieces).split() == words


def test_of_html_what_a_browser_shows_is_read(tmp_path: Path) -> None:
    html = (
        "<style>p{}</style><script>if (a<b) x()</script><p>Seen<p hidden>not<!-- nor this -->"
        "<template>nor</template><pre>  a\n  b</pre><ul><li>c<li>d</ul>"
        "<table><tr><td>1<td>2</table><p>漢<ruby>字<rp>(</rp><rt>ji</rt><rp>)</rp></ruby>&#x65e5;"
    )
    (text,) = texts(items_of(file_of(tmp_path, "a.html", html)))
    assert text.split() == ["Seen", "a", "b", "•", "c", "•", "d", "1", "2", "漢字日"]
    assert "  a\n  b" in text


def test_an_empty_element_of_xhtml_does_not_swallow_what_follows(tmp_path: Path) -> None:
    body = '<script src="x"/><p>One<br/><a id="x"/>two <img src="y"/></p><div class=\'">\'/>three'
    path = file_of(tmp_path, "a.xhtml", xhtml(body))
    assert texts(items_of(path))[0].split() == ["One", "two", "three"]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [("gb2312", "gb18030"), ("big5", "cp950"), ("shift_jis", "cp932"), ("windows-1251", "cp1251")],
)
def test_html_is_read_in_the_encoding_that_it_declares(
    declared: str, encoding: str, tmp_path: Path
) -> None:
    text = {"cp1251": "Однажды в студёную зимнюю пору"}.get(encoding, "明月光是地上山頭中天心")
    html = f'<meta http-equiv="Content-Type" content="text/html; charset={declared}"><p>{text}'
    document, remark = items_of(file_of(tmp_path, "a.html", html.encode(encoding)))
    assert isinstance(document, Document) and document.text == text
    assert isinstance(remark, Remark) and remark.text == f"read as {encoding}"


def test_html_of_utf_16_and_utf_8_that_declares_another_encoding_is_read(tmp_path: Path) -> None:
    html = '<meta charset="gbk"><p>明月光是地上霜'
    for encoding in ("utf-16", "utf-8"):
        (text,) = texts(items_of(file_of(tmp_path, "a.html", html.encode(encoding))))
        assert text == "明月光是地上霜"


def test_html_whose_encoding_lies_is_refused_and_a_damaged_line_costs_itself(
    tmp_path: Path,
) -> None:
    lying = (
        '<meta charset="iso-8859-1"><p>' + "床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 3
    )
    path = file_of(tmp_path, "a.html", lying.encode("gb18030"))
    with pytest.raises(DataError, match="read it with --encoding gb18030"):
        items_of(path)
    assert "床前明月光" in texts(items_of(path, encoding="gb18030"))[0]
    file_of(tmp_path, "a.html", b"<p>sound\n" * 20 + b"<p>dam\xffaged\n<p>sound")
    items = items_of(path)
    assert texts(items)[0].split() == ["sound"] * 21
    assert [(bad.line, bad.size) for bad in lost(items)] == [(21, 12)]


def test_the_source_of_html_is_read_if_that_is_asked_for(tmp_path: Path) -> None:
    file_of(tmp_path, "a.html", HTML)
    sources, _ = find_sources([str(tmp_path)], suffixes=further_suffixes(["html"]))
    assert texts(list(read_documents(sources, "text"))) == [HTML.decode()]


def test_an_epub_is_read_in_its_order_and_what_is_missing_in_it_is_named(tmp_path: Path) -> None:
    chapters = {"b c.xhtml": xhtml("Second"), "a.xhtml": xhtml("First"), "z.xhtml": b"\xff\xfe\xff"}
    spine = ["a.xhtml", "b%20c.xhtml", "a.xhtml", "gone.xhtml", "z.xhtml", "../../x"]
    items = items_of(file_of(tmp_path, "a.epub", epub_of(chapters, spine)))
    assert texts(items) == ["First\n\nSecond"]
    reasons = [(bad.line, bad.reason) for bad in lost(items)]
    assert [number for number, _ in reasons] == [3, 4, 5]
    assert reasons[0][1] == "chapter OEBPS/gone.xhtml is missing"
    assert "OEBPS/z.xhtml is not in the encoding" in reasons[1][1]


def test_of_a_book_with_drm_what_is_encrypted_is_named_and_locked_fonts_are_no_matter(
    tmp_path: Path,
) -> None:
    def locking(name: str) -> dict[str, str]:
        reference = f'<c:CipherReference xmlns:c="http://www.w3.org/2001/04/xmlenc#" URI="{name}"/>'
        return {"META-INF/encryption.xml": f"<encryption>{reference}</encryption>"}

    chapters = {"a.xhtml": xhtml("First"), "b.xhtml": xhtml("Second")}
    fonts = epub_of(chapters, more=locking("OEBPS/font.otf"))
    assert texts(items_of(file_of(tmp_path, "fonts.epub", fonts))) == ["First\n\nSecond"]
    one = items_of(file_of(tmp_path, "one.epub", epub_of(chapters, more=locking("OEBPS/b.xhtml"))))
    assert texts(one) == ["First"]
    assert "OEBPS/b.xhtml is encrypted (DRM)" in lost(one)[0].reason
    both = locking("OEBPS/a.xhtml")
    path = file_of(tmp_path, "all.epub", epub_of({"a.xhtml": xhtml("First")}, more=both))
    with pytest.raises(DataError, match=r"all\.epub: chapter OEBPS/a\.xhtml is encrypted \(DRM\)"):
        items_of(path)


def test_of_a_docx_all_that_stands_in_it_is_read_and_nothing_that_was_deleted(
    tmp_path: Path,
) -> None:
    body = (
        "<w:p><w:r><w:t>one</w:t><w:br/><w:t>two</w:t><w:tab/></w:r>"
        "<w:ins><w:r><w:t>three</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:smartTag><w:r><w:t xml:space='preserve'> four</w:t></w:r></w:smartTag></w:p>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>five</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        f"<w:tbl><w:tr><w:tc>{paragraph('six')}</w:tc><w:tc>{paragraph('七')}</w:tc></w:tr></w:tbl>"
    )
    (text,) = texts(items_of(file_of(tmp_path, "a.docx", docx_of(body))))
    assert text.split() == ["one", "two", "three", "four", "five", "six", "七"]


def test_of_a_pdf_pages_without_text_are_named_and_empty_ones_are_no_loss(tmp_path: Path) -> None:
    pages = ["First in-\nformation", PICTURE, "", "Second"]
    items = items_of(file_of(tmp_path, "a.pdf", pdf_of(pages)))
    assert texts(items) == ["First information\nSecond"]
    (bad,) = lost(items)
    assert (bad.line, bad.size) == (2, 2000)
    assert bad.reason == "page 2 holds no text, only pictures, perhaps of text"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pdf", pdf_of([PICTURE, PICTURE]), "has 2 pages, but holds no text.*ocrmypdf"),
        ("a.pdf", pdf_of(["One"], LOCKED), "is encrypted: save it without a password"),
        ("a.pdf", pdf_of(["One"])[:200], "is damaged or cut short"),
        ("a.pdf", b"no such thing", "is damaged or cut short, or no PDF"),
        ("a.pdf", b"", "is damaged or cut short, or no PDF"),
        ("a.docx", b"\xd0\xcf\x11\xe0" + bytes(512), "is encrypted, or of Word before 2007"),
        ("a.docx", zip_of({"xl/workbook.xml": "<a/>"}), "is no DOCX"),
        ("a.docx", docx_of(paragraph("One"))[:-30], "is damaged or cut short"),
        ("a.docx", docx_of("<w:p>"), "cannot be read|is damaged"),
        (
            "a.docx",
            docx_of("", {"word/notes.xml": bytes(2**27 + 1)}),
            "holds a part of 134,217,729 bytes.*bomb",
        ),
        ("a.docx", docx_of("<w:p>" * 3000 + "</w:p>" * 3000), "is nested too deeply"),
        ("a.epub", zip_of({"a.txt": "One"}), "is no EPUB"),
        (
            "a.epub",
            epub_of({"1.xhtml": bytes(2**27 + 1)}),
            "chapter .* holds a part of 134,217,729 bytes.*bomb",
        ),
        ("a.epub", epub_of({}), "names no chapter"),
        ("a.html", b"PK\x03\x04" + bytes(64), "is a ZIP archive"),
        ("a.html", bytes(range(32)) * 40, "holds binary data"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_the_reason(
    name: str, data: bytes, reason: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, name, data)
    with pytest.raises(DataError, match=rf"{name}: ({reason})") as refused:
        items_of(path)
    assert "\n" not in str(refused.value)


def test_entities_that_expand_without_end_are_no_text(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 12))
    opf = f'<!DOCTYPE package [<!ENTITY e0 "bomb">{entities}]><package>&e11;</package>'
    book = epub_of({"1.xhtml": xhtml("One")}, more={"OEBPS/content.opf": opf})
    with pytest.raises(DataError, match="is damaged"):
        items_of(file_of(tmp_path, "a.epub", book))
    document = f'<!DOCTYPE d [<!ENTITY e0 "bomb">{entities}]><d>&e11;</d>'
    with pytest.raises(DataError, match=r"cannot be read|is damaged"):
        items_of(file_of(tmp_path, "a.docx", docx_of("", {"word/document.xml": document})))


def test_a_book_whose_text_grows_without_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_files, "FREE_BYTES", 2**16)
    chapters = {f"{n}.xhtml": b"a" * 2**18 for n in range(8)}
    path = file_of(tmp_path, "a.epub", epub_of(chapters))
    assert path.stat().st_size * 100 < 2**21
    with pytest.raises(DataError, match="its text is more than 100 times its size"):
        items_of(path)


def test_a_page_of_a_font_without_meaning_is_left_out_and_named(tmp_path: Path) -> None:
    font = (
        "<</Type/Font/Subtype/Type0/BaseFont/Foo/Encoding/Identity-H/ToUnicode 1 0 R"
        "/DescendantFonts[<</Type/Font/Subtype/CIDFontType2/BaseFont/Foo"
        "/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>]>>"
    )
    odd = "".join(chr(0xE0) + chr(n) for n in range(0x41, 0x5B))  # two bytes each: private use
    path = file_of(tmp_path, "a.pdf", pdf_of([odd], font=font))
    with pytest.raises(DataError, match="has 1 page, but has a font that does not say"):
        items_of(path)


def test_a_file_that_ends_or_holds_up_its_reader_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = file_of(
        tmp_path,
        "program.py",
        "import os, sys, time, json\n"
        "while sys.stdin.buffer.readline():\n"
        "    data = b''\n"
        "    while size := int.from_bytes(sys.stdin.buffer.read(4), 'big'):\n"
        "        data += sys.stdin.buffer.read(size)\n"
        "    if b'crash' in data: os.abort()\n"
        "    print(json.dumps({'text': 'read'}), flush=True)\n"
        "    if b'hang' in data: time.sleep(60)\n"
        "    print(json.dumps({'done': True}), flush=True)\n",
    )
    monkeypatch.setattr(document_files, "PROGRAM", program)
    monkeypatch.setattr(document_files, "SECONDS", 1.0)
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a crash", "b sound", "c hang", "d sound"):
        file_of(folder, f"{name}.html", f"<p>{name}</p>")
    items = items_of(folder)
    assert texts(items) == ["read"] * 3  # of the one that hangs, what came before
    assert [(Path(bad.source).name, bad.reason) for bad in lost(items)] == [
        ("a crash.html", "is damaged: it ends the program that reads it"),
        (
            "c hang.html",
            "takes more than 1 s to read: no text, or damaged (what came before that is read)",
        ),
    ]


def test_a_document_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_files, "FILE_BYTES", 1000)
    monkeypatch.setattr(document_files, "HTML_BYTES", 900)
    for name, data in {"a.html": HTML * 30, "a.pdf": b"%PDF-" + bytes(2**23)}.items():
        with pytest.raises(DataError, match=r"more than (1,000|900) bytes: split it"):
            items_of(file_of(tmp_path, name, data))
    assert texts(items_of(file_of(tmp_path, "b.html", HTML))) == ["Head\n\nOne & two"]


def test_without_the_extra_documents_are_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_files, "is_installed", lambda kind: False)
    monkeypatch.setattr(listing, "is_installed", lambda kind: False)
    path = file_of(tmp_path, "a.pdf", FILES["a.pdf"][0])
    with pytest.raises(DataError, match=r"a\.pdf: .*pip install 'jielong\[documents\]'"):
        items_of(path)
    with pytest.raises(DataError, match=r"no text in this folder .*pip install"):
        items_of(tmp_path)
    file_of(tmp_path, "b.txt", "One")
    _, not_read = find_sources([str(tmp_path)])
    assert [left.reason for left in not_read] == ["read by pip install 'jielong[documents]'"]


def test_the_report_names_what_of_the_documents_is_not_read(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    file_of(folder, "a.html", "<p>" + "Many words are said here. " * 400)
    file_of(folder, "b.pdf", pdf_of([PICTURE]))
    archive = zip_of({"c.docx": docx_of("<w:p>"), "d.html": "<p>In an archive."})
    file_of(folder, "c.zip", archive)
    config = load_config(data_path=(str(folder),), allow_loss=True)
    report = prepare(config, tokenizer, tmp_path / "data")
    assert any("1 html, 1 pdf, 1 zip" in line for line in report.lines())
    rows = list(map(json.loads, (tmp_path / "data" / "bad-lines.jsonl").open()))
    assert [Path(row["file"]).name for row in rows] == ["b.pdf", "c.docx"]
    assert rows[0]["bytes"] == 2000
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert rows[1]["bytes"] == opened.getinfo("c.docx").file_size
    (warning,) = (line for line in report.lines() if "WARNING" in line)
    assert "b.pdf: has 1 page, but holds no text" in warning
