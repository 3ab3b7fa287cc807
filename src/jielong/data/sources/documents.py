"""Files, folders, globs, standard input and named corpora → documents, one by one.

A plain text file (.txt, .md) without separators (`text_units.py`) is one document, unless it is
longer than 1/64 of all the text (at least 4 KiB, at most 1 MiB). A longer file is cut into pieces
of at most that length, preferably at blank lines. So a folder of stories keeps its stories whole,
and a single long file still gives enough documents to hold some out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from jielong.data.sources.archives import read_archive
from jielong.data.sources.containers import open_bytes
from jielong.data.sources.document_files import SIGNATURES
from jielong.data.sources.file_kinds import ARCHIVES, TABLES, Suffixes, kind_of, unknown_kind
from jielong.data.sources.items import (
    WHOLE_FILE,
    BadLine,
    Document,
    Item,
    Remark,
    UnreadableFileError,
    shown,
)
from jielong.data.sources.listing import NotRead, list_files
from jielong.data.sources.losses import Losses, TooMuchLostError
from jielong.data.sources.names_read import MemberRules
from jielong.data.sources.reading import Reading, read_stream
from jielong.data.sources.remote import AnyPath, RemotePath, is_remote
from jielong.data.sources.row_splitting import split_rows
from jielong.data.sources.row_text import RowText
from jielong.data.sources.samples import fetch_sample
from jielong.data.sources.tables import read_hub, read_table
from jielong.data.sources.text_units import AUTOMATIC, Splitting
from jielong.errors import DataError

__all__ = [
    "BadLine",
    "Document",
    "DocumentTexts",
    "Item",
    "Remark",
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
        kind: a value of `file_kinds.KINDS`, stdin or hub.
        size, mtime_ns: size in bytes and modification time of a file; None for other sources.
        members: which members of an archive are read.
        remote: a file at a remote address, in place of `path`.
    """

    name: str
    kind: str
    path: Path | None = None
    size: int | None = None
    mtime_ns: int | None = None
    members: MemberRules = field(default_factory=MemberRules)
    remote: RemotePath | None = None

    @property
    def file(self) -> AnyPath | None:
        """What is opened, if it is a file."""
        return self.path or self.remote

    @property
    def identity(self) -> str | None:
        """The same for the same file, however it is named; None if it is no file."""
        if self.path is not None:
            return shown(self.path.resolve())
        return None if self.remote is None else self.remote.name

    @property
    def place(self) -> PurePath | None:
        """Where the file is, for its name and suffixes."""
        return self.path if self.remote is None else self.remote.pure


def expand_sources(paths: Sequence[str], suffixes: Suffixes = frozenset()) -> list[Source]:
    """Find the sources that `paths` name, as `find_sources` does."""
    return find_sources(paths, suffixes=suffixes)[0]


def find_sources(
    paths: Sequence[str], for_training: bool = False, suffixes: Suffixes = frozenset()
) -> tuple[list[Source], list[NotRead]]:
    """Find the sources that `paths` name, and what is left out of folders and globs.

    Args:
        paths: files, folders (searched recursively, in sorted order), globs, `-` for standard
            input, `sample:NAME`, `hf://NAME[:CONFIG][@SPLIT]`, or remote addresses of files or
            folders.
        for_training: leave out the test and validation splits of a folder.
        suffixes: of further files that are plain text.

    Raises:
        DataError: a path does not exist, matches nothing, or is of an unknown kind.
    """
    sources: list[Source] = []
    not_read: list[NotRead] = []
    for path in map(str, paths):
        if path == "-":
            sources.append(Source("standard input", "stdin"))
        elif is_remote(path):
            found, left_out = _remote_sources(path, MemberRules(suffixes, for_training))
            sources += found
            not_read += left_out
        elif path.startswith("hf://"):
            sources.append(Source(path, "hub"))
        elif path.startswith("sample:"):
            files = [
                _file_source(p, MemberRules()) for p in fetch_sample(path.removeprefix("sample:"))
            ]
            sources += [dataclasses.replace(file, name=path) for file in files]
        else:
            listing = list_files(path, for_training, suffixes)
            members = MemberRules(suffixes, for_training)
            sources += [_file_source(file, members) for file in listing.files]
            not_read += listing.not_read
    if not sources:
        raise DataError("no text given: name a file, folder or sample with --data-path")
    return sources, not_read


def read_documents(
    sources: Sequence[Source],
    text: str | RowText,
    encoding: str | None = None,
    splitting: Splitting = AUTOMATIC,
) -> Iterator[Item]:
    """Yield the documents of `sources` in order, and a `BadLine` for everything left out.

    Of several files, one that cannot be read is left out; a single one is an error.

    Args:
        text: what the text of a row is; a name alone is that of its field or column.
        encoding: of the files that are not UTF-8.
        splitting: where a text ends; a separator that is given also ends texts within a row.

    Raises:
        DataError: the only source, or standard input, or a corpus from the Hub, cannot be read.
    """
    reading = reading_of(sources, text, encoding, splitting)
    try:
        for source in sources:
            yield from read_source(source, reading, alone=len(sources) == 1)
    finally:
        reading.extractor.close()


def reading_of(
    sources: Sequence[Source],
    text: str | RowText,
    encoding: str | None = None,
    splitting: Splitting = AUTOMATIC,
) -> Reading:
    """Return how each of the sources is read; where plain text is cut depends on all of them."""
    sizes = [source.size for source in sources]
    known = sum(size for size in sizes if size is not None)
    limit = 2**16 if None in sizes else min(max(known // 64, 2**12), 2**20)
    return Reading(RowText.of(text), limit, encoding, splitting)


def read_source(source: Source, reading: Reading, alone: bool) -> Iterator[Item]:
    """Yield the documents of a source, and a `BadLine` for everything left out.

    Args:
        alone: it is the only one.

    Raises:
        DataError: it cannot be read, and is the only one, or no file.
    """
    try:
        items = split_rows(_read(source, reading), reading.splitting)
        yield from reading.texts.remarked(items, source.name)
        yield from end_of_file(source)
    except (UnreadableFileError, OSError) as raised:
        yield unreadable(source, raised, alone)


def end_of_file(source: Source) -> Iterator[Remark]:
    """Remark on a file that is another one than when its reading began."""
    if _has_changed(source):
        yield Remark(source.name, "has changed while it was read: prepare it again")


def unreadable(source: Source, raised: UnreadableFileError | OSError, alone: bool) -> BadLine:
    """Return what is left out with a file that cannot be read.

    Raises:
        UnreadableFileError: it is the only source, or is no file.
    """
    error = _unreadable(source, raised)
    if alone or source.kind in ("stdin", "hub"):
        raise error from None
    size = error.size or source.size or 1
    return BadLine(source.name, 0, error.reason, WHOLE_FILE, size)


def _remote_sources(address: str, members: MemberRules) -> tuple[list[Source], list[NotRead]]:
    from jielong.data.sources.remote_listing import list_remote

    files, not_read = list_remote(address, members)
    sources = [
        Source(file.name, kind, None, file.info.size, None, members, file) for file, kind in files
    ]
    return sources, not_read


def _has_changed(source: Source) -> bool:
    if source.remote is not None:
        return source.remote.has_changed()
    if source.path is None:
        return False
    try:
        return source.path.stat().st_mtime_ns != source.mtime_ns
    except OSError:  # it is gone
        return True


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
        self,
        sources: Sequence[Source],
        text: str | RowText,
        encoding: str | None = None,
        splitting: Splitting = AUTOMATIC,
    ) -> None:
        self._arguments = sources, text, encoding, splitting
        self._allow_loss = False
        self.losses = Losses()

    def __iter__(self) -> Iterator[str]:
        self.losses = Losses(self._allow_loss)
        for document in self.losses.documents(read_documents(*self._arguments)):
            yield document.text

    def read_elsewhere(self) -> tuple[Sequence[Source], Reading, Losses]:
        """Begin an iteration by others; return what to read and how, and the account to keep."""
        self.losses = Losses(self._allow_loss)
        return self._arguments[0], reading_of(*self._arguments), self.losses

    @contextmanager
    def checked(self, allow_loss: bool) -> Iterator[None]:
        """Check, while and after the block reads the texts, that not too much is left out.

        Raises:
            DataError: that of the block, usually for lack of text, with what was left out first; or
                a fifth of the text or more was left out, and that is not allowed.
        """
        self._allow_loss = allow_loss
        try:
            yield
        except TooMuchLostError:
            raise
        except DataError as error:
            bad = self.losses.first
            if bad is None:
                raise
            raise DataError(f"{error} ({bad.message})") from None
        self.losses.check()


def _read(source: Source, reading: Reading) -> Iterator[Item]:
    if source.kind == "hub":
        yield from read_hub(source.name, reading.texts)
    elif source.kind in TABLES:
        assert source.file is not None
        yield from read_table(source.file, source.name, source.kind, reading.texts)
    elif source.kind in ARCHIVES:
        assert source.file is not None
        yield from read_archive(source.file, source.name, source.kind, source.members, reading)
    else:
        own = SIGNATURES.get(source.kind, b"")
        with open_bytes(source.file, source.name, own) as plain:
            yield from read_stream(plain, source.name, source.kind, reading)


def _file_source(path: Path, members: MemberRules) -> Source:
    kind = kind_of(path, members.suffixes)
    if kind is None:
        with suppress(OSError), open_bytes(path, shown(path)):
            pass  # what it holds may say more than its name
        raise DataError(f"{path}: {unknown_kind(path)}")
    stat = path.stat()
    return Source(shown(path), kind, path, stat.st_size, stat.st_mtime_ns, members)
