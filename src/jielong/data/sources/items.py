"""What reading yields: documents, what had to be left out, and remarks on how a file was read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import PurePath

from jielong.errors import DataError

# Why text is left out.
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not JSON"
NOT_CSV = "not CSV"
TOO_LONG = "too long"
NO_TEXT = "without text"
NO_TOKENS = "without tokens"
WHOLE_FILE = "unreadable file"
PART = "unreadable part"  # a page or chapter of a document

INVALID_UTF8 = (
    "invalid UTF-8, or invalid in the encoding given; "
    "if the file is GBK or Latin-1, give --encoding gb18030 or latin-1"
)


def shown(path: PurePath) -> str:
    """Return a path as a line of text: names may be in any encoding, and have line breaks."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return re.sub("^([a-z][a-z0-9]+):/(?=[^/])", r"\1://", name)  # of a remote address


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it begins.

    Attributes:
        source, line: the file, and the line or row there, counted from 1.
        size: bytes that it takes in its source; 0 if they are as many as those of the text.
        unit: what made it a text of its own: row, file, line, paragraph, a separator, or piece, if
            it is part of a longer text.
    """

    text: str
    source: str
    line: int
    size: int = 0
    unit: str = field(default="row", kw_only=True)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, row or whole file that is left out, and why.

    Attributes:
        line: counted from 1; 0 for a whole file. Of a PDF the page, of an EPUB the chapter.
        reason: in words, with the fix.
        kind: the reason as the report counts it.
        size: bytes left out.
    """

    source: str
    line: int
    reason: str
    kind: str = NO_TEXT
    size: int = 0

    @property
    def message(self) -> str:
        """The place and the reason."""
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Remark:
    """How a file was read, where its name does not say so."""

    source: str
    text: str


Item = Document | BadLine | Remark


class UnreadableFileError(DataError):
    """A file that cannot be read, or not to its end.

    Args:
        name: the file.
        reason: in words, with the fix.
        size: bytes that are lost with it; None if they are those of the file.
        seen: bytes of its content that are lost and were already read.
    """

    def __init__(self, name: str, reason: str, size: int | None = None, seen: int = 0) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason, self.size, self.seen = reason, size, seen
