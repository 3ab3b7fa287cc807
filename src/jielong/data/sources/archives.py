"""Tar and zip archives of texts → documents, member by member.

Nothing is written to disk, so no member can leave a folder; links are not followed. What an archive
may grow to, and its table of contents, are limited.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from jielong.data.sources.containers import (
    BUFFER_BYTES,
    DAMAGED,
    Budget,
    WideError,
    open_bytes,
    open_packed,
)
from jielong.data.sources.document_files import SIGNATURES
from jielong.data.sources.items import WHOLE_FILE, BadLine, Item, Remark, UnreadableFileError
from jielong.data.sources.names_read import Chosen, MemberRules, choose
from jielong.data.sources.other_formats import HEAD_BYTES, TAR, ZIP, refuse_other_formats
from jielong.data.sources.reading import Reading, read_stream
from jielong.data.sources.remote import AnyPath

DIRECTORY_BYTES = 2**28  # of a zip's table of contents: some millions of members
HEADER_BYTES = 2**24  # of what a tar says about one member
END_BYTES = 2**16 + 22  # where a zip's end of the table may be

# what `zipfile` raises on a member that is damaged, or compressed in a way that it does not know
DAMAGED_ZIP = (
    *(zipfile.BadZipFile, NotImplementedError, lzma.LZMAError, struct.error, *DAMAGED),
    *(OSError, ValueError, OverflowError),
)

NO_FILE = "links or no plain files"
LOCKED = "encrypted"


def read_archive(
    path: AnyPath, name: str, kind: str, rules: MemberRules, reading: Reading
) -> Iterator[Item]:
    """Yield the documents of the members in their order.

    A member that cannot be read costs itself; an archive that is damaged, what comes after.

    Raises:
        UnreadableFileError: it is damaged, no archive, or grows beyond all measure.
    """
    read = _read_zip if kind == "zip" else _read_tar
    try:
        yield from read(path, name, rules, reading)
    except DAMAGED_ZIP as error:
        raise UnreadableFileError(name, _damaged(error)) from None


def _damaged(error: Exception) -> str:
    return f"the archive is damaged or cut short ({error}); download it again"


def _about(chosen: Chosen, name: str) -> Iterator[Item]:
    """Say what of an archive is not read."""
    counts = Counter(chosen.reasons.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    if not chosen.kinds:
        there = f" (not read: {reasons})" if reasons else ""
        yield BadLine(name, 0, f"no text in this archive{there}")
    elif reasons:
        yield Remark(name, f"{counts.total():,} members not read: {reasons}")


def _member(
    raw: Any, name: str, kind: str, size: int, budget: Budget, reading: Reading
) -> Iterator[Item]:
    """Yield the documents of a member, which may be compressed by itself."""
    try:
        packed = io.BufferedReader(raw, BUFFER_BYTES)
        plain = open_packed(packed, name, budget, SIGNATURES.get(kind, b""))
        yield from read_stream(plain, name, kind, reading)
    except UnreadableFileError as error:
        if budget.left < 0:
            raise
        yield BadLine(name, 0, error.reason, WHOLE_FILE, error.size or size)
    except (*DAMAGED_ZIP, tarfile.TarError, WideError) as error:
        yield BadLine(name, 0, f"is damaged or cannot be unpacked ({error})", WHOLE_FILE, size)


def _read_zip(path: AnyPath, name: str, rules: MemberRules, reading: Reading) -> Iterator[Item]:
    budget = Budget.of(path.stat().st_size, name)
    with path.open("rb") as file:
        refuse_other_formats(file.read(HEAD_BYTES), name, own=ZIP)
        _check_directory(file, name)
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            chosen = choose(((i.filename, _problem(i)) for i in infos), rules)
            yield from _about(chosen, name)
            for info in infos:
                if kind := chosen.kinds.get(info.filename):
                    shown = f"{name}/{info.filename}"
                    try:
                        raw = archive.open(info)
                    except DAMAGED_ZIP as error:
                        reason = f"is damaged or cannot be unpacked ({error})"
                        yield BadLine(shown, 0, reason, WHOLE_FILE, info.file_size)
                        continue
                    with raw:
                        yield from _member(raw, shown, kind, info.file_size, budget, reading)


def _problem(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return LOCKED
    is_link = (info.external_attr >> 28) == 0xA  # a Unix mode of a symbolic link
    return NO_FILE if is_link else ""


def _check_directory(file: io.BufferedReader, name: str) -> None:
    """Refuse a table of contents that would take too much memory.

    Raises:
        UnreadableFileError: it does.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - END_BYTES))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("it has no end")
    directory = struct.unpack_from("<L", tail, at + 12)[0]
    if directory == 0xFFFFFFFF:  # the true size is in an older part of the end
        older = tail.rfind(b"PK\x06\x06", 0, at)
        directory = struct.unpack_from("<Q", tail, older + 40)[0] if 0 <= older < at - 48 else size
    if min(directory, size) > DIRECTORY_BYTES:
        raise UnreadableFileError(name, "its table of contents is too long: make it a tar archive")


class _DamagedTarError(Exception):
    """The archive has no sound header where one should be."""


class _Header(tarfile.TarInfo):
    """The header of a member. Where none is sound, `tarfile` alone would end without a word."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError, LookupError, OverflowError) as error:
            raise _DamagedTarError(str(error) or type(error).__name__) from None


class _Stream(io.RawIOBase):
    """What `tarfile` reads; a header that goes on and on is an error."""

    def __init__(self, plain: io.BufferedReader) -> None:
        self._plain = plain
        self.taken = self._member = 0
        self._header_left: int | None = HEADER_BYTES  # None: within a member

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        data = self._plain.read(size)
        self.taken += len(data)
        if self._header_left is not None:
            self._header_left -= len(data)
            if self._header_left < 0:
                raise _DamagedTarError("a header is too long")
        return data

    def begin_member(self) -> None:
        """What comes is read in parts."""
        self._header_left, self._member = None, self.taken

    def end_member(self, size: int) -> None:
        """What comes is the rest of a member of `size` bytes, and the next one's header."""
        rest = max(0, size - (self.taken - self._member))
        self._header_left = HEADER_BYTES + rest


def _tar_members(
    path: AnyPath, name: str
) -> Generator[tuple[tarfile.TarFile, tarfile.TarInfo], None, None]:
    """Yield the members; what is not read of one is passed over before the next.

    Raises:
        UnreadableFileError: it is damaged; its size is what comes from there on.
    """
    with open_bytes(path, name, own=TAR) as plain:
        stream, offset = _Stream(plain), 0
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                    offset = tar.offset
                    stream.begin_member()
                    yield tar, info
                    stream.end_member(info.size)
        except (tarfile.TarError, _DamagedTarError) as error:
            stream.begin_member()
            while stream.read(BUFFER_BYTES):
                pass
            lost = max(1, stream.taken - offset)
            raise UnreadableFileError(name, _damaged(error), lost, lost) from None


def _read_tar(path: AnyPath, name: str, rules: MemberRules, reading: Reading) -> Iterator[Item]:
    budget = Budget.of(path.stat().st_size, name)
    names: list[tuple[str, str]] = []
    with closing(_tar_members(path, name)) as members:
        try:
            names.extend((i.name, _tar_problem(i)) for _, i in members if not i.isdir())
        except UnreadableFileError:
            if not names:
                raise  # else it comes again, after what can be read
    chosen = choose(names, rules)
    yield from _about(chosen, name)
    with closing(_tar_members(path, name)) as members:
        for tar, info in members:
            kind = None if _tar_problem(info) else chosen.kinds.get(info.name)
            raw = tar.extractfile(info) if kind else None
            if kind and raw is not None:
                yield from _member(raw, f"{name}/{info.name}", kind, info.size, budget, reading)


def _tar_problem(info: tarfile.TarInfo) -> str:
    return "" if info.isreg() and not info.issparse() else NO_FILE
