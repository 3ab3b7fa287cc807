"""A program: HTML, EPUB, DOCX and PDF → their texts, for `document_files.py`.

Such files come from anywhere, and their libraries hold a whole file or are written in C. So they
are read in a process of its own that imports nothing of ours and has limited memory; its caller
ends it where it takes too long, and no damaged file ends more than this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import re
import resource
import sys
import unicodedata
import urllib.parse
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

MEMORY_BYTES = 2**31
PART_BYTES = 2**27  # of a chapter, or of a part of a DOCX file; a longer one is no text
TOO_MUCH = "takes too much memory: a decompression bomb, or no text"
XML_BYTES = 2**24  # of what an EPUB says about itself
END_BYTES = 2**12  # where a PDF says that it ends
SCAN_BYTES = 2000  # of text that a page of a book has, which is taken as lost with a picture of it
UNREADABLE = "has a font that does not say which characters it shows"
PICTURE = "holds no text, only pictures, perhaps of text"
UNREADABLE_SHARE = 0.2  # of characters without meaning: their font does not say what they are

# what a browser does not show, and readings beside characters (ruby), which would cut words apart
NOT_SHOWN = ["script", "style", "template", "[hidden]", "rt", "rp"]
VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split()  # noqa: SIM905
)
EMPTY_ELEMENT = re.compile(
    r"""<([A-Za-z][\w:.-]*)((?:\s+[^\s"'<>/=]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*/>"""
)
XML_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
OPF = "{http://www.idpf.org/2007/opf}"
CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
CIPHER = "{http://www.w3.org/2001/04/xmlenc#}CipherReference"
OLE = b"\xd0\xcf\x11\xe0"  # of Word before 2007, and around an encrypted DOCX

Answer = dict[str, Any]  # {text}, or {part, lost, bytes}: the number of a page or chapter, and why


class RefusedError(Exception):
    """A file that cannot be read, or not to its end; the message says why, with the fix."""

    def __init__(self, reason: str, size: int | None = None) -> None:
        super().__init__(reason)
        self.size = size


def main() -> None:
    """Read {kind, main} and a file in frames, each after its length in 4 bytes; 0 ends it.

    Write answers, and at last {done}, or {error, bytes}.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))
    source = sys.stdin.buffer
    while request := source.readline():
        for answer in _answers(json.loads(request), source):
            out.write(json.dumps(answer).encode() + b"\n")
            out.flush()


def _answers(request: dict[str, Any], source: BinaryIO) -> Iterator[Answer]:
    read = {"html": _html_file, "epub": _epub, "docx": _docx, "pdf": _pdf}[request["kind"]]
    try:
        data = b"".join(_frames(source))
        for answer in read(data, request["main"]):
            if answer.get("text") != "":
                yield answer
        yield {"done": True}
    except RefusedError as error:
        yield {"error": str(error), "bytes": error.size}
    except MemoryError:
        yield {"error": TOO_MUCH, "bytes": None}
    except RecursionError:
        yield {"error": "is nested too deeply for a text", "bytes": None}
    except (zipfile.BadZipFile, ET.ParseError) as error:
        yield {"error": f"is damaged or cut short ({error}); get it again", "bytes": None}
    except Exception as error:  # of three libraries, and of what each of them calls
        reason = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        yield {"error": reason.replace("\n", " "), "bytes": None}


def _frames(source: BinaryIO) -> Iterator[bytes]:
    while size := int.from_bytes(source.read(4), "big"):
        yield source.read(size)


def _html_file(data: bytes, main: bool) -> Iterator[Answer]:
    """Yield the text of HTML, which the caller has made UTF-8."""
    yield {"text": _text_of_html(data.decode("utf-8", "replace"), main)}


def _text_of_html(html: str, main: bool = False) -> str:
    """Return the text that a browser shows, with its blocks in lines.

    Args:
        main: without menus, headers and the like, as far as they can be told.
    """
    from resiliparse.extract.html2text import extract_plain_text

    html = html.replace("\0", "")
    if "<?xml" in html[:100] or "/xhtml" in html[:1000]:
        html = EMPTY_ELEMENT.sub(_opened, html)  # else <title/> would swallow all that follows
    wanted: dict[str, Any] = {"preserve_formatting": True, "alt_texts": False}
    wanted["skip_elements"] = NOT_SHOWN
    try:
        text: str = extract_plain_text(html, main_content=True, **wanted) if main else ""
        return text if text.strip() else extract_plain_text(html, **wanted)
    except Exception as error:  # of a class that the library does not show
        raise RefusedError(TOO_MUCH if "Error 2)" in str(error) else str(error)) from None


def _opened(tag: re.Match[str]) -> str:
    name, attributes = tag[1], tag[2]
    return tag[0] if name.lower() in VOID else f"<{name}{attributes}></{name}>"


def _decoded(data: bytes) -> str:
    """Decode XHTML: UTF-8, or what it declares.

    Raises:
        UnicodeDecodeError, LookupError: it is not.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    declared = XML_DECLARATION.match(data)
    return data.decode(declared[1].decode() if declared else "utf-8-sig")


def _open_zip(data: bytes) -> zipfile.ZipFile:
    if data.startswith(OLE):
        raise RefusedError(
            "is encrypted, or of Word before 2007: save it as .docx without a password"
        )
    archive = zipfile.ZipFile(io.BytesIO(data))
    if any(info.flag_bits & 1 for info in archive.infolist()):
        raise RefusedError("is encrypted: save it without a password")
    return archive


def _member(archive: zipfile.ZipFile, name: str, limit: int = PART_BYTES) -> bytes:
    """Read a part; what its table of contents says of its size is the most that it has."""
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise RefusedError(
            f"holds a part of {info.file_size:,} bytes ({name[:80]}): a decompression bomb, or no "
            "text"
        )
    return archive.read(info)


def _epub(data: bytes, main: bool) -> Iterator[Answer]:
    """Yield the chapters of an EPUB in the order of reading."""
    del main
    with _open_zip(data) as archive:
        names = set(archive.namelist())
        try:
            container = ET.fromstring(_member(archive, "META-INF/container.xml", XML_BYTES))
            package = container.find(f".//{CONTAINER}rootfile")
            path = "" if package is None else package.get("full-path", "")
            root = ET.fromstring(_member(archive, path, XML_BYTES))
        except KeyError as error:
            raise RefusedError(f"is no EPUB: it lacks its table of contents ({error})") from None
        hrefs = {item.get("id"): item.get("href", "") for item in root.iter(f"{OPF}item")}
        spine = [hrefs.get(item.get("idref"), "") for item in root.iter(f"{OPF}itemref")]
        folder = posixpath.dirname(path)
        chapters = [
            posixpath.normpath(posixpath.join(folder, urllib.parse.unquote(href))) for href in spine
        ]
        locked = _locked(archive) if "META-INF/encryption.xml" in names else set()
        any_text = False
        for number, chapter in enumerate(dict.fromkeys(chapters), 1):
            lost = "is missing"
            size = archive.getinfo(chapter).file_size if chapter in names else 0
            if chapter in locked:
                lost = "is encrypted (DRM): get the book without"
            elif chapter in names:
                try:
                    html = _decoded(_member(archive, chapter))
                    text = _text_of_html(f"<?xml?>{html}").strip("\n")
                    yield {"text": "\n\n" + text if text and any_text else text}
                    any_text |= bool(text)
                    continue
                except (UnicodeDecodeError, LookupError) as error:
                    lost = f"is not in the encoding that it declares ({error})"
                except RefusedError as error:
                    lost = str(error)
                except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError) as error:
                    lost = f"is damaged ({error})"
            yield {"part": number, "lost": f"chapter {chapter[:80]} {lost}", "bytes": size}
        if not spine:
            raise RefusedError("names no chapter")


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of the parts that are encrypted; fonts often are, in books that are not."""
    root = ET.fromstring(_member(archive, "META-INF/encryption.xml", XML_BYTES))
    return {urllib.parse.unquote(part.get("URI", "")) for part in root.iter(CIPHER)}


def _docx(data: bytes, main: bool) -> Iterator[Answer]:
    """Yield the text of a DOCX: paragraphs, lists, tables and notes, without what was deleted."""
    del main
    import mammoth

    with _open_zip(data) as archive:
        if (
            "word/document.xml" not in archive.namelist()
            and "_rels/.rels" not in archive.namelist()
        ):
            raise RefusedError("is no DOCX: it holds no document of Word")
        for info in archive.infolist():
            if info.filename.endswith((".xml", ".rels")):
                _member(archive, info.filename)
    no_pictures = mammoth.images.img_element(lambda image: {})
    html = mammoth.convert_to_html(io.BytesIO(data), convert_image=no_pictures).value
    yield {"text": _text_of_html(html)}


def _pdf(data: bytes, main: bool) -> Iterator[Answer]:
    """Yield the texts of the pages of a PDF; each begins a line."""
    del main
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise RefusedError("is encrypted: save it without a password") from None
        raise RefusedError("is damaged or cut short, or no PDF; get it again") from None
    any_text = any_odd = False
    for number in range(pages):
        try:
            page = document[number]
            text = _readable(page.get_textpage().get_text_bounded())
            is_empty = text == "" and next(iter(page.get_objects()), None) is None
            page.close()
        except pypdfium2.PdfiumError as error:
            lost = f"page {number + 1} is damaged ({error})"
            yield {"part": number + 1, "lost": lost, "bytes": SCAN_BYTES}
            continue
        any_odd |= text is None
        if text:
            yield {"text": "\n" + text if any_text else text}
            any_text = True
        elif not is_empty:
            lost = f"page {number + 1} {UNREADABLE if text is None else PICTURE}"
            yield {"part": number + 1, "lost": lost, "bytes": SCAN_BYTES}
    if not any_text:
        fix = "recognise its text first, for example with ocrmypdf"
        why = f"{UNREADABLE}: {fix} --force-ocr" if any_odd else f"{PICTURE}: {fix}"
        many = "s" if pages != 1 else ""
        raise RefusedError(f"has {pages:,} page{many}, but {why}", SCAN_BYTES * pages)
    if b"%%EOF" not in data[-END_BYTES:]:
        raise RefusedError("is cut short, and nobody knows how much is missing; get it again", 1)


def _readable(text: str) -> str | None:
    """Return the text of a page in lines, with words in one piece; None if its font tells nothing.

    PDFium marks a hyphen that ends a line within a word as U+FFFE or U+0002.
    """
    text = re.sub("[\ufffe\x02](?:\r?\n)?", "", text).replace("\r\n", "\n").replace("\0", "")
    odd = sum(
        c == "\ufffd" or unicodedata.category(c) in ("Cc", "Co", "Cn") for c in text if c > " "
    )
    if odd > UNREADABLE_SHARE * max(len(text), 1):
        return None
    return text.strip("\n") if text.strip() else ""


if __name__ == "__main__":
    main()
