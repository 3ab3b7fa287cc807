"""CSV and TSV → documents: one row a document, the columns named by the first line.

Quotes are read as spreadsheets write them, so that a text may have several lines. A quote that does
not fit costs no other row: its line is read as it stands, or left out.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator

from jielong.data.sources.items import (
    NO_TEXT,
    NOT_CSV,
    TOO_LONG,
    BadLine,
    Item,
    UnreadableFileError,
)
from jielong.data.sources.lines import LINE_BYTES, numbered_lines, with_line_feeds
from jielong.data.sources.row_text import RowText

DELIMITERS = (",", ";", "\t", "|")  # a spreadsheet's own depends on the country
ROW_BYTES = 2**24  # of several lines; in a longer row a quote is missing
SHOWN = 40  # characters of a column's name in a message
COLUMNS_SHOWN = 20

Line = tuple[int, str, int]  # its number, the line, and its bytes


def read_csv(
    stream: io.BufferedReader,
    name: str,
    text: str | RowText,
    tabs: bool,
    line_bytes: int = LINE_BYTES,
    row_bytes: int = ROW_BYTES,
) -> Iterator[Item]:
    """Yield the text of each row.

    Args:
        text: what the text of a row is; a name alone is that of its column.
        tabs: columns end at tabs (TSV); else at what the first line shows.
        line_bytes: longer lines are left out.
        row_bytes: more bytes than a row of several lines has.

    Raises:
        UnreadableFileError: the first line names no such column.
    """
    csv.field_size_limit(line_bytes)
    reader = _Rows(with_line_feeds(stream), line_bytes, row_bytes)
    first = next(reader, None)
    if first is None:
        yield BadLine(name, 1, "empty text")
        return
    texts = RowText.of(text)
    columns = _columns(first, "\t" if tabs else None, texts.fields, name)
    reader.delimiter, reader.columns = columns.delimiter, len(columns.names)
    wanted = {field: columns.names.index(field) for field in texts.fields}
    at = max(wanted.values())
    for number, row, size in reader:
        if size > line_bytes and not row:
            reason = f"a line of {size:,} bytes, longer than {line_bytes:,}: split this document"
            yield BadLine(name, number, reason, TOO_LONG, size)
        elif len(row) > reader.columns and any(row[reader.columns :]):
            reason = (
                f"has {len(row):,} columns, the first line {reader.columns:,}: a text that holds "
                f"{_NAMES.get(columns.delimiter, columns.delimiter)} or a quote needs quotes"
            )
            yield BadLine(name, number, reason, NOT_CSV, size)
        elif len(row) == reader.columns and set(map(str.strip, row)) == set(columns.names):
            columns = _Columns(row, columns.delimiter)  # which may stand in another order now
            wanted = {field: columns.names.index(field) for field in texts.fields}
            at = max(wanted.values())
            yield BadLine(name, number, "names the columns once more, where files were joined")
        elif len(row) <= at:
            reason = f"ends before its column {columns.names[at]!r}"
            yield BadLine(name, number, reason, NO_TEXT, size)
        else:
            values = {field: row[place] for field, place in wanted.items()}
            yield texts.item(values, name, number, size)


_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
Row = tuple[int, list[str], int]  # where it begins, its columns, and its bytes


class _Columns:
    """The names of the columns, and what stands between them."""

    def __init__(self, names: list[str], delimiter: str) -> None:
        self.names, self.delimiter = [name.strip() for name in names], delimiter


def _columns(first: Row, delimiter: str | None, fields: list[str], name: str) -> _Columns:
    line = first[1][0]
    tried = [
        _Columns(_split(line, d) or line.split(d), d)
        for d in ([delimiter] if delimiter else DELIMITERS)
    ]
    for columns in tried:
        if set(fields) <= set(columns.names):
            return columns
    names = max((columns.names for columns in tried), key=len)
    missing = next(field for field in fields if field not in names)
    seen = ", ".join(n[:SHOWN] for n in itertools.islice(names, COLUMNS_SHOWN))
    raise UnreadableFileError(
        name,
        f"no column {missing!r}; columns seen: {seen}; choose one with --text-field, or, if the "
        "first line is text already, put one with the names of the columns before it",
    )


class _Rows(Iterator[Row]):
    """Rows of a stream. The first one is a whole line, as nothing is known before it.

    Attributes:
        delimiter, columns: what stands between columns, and how many there are.
    """

    def __init__(self, stream: io.BufferedReader, line_bytes: int, row_bytes: int) -> None:
        self.delimiter, self.columns = "", 0
        self._row_bytes = row_bytes
        self._lines = numbered_lines(stream, line_bytes)
        self._again: deque[Line] = deque()  # lines that turned out to be no part of a row

    def __next__(self) -> Row:
        while True:
            number, line, size = self._line()
            if size and not line:
                return number, [], size  # too long
            if line.strip():
                return self._row(number, line, size)

    def _line(self) -> Line:
        if self._again:
            return self._again.popleft()
        number, data, size = next(self._lines)
        return number, data.decode("utf-8", "surrogateescape"), size

    def _row(self, number: int, line: str, size: int) -> Row:
        if not self.delimiter:
            return number, [line.rstrip("\r\n")], size
        lines: list[Line] = []
        quotes, total = line.count('"'), size
        while quotes % 2 and total <= self._row_bytes:  # the row goes on
            try:
                lines.append(self._line())
            except StopIteration:
                break
            quotes += lines[-1][1].count('"')
            total += lines[-1][2]
        row = None
        if quotes % 2 == 0 and not self._are_rows(line, lines):
            row = _split("".join([line, *(text for _, text, _ in lines)]), self.delimiter)
        if row is not None:
            return number, row, total
        self._again.extendleft(reversed(lines))
        return number, line.rstrip("\r\n").split(self.delimiter), size

    def _are_rows(self, line: str, more: list[Line]) -> bool:
        """Whether lines joined by quotes are rows of their own: texts hardly ever have tabs."""
        texts = [line, *(text for _, text, _ in more)]
        is_whole = all(text.count("\t") == self.columns - 1 for text in texts)
        return self.delimiter == "\t" and self.columns > 1 and len(texts) > 1 and is_whole


def _split(row: str, delimiter: str) -> list[str] | None:
    """Return the columns of a row; None if its quotes do not fit."""
    try:
        rows = list(csv.reader(io.StringIO(row, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
