"""Files, folders, globs, standard input and named corpora → documents, one by one.

A plain text file (.txt, .md) without separators (`text_units.py`) is one document, unless it is
longer than 1/64 of all the text (at least 4 KiB, at most 1 MiB). A longer file is cut into pieces
of at most that length, preferably at blank lines. So a folder of stories keeps its stories whole,
and a single long file still gives enough documents to hold some out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jielong.data.sources.listing import READABLE, NotRead, kind_of, list_files
from jielong.data.sources.readers import (
    BadLine,
    Document,
    Item,
    open_bytes,
    read_hub,
    read_jsonl,
    read_parquet,
    read_text,
    skip_to_text,
)
from jielong.data.sources.samples import fetch_sample
from jielong.data.sources.text_blocks import split_row
from jielong.data.sources.text_units import AUTOMATIC, Splitting, ends_of_separator
from jielong.errors import DataError

__all__ = [
    "BadLine",
    "Document",
    "DocumentTexts",
    "Item",
    "Source",
    "expand_sources",
    "find_sources",
    "read_documents",
]


@dataclass(frozen=True)
class Source:
    """One input to read.

    Attributes:
        name: shown in messages.
        kind: jsonl, text, parquet, stdin or hub.
        size, mtime_ns: size in bytes and modification time of a file; None for other sources.
    """

    name: str
    kind: str
    path: Path | None = None
    size: int | None = None
    mtime_ns: int | None = None


def expand_sources(paths: Sequence[str]) -> list[Source]:
    """Find the sources that `paths` name, as `find_sources` does."""
    return find_sources(paths)[0]


def find_sources(
    paths: Sequence[str], for_training: bool = False
) -> tuple[list[Source], list[NotRead]]:
    """Find the sources that `paths` name, and what is left out of folders and globs.

    Args:
        paths: files, folders (searched recursively, in sorted order), globs, `-` for standard
            input, `sample:NAME` or `hf://NAME[:CONFIG][@SPLIT]`.
        for_training: leave out the test and validation splits of a folder.

    Raises:
        DataError: a path does not exist, matches nothing, or is of an unknown kind.
    """
    sources: list[Source] = []
    not_read: list[NotRead] = []
    for path in map(str, paths):
        if path == "-":
            sources.append(Source("standard input", "stdin"))
        elif path.startswith("hf://"):
            sources.append(Source(path, "hub"))
        elif path.startswith("sample:"):
            files = [_file_source(p) for p in fetch_sample(path.removeprefix("sample:"))]
            sources += [dataclasses.replace(file, name=path) for file in files]
        else:
            listing = list_files(path, for_training)
            sources += map(_file_source, listing.files)
            not_read += listing.not_read
    if not sources:
        raise DataError("no text given: name a file, folder or sample with --data-path")
    return sources, not_read


def read_documents(
    sources: Sequence[Source], text_field: str, splitting: Splitting = AUTOMATIC
) -> Iterator[Item]:
    """Yield the documents of `sources` in order, and a `BadLine` for every unusable line.

    Args:
        splitting: where a text ends; a separator that is given also ends texts within a row.

    Raises:
        DataError: a source cannot be read, a compressed or Parquet file is
            damaged, or a Parquet file has no column `text_field` of strings.
    """
    sizes = [source.size for source in sources]
    known = sum(size for size in sizes if size is not None)
    limit = 2**16 if None in sizes else min(max(known // 64, 2**12), 2**20)
    for source in sources:
        try:
            items = _read(source, text_field, limit, splitting)
            yield from _split_rows(items, splitting)
        except OSError as error:
            raise DataError(f"{source.name}: cannot be read: {error.strerror or error}") from None


class DocumentTexts:
    """Iterates over the texts of `read_documents`; counts bad lines and remembers the first one."""

    def __init__(
        self, sources: Sequence[Source], text_field: str, splitting: Splitting = AUTOMATIC
    ) -> None:
        self.sources, self.text_field, self.splitting = sources, text_field, splitting
        self.bad = 0
        self.first_bad: BadLine | None = None

    def __iter__(self) -> Iterator[str]:
        for item in read_documents(self.sources, self.text_field, self.splitting):
            if isinstance(item, Document):
                yield item.text
            else:
                self.bad += 1
                self.first_bad = self.first_bad or item

    @contextmanager
    def naming_first_bad_line(self) -> Iterator[None]:
        """Add the first bad line to a DataError raised in the block, usually for lack of text."""
        try:
            yield
        except DataError as error:
            bad = self.first_bad
            if bad is None:
                raise
            raise DataError(f"{error} ({bad.source}:{bad.line}: {bad.reason})") from None


def _split_rows(items: Iterator[Item], splitting: Splitting) -> Iterator[Item]:
    """Split the rows among `items` where a separator is given."""
    if splitting.given is None:
        yield from items
        return
    ends = ends_of_separator(splitting.given)
    for item in items:
        if isinstance(item, BadLine) or item.unit != "row":
            yield item
            continue
        parts = split_row(item.text, ends)
        if not parts:
            yield BadLine(item.source, item.line, "holds separators only")
        for text in parts:
            unit = (ends.unit or splitting.separator) if len(parts) > 1 else "row"
            yield Document(text, item.source, item.line, unit=unit)


def _read(source: Source, text_field: str, text_limit: int, splitting: Splitting) -> Iterator[Item]:
    if source.kind == "hub":
        yield from read_hub(source.name, text_field)
    elif source.kind == "parquet":
        assert source.path is not None
        yield from read_parquet(source.path, source.name, text_field)
    else:
        with open_bytes(source.path, source.name) as stream:
            first = skip_to_text(stream, source.name)
            if source.kind == "jsonl" and first == b"[":
                raise DataError(
                    f"{source.name}: holds one JSON array, not one object per line; "
                    f"convert it: jq -c '.[]' {source.name} > corpus.jsonl"
                )
            if source.kind == "jsonl" or (source.kind == "stdin" and first == b"{"):
                yield from read_jsonl(stream, source.name, text_field)
            else:
                yield from read_text(stream, source.name, text_limit, splitting)


def _file_source(path: Path) -> Source:
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path}: unknown file type; supported: {READABLE}")
    stat = path.stat()
    return Source(str(path), kind, path, stat.st_size, stat.st_mtime_ns)
