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
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jielong.data.sources.containers import BUFFER_BYTES, open_bytes
from jielong.data.sources.encodings import Utf8Stream
from jielong.data.sources.items import (
    WHOLE_FILE,
    BadLine,
    Document,
    Item,
    Remark,
    UnreadableFileError,
)
from jielong.data.sources.json_rows import looks_like_json, read_json
from jielong.data.sources.losses import Losses
from jielong.data.sources.readers import read_text
from jielong.data.sources.samples import fetch_sample
from jielong.data.sources.tables import read_hub, read_table
from jielong.errors import DataError

__all__ = [
    "BadLine",
    "Document",
    "DocumentTexts",
    "Item",
    "Remark",
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
    ".arrow": "arrow",
}
TABLES = ("parquet", "arrow")
COMPRESSIONS = (".gz", ".zst")
READABLE = ", ".join(KINDS) + ", optionally followed by .gz or .zst"


@dataclass(frozen=True)
class Source:
    """One input to read.

    Attributes:
        name: shown in messages.
        kind: jsonl, text, parquet, arrow, stdin or hub.
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


def read_documents(
    sources: Sequence[Source], text_field: str, encoding: str | None = None
) -> Iterator[Item]:
    """Yield the documents of `sources` in order, and a `BadLine` for everything left out.

    Of several files, one that cannot be read is left out; a single one is an error.

    Args:
        encoding: of the files that are not UTF-8.

    Raises:
        DataError: the only source, or standard input, or a corpus from the Hub, cannot be read.
    """
    sizes = [source.size for source in sources]
    known = sum(size for size in sizes if size is not None)
    limit = 2**16 if None in sizes else min(max(known // 64, 2**12), 2**20)
    for source in sources:
        try:
            yield from _read(source, text_field, limit, encoding)
        except (UnreadableFileError, OSError) as raised:
            error = _unreadable(source, raised)
            if len(sources) == 1 or source.size is None:
                raise error from None
            yield BadLine(source.name, 0, error.reason, WHOLE_FILE, error.size or source.size)


def _unreadable(source: Source, error: UnreadableFileError | OSError) -> UnreadableFileError:
    if isinstance(error, UnreadableFileError):
        return error
    return UnreadableFileError(source.name, f"cannot be read: {error.strerror or error}")


class DocumentTexts:
    """Iterates over the texts of `read_documents`, and accounts for what is left out.

    Attributes:
        losses: the account of the last iteration.
    """

    def __init__(
        self, sources: Sequence[Source], text_field: str, encoding: str | None = None
    ) -> None:
        self._arguments = sources, text_field, encoding
        self.losses = Losses()

    def __iter__(self) -> Iterator[str]:
        self.losses = Losses()
        for document in self.losses.documents(read_documents(*self._arguments)):
            yield document.text

    @contextmanager
    def checked(self, allow_loss: bool) -> Iterator[None]:
        """Check, after the block has read the texts, that not too much was left out.

        Raises:
            DataError: that of the block, usually for lack of text, with what was left out first; or
                a fifth of the text or more was left out, and that is not allowed.
        """
        try:
            yield
        except DataError as error:
            bad = self.losses.first
            if bad is None:
                raise
            raise DataError(f"{error} ({bad.message})") from None
        self.losses.check(allow_loss)


def _read(source: Source, text_field: str, text_limit: int, encoding: str | None) -> Iterator[Item]:
    if source.kind == "hub":
        yield from read_hub(source.name, text_field)
    elif source.kind in TABLES:
        assert source.path is not None
        yield from read_table(source.path, source.name, source.kind, text_field)
    else:
        with open_bytes(source.path, source.name) as plain:
            utf8 = Utf8Stream(plain, source.name, encoding)
            stream: io.BufferedReader = io.BufferedReader(utf8, BUFFER_BYTES)
            head = stream.peek(1)
            is_json = source.kind == "jsonl"
            is_json |= source.kind == "stdin" and head.lstrip()[:1] == b"{"
            if not is_json and looks_like_json(head):
                is_json = True
                yield Remark(source.name, "read as JSON, which it holds")
            if is_json:
                yield from read_json(stream, source.name, text_field)
            else:
                yield from read_text(stream, source.name, text_limit)
            if utf8.used:
                yield Remark(source.name, f"read as {utf8.used}")


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
        kind = KINDS.get("".join(suffixes[-1:]))
        return None if kind in TABLES else kind
    return KINDS.get("".join(suffixes[-1:]))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
