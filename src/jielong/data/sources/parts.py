"""The sources of a text in parts that can be read apart, such as by other machines.

The items of all parts, one after another, are those of `read_documents`. A part is several small
files, a whole file, or a range of a large one: of JSON Lines by bytes, of Parquet by row groups.
Other large files are read whole, since only their beginning tells what comes later: where texts end
in plain text, where quotes are open in CSV, what compressed bytes mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader, FileIO

from jielong.data.sources.containers import BUFFER_BYTES, open_bytes
from jielong.data.sources.documents import (
    Source,
    end_of_file,
    read_source,
    unreadable,
)
from jielong.data.sources.encodings import BLOCK_BYTES, MARKS, Utf8Stream
from jielong.data.sources.items import BadLine, Document, Item, Remark, UnreadableFileError
from jielong.data.sources.json_rows import is_one_value_a_line, read_lines
from jielong.data.sources.lines import LINE_BYTES, PART_BYTES, numbered_lines
from jielong.data.sources.reading import Reading
from jielong.data.sources.row_splitting import split_rows
from jielong.data.sources.row_text import CONVERSATION
from jielong.data.sources.tables import read_table, row_group_sizes

LEAST_BYTES, MOST_BYTES = 2**22, 2**25  # of a part, where a file can be split so
PARTS = 64  # about as many at least, if they are not too small: so many can be read at once
MOST_FILES = 1000  # in a part


@dataclass(frozen=True)
class Part:
    """What is read in one go.

    Attributes:
        sources: whole, or the one of which a range is read.
        size: bytes of them, as far as they are known.
        start, stop: of the range: in bytes, or row groups; None: whole sources.
        is_last: no other range of its source follows.
    """

    sources: tuple[Source, ...]
    size: int
    start: int = 0
    stop: int | None = None
    is_last: bool = True


def split_sources(
    sources: Sequence[Source], reading: Reading, part_bytes: int | None = None
) -> Iterator[Part]:
    """Yield the parts of the sources, in order.

    Args:
        part_bytes: about how large a part is; by default it follows from the size of all.
    """
    if part_bytes is None:
        total = sum(source.size or 0 for source in sources)
        part_bytes = min(max(total // PARTS, LEAST_BYTES), MOST_BYTES)
    part_bytes = -(-part_bytes // BLOCK_BYTES) * BLOCK_BYTES
    small: list[Source] = []
    size = 0
    for source in sources:
        ranges = _ranges(source, reading, part_bytes)
        its_size = source.size or 0
        if small and (ranges or size + its_size > part_bytes or len(small) == MOST_FILES):
            yield Part(tuple(small), size)
            small, size = [], 0
        if ranges:
            yield from ranges
        else:
            small.append(source)
            size += its_size
    if small:
        yield Part(tuple(small), size)


def _ranges(source: Source, reading: Reading, part_bytes: int) -> list[Part]:
    """Return the ranges of a large file; none if it is small, or has to be read whole.

    What is wrong with a file is said by the one that reads it.
    """
    size = source.size or 0
    if source.path is None or size < 2 * part_bytes:
        return []
    try:
        if source.kind == "parquet":
            sizes = row_group_sizes(source.path, source.name, reading.texts)
            bounds = _row_groups(sizes, part_bytes)
        elif source.kind == "jsonl" and reading.encoding is None and _has_lines(source):
            bounds = [*range(0, size, part_bytes), size]
        else:
            return []
    except (UnreadableFileError, OSError):
        return []
    each = size // (len(bounds) - 1)
    ranges = [Part((source,), each, *pair, False) for pair in itertools.pairwise(bounds)]
    last = replace(ranges[-1], size=size - each * (len(ranges) - 1), is_last=True)
    return [*ranges[:-1], last]


def _row_groups(sizes: Sequence[int], part_bytes: int) -> list[int]:
    """Return the bounds of ranges of row groups."""
    bounds, size = [0], 0
    for number, group in enumerate(sizes):
        if size and size + group > part_bytes:
            bounds.append(number)
            size = 0
        size += group
    return [*bounds, len(sizes)]


def _has_lines(source: Source) -> bool:
    """Whether a JSON file is plain UTF-8 without a mark, and has a value in each line."""
    with open_bytes(source.path, source.name) as plain:
        is_packed = not isinstance(plain.raw, FileIO)
        if is_packed or plain.peek(BLOCK_BYTES).startswith(tuple(MARKS)):
            return False
        head = BufferedReader(Utf8Stream(plain, source.name, None), BUFFER_BYTES).peek(1)
    has_line_feeds = b"\r" not in head or b"\n" in head
    return has_line_feeds and is_one_value_a_line(head)


@dataclass(frozen=True)
class PartEnd:
    """What is known of a range of a file once it has been read.

    Attributes:
        lines: lines or rows that it has.
        any_chat: it holds a conversation.
        is_sure: it, or what comes before it, shows that the file is UTF-8.
        failed: it could not be read to its end, and nothing of its file after it can be.
    """

    lines: int = 0
    any_chat: bool = False
    is_sure: bool = False
    failed: bool = False


class PartReader:
    """Reads a part.

    Args:
        alone: its source is the only one.
        is_sure: of a range: what comes before it shows that the file is UTF-8.
    """

    def __init__(self, part: Part, reading: Reading, alone: bool, is_sure: bool = False) -> None:
        self._part, self._reading, self._alone = part, reading, alone
        self._is_sure, self._lines, self._any_chat, self._failed = is_sure, 0, False, False

    @property
    def end(self) -> PartEnd:
        """What is known once all items have been read."""
        return PartEnd(self._lines, self._any_chat, self._is_sure, self._failed)

    def items(self) -> Iterator[Item]:
        """Yield the items as `read_documents` does; those of a range with lines of that range.

        Raises:
            DataError: the only source cannot be read.
        """
        if self._part.stop is None:
            try:
                for source in self._part.sources:
                    yield from read_source(source, self._reading, self._alone)
            finally:
                self._reading.extractor.close()
            return
        source = self._part.sources[0]
        try:
            rows = self._rows(source) if source.kind == "parquet" else self._jsonl(source)
            for item in split_rows(rows, self._reading.splitting):
                self._any_chat |= isinstance(item, Document) and item.unit == CONVERSATION
                yield item
        except (UnreadableFileError, OSError) as raised:
            self._failed = True
            yield unreadable(source, raised, self._alone)

    def _rows(self, source: Source) -> Iterator[Item]:
        assert source.path is not None
        groups = slice(self._part.start, self._part.stop)
        for item in read_table(source.path, source.name, "parquet", self._reading.texts, groups):
            self._lines += 1
            yield item

    def _jsonl(self, source: Source) -> Iterator[Item]:
        assert source.path is not None
        start = self._part.start
        with FileIO(source.path) as raw:
            raw.seek(max(0, start - 1))
            begins = start == 0 or raw.read(1) == b"\n"
            plain: BufferedReader = BufferedReader(raw, BUFFER_BYTES)
            utf8 = Utf8Stream(plain, source.name, None, start == 0, self._is_sure)
            stream: BufferedReader = BufferedReader(utf8, BUFFER_BYTES)
            try:
                at = start if begins else start + _pass_line(stream)
                lines = self._lines_from(stream, at)
                yield from read_lines(lines, source.name, self._reading.texts)
            finally:
                self._is_sure = utf8.is_sure

    def _lines_from(
        self, stream: BufferedReader, at: int
    ) -> Iterator[tuple[int, bytes | bytearray, int]]:
        """Yield the lines that begin in the range."""
        assert self._part.stop is not None
        numbered = numbered_lines(stream, LINE_BYTES)
        while at < self._part.stop and (line := next(numbered, None)) is not None:
            self._lines = line[0]
            at += line[2]
            yield line


def _pass_line(stream: BufferedReader) -> int:
    """Read to the end of a line; return its bytes."""
    size = 0
    while part := stream.readline(PART_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


class PartsInOrder:
    """Puts together what was read of parts, one after another.

    Attributes:
        is_sure: what was read so far of a file shows that it is UTF-8.
        lines_before: lines or rows of the file before the next part of it.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._failed: Source | None = None
        self._forget()

    def _forget(self) -> None:
        self.is_sure, self.lines_before, self._any_chat = False, 0, False

    def is_vain(self, part: Part) -> bool:
        """Whether a part is of a file that could not be read to the end."""
        return part.stop is not None and part.sources[0] is self._failed

    def placed(self, found: BadLine | Remark) -> BadLine | Remark:
        """Return what was found in the next part, with its line counted from the file's first."""
        if isinstance(found, BadLine) and found.line:
            return replace(found, line=found.line + self.lines_before)
        return found

    def end(self, part: Part, its: PartEnd) -> Iterator[Remark]:
        """End a part; yield the remarks that come at the end of a file that was read in ranges."""
        if part.stop is None:
            return
        self.is_sure |= its.is_sure
        self.lines_before += its.lines
        self._any_chat |= its.any_chat
        if its.failed:
            self._failed = part.sources[0]
        elif part.is_last:
            yield from self._reading.texts.chat_remark(part.sources[0].name, self._any_chat)
            yield from end_of_file(part.sources[0])
        if its.failed or part.is_last:
            self._forget()
