"""What files of other formats begin with, and what to do about them."""

from __future__ import annotations

import re

from jielong.data.sources.items import UnreadableFileError

HEAD_BYTES = 1024  # enough for every signature, and for a pointer of Git LFS
ZIP = b"PK\x03\x04"
TAR = b"ustar"  # in an archive's first header
TAR_HEADER = re.compile(rb".{257}ustar[\0 ]", re.DOTALL)
LFS_POINTER = re.compile(rb"version https://git-lfs\S*\n(?:.*\n)*?size (\d+)")
OTHER_FORMATS = {
    b"PAR1": "is a Parquet file: give it a name that ends in .parquet",
    b"ARROW1": "is an Arrow file: give it a name that ends in .arrow",
    ZIP: "is a ZIP archive: give it a name that ends in .zip, or extract its text",
    b"%PDF-": "is a PDF: give it a name that ends in .pdf",
    b"{\\rtf": "is rich text (RTF): save it as plain text",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an old document of Word, Excel or PowerPoint: "
    "save a text as .docx, a table as CSV",
    b"\x04\x22\x4d\x18": "is compressed with LZ4: lz4 -d FILE",
    b"7z\xbc\xaf\x27\x1c": "is a 7-Zip archive: extract it",
    b"Rar!": "is a RAR archive: extract it",
    b"<mediawiki ": "is a dump of a wiki, whose templates and markup no library here makes text "
    "of: of Wikipedia --data-path hf://wikimedia/wikipedia:20231101.en (pip install "
    "'jielong[hub]') has the texts; else use the wiki's own export of plain text",
    b"SQLite format 3\x00": "is an SQLite database: export its text as JSON Lines",
}
# what the first member of a ZIP archive says that is a document
WITHIN_ZIP = {
    b"mimetypeapplication/epub+zip": "is an EPUB: give it a name that ends in .epub",
    b"mimetypeapplication/vnd.oasis.opendocument": "is a document of LibreOffice: save a text as "
    ".docx, a table as CSV",
    b"[Content_Types].xml": "is a document of Word, Excel or PowerPoint: give a text a name that "
    "ends in .docx, save a table as CSV",
}
NOTEBOOK = re.compile(rb'\s*\{\s*"cells"\s*:\s*\[.*"cell_type"', re.DOTALL)


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
    if NOTEBOOK.match(head):
        raise UnreadableFileError(
            name, "is a Jupyter notebook: jupyter nbconvert --to markdown FILE makes text of it"
        )
    if own != TAR and TAR_HEADER.match(head):
        raise UnreadableFileError(name, "is a tar archive: give it a name that ends in .tar")
    if own != ZIP and head.startswith(ZIP):
        for within, meaning in WITHIN_ZIP.items():
            if within in head:
                raise UnreadableFileError(name, meaning)
    for signature, meaning in OTHER_FORMATS.items():
        if signature != own and head.startswith(signature):
            raise UnreadableFileError(name, meaning)
