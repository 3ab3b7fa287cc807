"""Fetching one file of a remote dataset: whole, checked by its hash, patient with its server."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jielong.data.cache_room import partial_of
from jielong.data.sources import remote
from jielong.data.sources.remote import (
    Info,
    Pause,
    Store,
    patiently,
    read_block,
    shown_address,
)
from jielong.data.sources.remote_listing import store_of
from jielong.errors import DataError
from jielong.runtime.files import sync

TRIES = 3  # to get what the manifest says
WHOLE_BYTES = 2**24  # asked for at once, of a file that is read whole
COPY_AGAIN = "copy the whole dataset there again"


def fetch(
    address: str, path: Path, entry: dict[str, Any], pause: Pause, beat: Callable[[], None]
) -> None:
    """Fetch a file to its place, where it appears once its content is what the manifest says.

    The caller holds the file's lock, and has taken room for its partial copy.

    Args:
        address: of the file.
        entry: its `bytes` and `sha256` in the manifest.
        pause: waits for so many seconds, before a server is asked again.
        beat: called as it comes in.

    Raises:
        DataError: it is not there, refused, or other than the manifest says; or the disk is full.
        OutageError: its server cannot be reached, or goes on failing.
    """
    shown, partial = shown_address(address), partial_of(path)
    try:
        for attempt in range(1, TRIES + 1):
            digest = _download(address, partial, entry["bytes"], pause, beat)
            if digest == entry["sha256"]:
                sync(partial)
                partial.replace(path)
                return
            if attempt < TRIES:
                print(f"{shown}: {_wrong(digest, entry)}; fetching it again", file=sys.stderr)
        raise DataError(f"{shown}: {_wrong(digest, entry)}, fetched {TRIES} times: {COPY_AGAIN}")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}), as {shown} is fetched: give a smaller "
            "--cache-gb, or set JIELONG_CACHE to a folder on another disk"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _wrong(digest: str, entry: dict[str, Any]) -> str:
    wanted = str(entry["sha256"])
    return f"damaged: its SHA-256 is {digest[:12]}…, not {wanted[:12]}… as in the manifest"


def _download(
    address: str, partial: Path, size: int, pause: Pause, beat: Callable[[], None]
) -> str:
    """Write a remote file's bytes to the partial copy; return their SHA-256."""
    shown = shown_address(address)
    store, info = find(address, pause)
    if info is None:
        raise DataError(f"{shown}: no such file, but the manifest names it: {COPY_AGAIN}")
    if info.size not in (None, size):
        raise DataError(
            f"{shown}: has {info.size:,} bytes, not {size:,} as in the manifest: {COPY_AGAIN}"
        )
    digest, at = hashlib.sha256(), 0
    with partial.open("r+b") as file:
        while at < size:
            end = min(size, at + remote.BLOCK_BYTES)
            data = read_block(store, info, shown, (at, end), size, pause)
            file.write(data)
            digest.update(data)
            at += len(data)
            beat()
    return digest.hexdigest()


def find(
    address: str, pause: Pause | None = None, again: bool = False
) -> tuple[Store, Info | None]:
    """Return the store of an address, and what it says of the file there, if there is one.

    Args:
        pause: waits for so many seconds, before a server is asked again.
        again: as that of `Store.info`.
    """
    store, key = store_of(address)
    return store, patiently(shown_address(address), lambda: store.info(key, again), pause=pause)


def read_whole(address: str, most_bytes: int) -> bytes | None:
    """Return the content of a small remote file; None if there is none.

    Raises:
        DataError: it is larger than `most_bytes`, or cannot be read.
    """
    store, info = find(address)
    return None if info is None else read_found(store, info, shown_address(address), most_bytes)


def read_found(store: Store, info: Info, shown: str, most_bytes: int) -> bytes:
    """Return the content of a small remote file that was found.

    Raises:
        DataError: it is larger than `most_bytes`, or cannot be read.
    """
    data = bytearray()
    size = most_bytes + 1 if info.size is None else info.size
    while len(data) < size <= most_bytes + 1:
        span = len(data), min(size, len(data) + WHOLE_BYTES)
        more = read_block(store, info, shown, span, info.size)
        if not more:
            break
        data += more
    if max(len(data), info.size or 0) > most_bytes:
        raise DataError(f"{shown}: has more than {most_bytes:,} bytes, which it never should")
    return bytes(data)
