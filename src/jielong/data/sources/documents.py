"""Files, folders, globs, standard input and named corpora → documents, one by one.

A plain text file (.txt, .md) is one document, unless it is longer than 1/64 of all the text (at
least 4 KiB, at most 1 MiB). A longer file is cut into documents of at most that length, preferably
at blank lines. So a folder of stories keeps its stories whole, and a single long file still gives
enough documents to hold some out.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from jielong.errors import DataError

__all__ = [
    "BadLine",
    "Document",
    "DocumentTexts",
    "Item",
    "Source",
    "expand_sources",
    "read_documents",
]

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".md": "text",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".zst")
READABLE = ", ".join(KINDS) + ", optionally followed by .gz or .zst"


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
    """Find the sources that `paths` name.

    Args:
        paths: files, folders (searched recursively, in sorted order), globs, `-` for standard
            input, `sample:NAME` or `hf://NAME[:CONFIG][@SPLIT]`.

    Raises:
        DataError: a path does not exist, matches nothing, or is of an unknown kind.
    """
    sources: list[Source] = []
    for path in map(str, paths):
        if path == "-":
            sources.append(Source("standard input", "stdin"))
        elif path.startswith("hf://"):
            sources.append(Source(path, "hub"))
        elif path.startswith("sample:"):
            files = [_file_source(p) for p in fetch_sample(path.removeprefix("sample:"))]
            sources += [dataclasses.replace(file, name=path) for file in files]
        else:
            sources += [_file_source(p) for p in _files(path)]
    if not sources:
        raise DataError("no text given: name a file, folder or sample with --data-path")
    return sources


def read_documents(sources: Sequence[Source], text_field: str) -> Iterator[Item]:
    """Yield the documents of `sources` in order, and a `BadLine` for every unusable line.

    Raises:
        DataError: a source cannot be read, a compressed or Parquet file is
            damaged, or a Parquet file has no column `text_field` of strings.
    """
    sizes = [source.size for source in sources]
    known = sum(size for size in sizes if size is not None)
    limit = 2**16 if None in sizes else min(max(known // 64, 2**12), 2**20)
    for source in sources:
        try:
            yield from _read(source, text_field, limit)
        except OSError as error:
            raise DataError(f"{source.name}: cannot be read: {error.strerror or error}") from None


class DocumentTexts:
    """Iterates over the texts of `read_documents`; counts bad lines and remembers the first one."""

    def __init__(self, sources: Sequence[Source], text_field: str) -> None:
        self.sources, self.text_field = sources, text_field
        self.bad = 0
        self.first_bad: BadLine | None = None

    def __iter__(self) -> Iterator[str]:
        for item in read_documents(self.sources, self.text_field):
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


def _read(source: Source, text_field: str, text_limit: int) -> Iterator[Item]:
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
                yield from read_text(stream, source.name, text_limit)


def _files(path: str) -> list[Path]:
    """Return the readable files at a path or glob, sorted."""
    here = Path(path).expanduser()
    if here.is_file():
        return [here]
    if here.is_dir():
        inside = sorted(
            p for p in here.rglob("*") if p.is_file() and _kind(p) and not _hidden(p, here)
        )
        if not inside:
            raise DataError(f"{path}: no text in this folder; supported: {READABLE}")
        return inside
    if any(char in path for char in "*?["):
        matches = sorted(Path(p) for p in glob.glob(str(here), recursive=True))  # noqa: PTH207
        files = [p for p in matches if p.is_file() and _kind(p)]
        if not files:
            raise DataError(f"{path}: matches no readable file; supported: {READABLE}")
        return files
    parent = here.parent
    names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    close = difflib.get_close_matches(here.name, names, n=1)
    hint = f"; did you mean {parent / close[0]}?" if close else ""
    raise DataError(f"{path}: no such file or folder{hint}")


def _file_source(path: Path) -> Source:
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: unknown file type; supported: {READABLE}")
    stat = path.stat()
    return Source(str(path), kind, path, stat.st_size, stat.st_mtime_ns)


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
        return None if suffixes[-1:] == [".parquet"] else KINDS.get("".join(suffixes[-1:]))
    return KINDS.get("".join(suffixes[-1:]))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
