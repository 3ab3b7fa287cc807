"""Files at remote addresses, read in blocks, so that a read goes on where a connection was lost.

A failure that may pass (a lost connection, a server that is throttled) is waited out for some
minutes. One that lasts ends the reading: rather no dataset than one without the files of an outage.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from jielong.data.sources.items import UnreadableFileError
from jielong.errors import DataError

BLOCK_BYTES = 2**22
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # each wait is twice the one before it
CONTACT_S = 30.0  # of failures, before anything of a file has come
PATIENCE_S = 300.0  # the same after that: a server restarts, a network comes back
CUT_TRIES = 5  # answers without data where there should be some: the file is cut short
TOLD_S = 4.0  # of waiting, from which on it is said
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
SECRET = re.compile(
    "sig|token|key|secret|passw|credential|auth|expires|^x-(amz|goog|ms)-|^(se|sp|sv|sr|st)$",
    re.IGNORECASE,
)

AZURE = ("az", "abfs", "abfss", "adl", "azure")
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", *AZURE)
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses of HTTP
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and AWS_REGION; for a "
    "public bucket AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login; for a "
    "public bucket GOOGLE_SKIP_SIGNATURE=true",
    "az": "set AZURE_STORAGE_CONNECTION_STRING; or AZURE_STORAGE_ACCOUNT_NAME, and with it "
    "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_USE_AZURE_CLI=true (after az login) "
    "or, for a public container, AZURE_SKIP_SIGNATURE=true",
    "hf": "run hf auth login, or set HF_TOKEN, and accept the dataset's terms on its page",
    "http": "put name and password in ~/.netrc",
}

Result = TypeVar("Result")
Pause = Callable[[float], None]  # waits for so many seconds


class RefusedError(Exception):
    """A server refuses a file for good; the message says why, with the fix, and holds no secret."""


class PassingError(Exception):
    """A failure that may pass.

    Args:
        wait_s: how long the server asks to wait.
        is_cut: the server answered, but without the data.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, is_cut: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.is_cut = wait_s, is_cut


class OutageError(DataError):
    """A server cannot be reached, or goes on failing."""


@dataclass(frozen=True)
class Info:
    """What a server says of a file.

    Attributes:
        key: its name there, as `Store.read` takes it.
        size: in bytes, if the server says so.
        version: changes with the content: an ETag, a hash, or the time of the last change.
    """

    key: str
    size: int | None
    version: str | None = None


class Store(Protocol):
    """Where remote files are. Its methods raise RefusedError and PassingError.

    Pickled it is only the address: who unpickles it connects itself, with credentials of its own.
    """

    def info(self, key: str, again: bool = False) -> Info | None:
        """Return what is known of a file; None if there is none of that name.

        Args:
            again: ask the server, whatever a library has kept of its earlier answers.
        """

    def find(self, folder: str) -> Iterator[Info]:
        """Yield all files below a folder."""

    def read(self, info: Info, start: int, end: int) -> bytes:
        """Return bytes from `start` on, at most up to `end`; none where the file ends."""


def kind_of_store(scheme: str) -> str:
    """Return the kind of store that an address's scheme stands for, as in `CREDENTIALS`."""
    same = {"https": "http", "s3a": "s3", "gcs": "gs", **dict.fromkeys(AZURE, "az")}
    return same.get(scheme, scheme)


def refusal(status: int, scheme: str, reason: str = "") -> Exception:
    """Return the error for a status of HTTP."""
    kind = kind_of_store(scheme)
    if status in (401, 403, 407):
        fix = CREDENTIALS.get(kind, "give credentials as its library wants them")
        return RefusedError(
            f"access is refused ({status}): credentials are missing or wrong: {fix}"
        )
    if status in PASSING:
        return PassingError(f"the server answers {status} {reason}".rstrip())
    if status in (404, 410):
        return RefusedError(f"is gone ({status})")
    hint = "; is AWS_REGION right?" if kind == "s3" and status in (301, 400) else ""
    return RefusedError(f"the server answers {status} {reason}".rstrip() + hint)


def is_remote(path: str) -> bool:
    """Whether a path is a remote address, and not the name of a dataset on the Hub."""
    address = ADDRESS.match(path)
    return bool(address) and not re.match("hf://(?!datasets/|buckets/)", path)


def shown_address(address: str) -> str:
    """Return an address without what may be secret: a password, a signature in the query."""
    parts = urlsplit(address)
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https"):
        scheme, _, rest = address.partition("://")
        host, slash, key = rest.partition("/")
        if parts.scheme not in AZURE:  # where it is CONTAINER@ACCOUNT
            host = host.rpartition("@")[2]
        return f"{scheme}://{host}{slash}{key}"
    known = [(k, v) for k, v in parse_qsl(parts.query, True) if not SECRET.search(k)]
    return urlunsplit((parts.scheme, place, parts.path, urlencode(known), ""))


@dataclass(frozen=True)
class RemotePath:
    """A remote file, in the place of a Path where one is read.

    Attributes:
        name: its address, to be shown.
    """

    store: Store
    info: Info
    name: str

    @property
    def pure(self) -> PurePosixPath:
        """The address as a path, for its suffixes."""
        return PurePosixPath(self.name.partition("?")[0])

    def stat(self) -> Any:
        """Return the size as `Path.stat` does; None if it is not known."""
        return SimpleNamespace(st_size=self.info.size)

    def open_raw(self) -> io.RawIOBase:
        """Open the file for reading, without a buffer."""
        return _Stream(self)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open the file for reading."""
        assert mode == "rb"
        return io.BufferedReader(self.open_raw(), BLOCK_BYTES)

    def has_changed(self) -> bool:
        """Whether the server has another version now."""
        now = patiently(self.name, lambda: self.store.info(self.info.key, again=True))
        return now is None or (now.size, now.version) != (self.info.size, self.info.version)


AnyPath = Path | RemotePath  # a file that is read


class _Stream(io.RawIOBase):
    """Reads a remote file in blocks, of which one is held."""

    def __init__(self, path: RemotePath) -> None:
        self._path, self._size = path, path.info.size
        self._at = 0
        self._block, self._block_at = b"", 0
        self._failure: UnreadableFileError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True  # but for what `seek` refuses

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._size is None:
            reason = "its server does not say how large it is, as this format needs: download it"
            raise UnreadableFileError(self._path.name, reason)
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning of the file")
        self._at = start + offset
        return self._at

    def readinto(self, out: Any) -> int:
        if self._size is not None and self._at >= self._size:
            return 0
        skip = self._at - self._block_at
        if not 0 <= skip < len(self._block):
            self._block, self._block_at, skip = self._read(), self._at, 0
        count = min(len(out), len(self._block) - skip)
        out[:count] = self._block[skip : skip + count]
        self._at += count
        return count

    def _read(self) -> bytes:
        """Return a whole block, however often the connection is lost: readers look at its head."""
        if self._failure is not None:
            raise self._failure  # of every member of an archive; the server is asked no more
        block, end = bytearray(), self._at + BLOCK_BYTES
        if self._size is not None:
            end = min(end, self._size)
        while (at := self._at + len(block)) < end:
            try:
                path = self._path
                data = read_block(path.store, path.info, path.name, (at, end), self._size)
            except UnreadableFileError as error:
                self._failure = error
                if not block:
                    raise
                break
            if not data:
                break
            block += data
        return bytes(block)


def read_block(
    store: Store,
    info: Info,
    name: str,
    span: tuple[int, int],
    size: int | None,
    pause: Pause | None = None,
) -> bytes:
    """Return what comes first of a span of a file, from byte to byte; it may be a part of that.

    Args:
        name: the file's address, to be shown.
        size: of the whole file; None if nobody knows: then nothing comes where it ends.
        pause: as that of `patiently`.

    Raises:
        UnreadableFileError, OutageError: as `patiently`.
    """
    at, end = span

    def some() -> bytes:
        data = store.read(info, at, end)
        if not data and size is not None:
            raise PassingError(f"ends after {at:,} of {size:,} bytes", is_cut=True)
        return data

    return patiently(name, some, PATIENCE_S if at else CONTACT_S, pause)


def patiently(
    name: str,
    call: Callable[[], Result],
    patience_s: float | None = None,
    pause: Pause | None = None,
) -> Result:
    """Call until there is an answer.

    Args:
        patience_s: seconds of waiting in all; default: `CONTACT_S`.
        pause: waits for so many seconds; default: sleep.

    Raises:
        UnreadableFileError: the server refuses, or the file is cut short there.
        OutageError: it goes on failing, with waits of `patience_s` in all.
    """
    patience_s = CONTACT_S if patience_s is None else patience_s
    wait, waited, tries, cuts = FIRST_WAIT_S, 0.0, 0, 0
    while True:
        try:
            return call()
        except RefusedError as error:
            raise UnreadableFileError(name, str(error)) from None
        except PassingError as error:
            tries, cuts = tries + 1, cuts + error.is_cut
            if cuts >= CUT_TRIES:
                raise UnreadableFileError(name, f"{error}: it is cut short there") from None
            seconds = max(wait, error.wait_s)
            waited += wait
            if waited > patience_s:
                raise OutageError(
                    f"{name}: {error}; tried {tries} times: run again when the server answers"
                ) from None
            if seconds >= TOLD_S:
                print(f"{name}: {error}; waiting {seconds:.0f} s", file=sys.stderr, flush=True)
            (pause or time.sleep)(seconds)
            wait = min(2 * wait, LONGEST_WAIT_S)
