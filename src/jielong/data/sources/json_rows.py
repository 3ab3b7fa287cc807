"""JSON → documents: one object a line, objects of several lines, or one array of them.

An unusable row is yielded as a `BadLine` at its place in the order. NaN, Infinity and raw tabs, as
Python's json and people's scripts write them, are read.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import orjson

from jielong.data.sources.encodings import is_utf8
from jielong.data.sources.items import (
    INVALID_UTF8,
    NO_TEXT,
    NOT_JSON,
    NOT_UTF8,
    TOO_LONG,
    BadLine,
    Item,
)
from jielong.data.sources.lines import LINE_BYTES, numbered_lines, with_line_feeds
from jielong.data.sources.row_text import RowText, is_conversation, item_of_text, type_name

CHUNK_BYTES = 2**20
MOST_INDENT = 80
# the first line of an object of several lines
UNFINISHED = re.compile(rb"\{(.*[{\[,:])?$")
BETWEEN = re.compile(r"[\s,]*")
OBJECT = re.compile(rb'\s*(\[\s*)?\{\s*"([^"\\]|\\.)*"\s*:')


def looks_like_json(head: bytes) -> bool:
    """Whether a text begins as an object of JSON does, or an array of objects."""
    return OBJECT.match(head) is not None


def read_json(
    stream: io.BufferedReader, name: str, text: str | RowText, line_bytes: int = LINE_BYTES
) -> Iterator[Item]:
    """Yield the text of each object; a row that is a string is the text itself.

    Args:
        text: what the text of an object is; a name alone is that of its field.
        line_bytes: longer lines and rows are left out.
    """
    stream, texts = with_line_feeds(stream), RowText.of(text)
    if is_one_value_a_line(stream.peek(1)):
        yield from read_lines(numbered_lines(stream, line_bytes), name, texts, line_bytes)
    else:
        yield from _Rows(stream, name, texts, line_bytes).items()


def is_one_value_a_line(head: bytes) -> bool:
    """Whether a file that begins so has a value in each line, not one over several."""
    head = head.lstrip()
    first, end, rest = head.partition(b"\n")
    if _holds_several(first):
        return False
    if first.startswith(b"["):  # an array of rows, unless every line is one
        return first.rstrip().endswith(b"]") and rest.lstrip().startswith(b"[")
    return not end or not UNFINISHED.match(first.rstrip()) or _is_object(first)


def read_lines(
    numbered: Iterable[tuple[int, bytes | bytearray, int]],
    name: str,
    texts: RowText,
    line_bytes: int = LINE_BYTES,
) -> Iterator[Item]:
    """Yield the text of the value in each line.

    Args:
        numbered: each line's number, the line and its bytes.
    """
    for number, line, size in numbered:
        if size > line_bytes:
            reason = f"a line of {size:,} bytes, longer than {line_bytes:,}: split this document"
            yield BadLine(name, number, reason, TOO_LONG, size)
        elif line.strip():  # blank lines between records are harmless
            yield _item_of_line(line, name, number, texts)


def _holds_several(line: bytes) -> bool:
    """Whether a line has one object after the other, as written without line feeds."""
    text = line.decode("utf-8", "replace")
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return text.startswith("{") and text[end:].lstrip().startswith("{")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _item_of_line(line: bytes | bytearray, name: str, number: int, texts: RowText) -> Item:
    line = line.removeprefix(codecs.BOM_UTF8)  # where files with a mark were joined
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not is_utf8(line):
            return BadLine(name, number, INVALID_UTF8, NOT_UTF8, len(line))
        try:
            row = json.loads(line.decode(), strict=False)
        except (ValueError, RecursionError) as error:
            return BadLine(name, number, _invalid(error, line), NOT_JSON, len(line))
    return item_of_row(row, name, number, texts, len(line))


def _invalid(error: Exception, line: bytes | bytearray) -> str:
    if re.match(rb"\s*\{\s*'", line):
        return "invalid JSON: a dict as Python prints it; write it with json.dumps"
    if len(line) < 100 and UNFINISHED.match(line.strip()):
        return "invalid JSON: an object of several lines; jq -c . FILE > corpus.jsonl joins them"
    if isinstance(error, json.JSONDecodeError):
        return f"invalid JSON: {error.msg[:60]}"
    return f"invalid JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}"


def item_of_row(row: Any, name: str, number: int, texts: RowText, size: int) -> Item:
    """Return the text of a row that was read from `size` bytes, or why it has none."""
    if isinstance(row, str):
        return item_of_text(row, name, number, texts.field, size)
    if is_conversation(row):  # one in each line, without a name
        return replace(texts, field="0", template=None).item({"0": row}, name, number, size)
    if not isinstance(row, dict):
        fix = ": jq -c '.[]' FILE > corpus.jsonl" if isinstance(row, list) else ""
        reason = f"holds a {type_name(row)}, not an object{fix}"
        return BadLine(name, number, reason, NO_TEXT, size)
    return texts.item(row, name, number, size)


class _Rows:
    """Reads JSON values that follow each other, or the elements of one array.

    The text in memory grows until it holds the next value whole, but not beyond a limit.
    """

    def __init__(self, stream: io.BufferedReader, name: str, texts: RowText, limit: int) -> None:
        self._stream, self._name, self._texts, self._limit = stream, name, texts, limit
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at, self._line, self._ended = "", 0, 1, False
        self._column, self._in_array = 0, False

    def items(self) -> Iterator[Item]:
        """Yield a document or a bad line for each value."""
        self._skip()
        if self._text[self._at : self._at + 1] == "[":
            self._in_array = True
            self._pass(self._at + 1)
        while self._skip():
            if self._in_array and self._text[self._at] == "]":
                self._in_array = False
                self._pass(self._at + 1)
                if self._skip():
                    line, size = self._line, self._drop_all()
                    reason = "text after the end of the JSON array: one array a file"
                    yield BadLine(self._name, line, reason, NOT_JSON, size)
                return
            yield self._next()
        if self._in_array:
            reason = "the JSON array does not end: the file is cut short"
            yield BadLine(self._name, self._line, reason, NOT_JSON)

    def _next(self) -> Item:
        """Read one value, or skip what is none up to the next that begins on a line of its own."""
        while True:
            line = self._line
            try:
                row, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._may_be_unfinished(error) and self._grow():
                    continue
                start = self._text[self._at : self._at + 200].encode(errors="replace")
                reason = _invalid(error, start)
                if len(self._text) - self._at > self._limit:
                    reason = f"a row longer than {self._limit:,} bytes: split this document"
                kind = TOO_LONG if "longer than" in reason else NOT_JSON
                return BadLine(self._name, line, reason, kind, self._skip_bad())
            if end == len(self._text) and self._grow():
                continue  # a number may go on
            return item_of_row(row, self._name, line, self._texts, self._pass(end))

    def _may_be_unfinished(self, error: Exception) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        near_end = error.pos >= len(self._text) - len("-Infinity")
        return near_end or error.msg.startswith("Unterminated string")

    def _skip(self) -> bool:
        """Pass white space and commas between values; return whether more follows."""
        while True:
            between = BETWEEN.match(self._text, self._at)
            assert between is not None
            self._pass(between.end())
            if self._at < len(self._text):
                return True
            if not self._grow():
                return False

    def _skip_bad(self) -> int:
        """Pass a bad value; return its size. The next begins where a line begins like this one."""
        following = re.compile(rf'\n[ \t]{{0,{min(self._column, MOST_INDENT)}}}(?=[{{"\]])')
        size = 0
        while (found := following.search(self._text, self._at)) is None:
            last = self._text.rfind("\n", max(self._at, len(self._text) - MOST_INDENT - 1))
            size += self._pass(last if last >= 0 else len(self._text))
            if not self._grow():
                return size + self._pass(len(self._text))
        return size + self._pass(found.end())

    def _drop_all(self) -> int:
        size = 0
        while self._at < len(self._text) or self._grow():
            size += self._pass(len(self._text))
        return size

    def _pass(self, end: int) -> int:
        """Go on to a position; return the bytes passed."""
        passed = self._text[self._at : end]
        lines = passed.count("\n")
        self._line += lines
        self._column = len(passed) - passed.rfind("\n") - 1 + (0 if lines else self._column)
        self._at = end
        return len(passed.encode("utf-8", "surrogateescape"))

    def _grow(self) -> bool:
        """Read as much again as is left; return whether there was more, within the limit."""
        left = len(self._text) - self._at
        if self._ended or left > self._limit:
            return False
        data = self._stream.read(max(CHUNK_BYTES, left))
        self._ended = not data
        text = self._utf8.decode(data, final=self._ended)
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(text) or (not self._ended and self._grow())
