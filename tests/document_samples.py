"""Small HTML, EPUB, DOCX and PDF files, made by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
)
PICTURE = None  # a page with a grey area, as a scan has


def zip_of(members: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def xhtml(body: str, title: str = "<title/>") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head>{title}</head><body>{body}</body></html>"
    )


def epub_of(chapters: Mapping[str, str | bytes], spine: Sequence[str] = (), more=None) -> bytes:
    """An EPUB of chapters of XHTML, by name; `spine` is their order, and may name others."""
    order = spine or list(chapters)
    items = "".join(f'<item id="i{n}" href="{name}"/>' for n, name in enumerate(order))
    refs = "".join(f'<itemref idref="i{n}"/>' for n in range(len(order)))
    opf = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest>'
        f"<spine>{refs}</spine></package>"
    )
    members = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    members |= {"OEBPS/content.opf": opf}
    members |= {f"OEBPS/{name}": data for name, data in chapters.items()}
    return zip_of(members | (more or {}))


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def docx_of(body: str, more: Mapping[str, str | bytes] | None = None) -> bytes:
    """A DOCX with a body of WordprocessingML."""
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return zip_of({"word/document.xml": document} | dict(more or {}))


def pdf_of(pages: Sequence[str | None], trailer: str = "", font: str = "") -> bytes:
    """A PDF of pages of Latin text in lines; PICTURE has none."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    font = font or "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        font,
    ]
    for number, text in enumerate(pages):
        content = "0.5 g 50 50 300 300 re f"
        if text is not None:
            lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
            content = f"BT /F1 12 Tf 14 TL 50 700 Td {lines} ET" if text else ""
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {5 + 2 * number} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>>",
            f"<</Length {len(content)}>>\nstream\n{content}\nendstream",
        ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    size = f"/Size {len(objects) + 1}/Root 1 0 R"
    out += f"trailer\n<<{size}{trailer}>>\nstartxref\n{table}\n%%EOF\n".encode("latin-1")
    return bytes(out)


LOCKED = f"/ID[<{'00' * 16}><{'00' * 16}>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{'41' * 32}>"
LOCKED += f"/U<{'42' * 32}>>>"
