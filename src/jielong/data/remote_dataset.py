"""A prepared dataset at a remote address: shards come here as they are read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from jielong.data.cache_room import Room, unusable
from jielong.data.shard_cache import ShardCache
from jielong.data.shard_fetch import read_whole
from jielong.data.shards import (
    MANIFEST,
    VERIFIED,
    Dataset,
    TokenStream,
    open_dataset,
    parse_manifest,
    read_manifest,
    verify_dataset,
)
from jielong.data.sources.file_kinds import kind_of
from jielong.data.sources.items import UnreadableFileError
from jielong.data.sources.remote import is_remote, shown_address
from jielong.errors import DataError
from jielong.runtime.atomic import write_file

ORIGIN = "remote.json"  # of a dataset in the cache: where its shards are
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MOST_BYTES = 2**28  # of a manifest or a tokenizer
MOST_OPEN = 256  # files of a stream
FRESH_S = 60.0  # for which what was found at an address is not asked for again

_found: dict[str, tuple[float, Path | None]] = {}


def find_remote_dataset(address: str) -> Path | None:
    """Return the cache's folder for a prepared dataset at an address; None if there is none.

    The folder has the manifest and the tokenizer; `open_prepared` opens it.

    Raises:
        DataError: the manifest is damaged, or its server cannot be reached.
    """
    if not _may_be_dataset(address):
        return None
    when, folder = _found.get(address, (-FRESH_S, None))
    if time.monotonic() - when > FRESH_S or (folder and not (folder / MANIFEST).is_file()):
        folder = _fetch_manifest(address.rstrip("/"))
        _found[address] = time.monotonic(), folder
    return folder


def _may_be_dataset(address: str) -> bool:
    if not is_remote(address) or any(char in address for char in "*?[]"):
        return False  # a glob, or a file of the web that is asked for with a query
    path = urlsplit(address).path if address.startswith("http") else address
    return kind_of(PurePosixPath(path), frozenset()) is None


def _fetch_manifest(address: str) -> Path | None:
    place = f"{address}/{MANIFEST}"
    try:
        text = read_whole(place, MOST_BYTES)
    except UnreadableFileError:  # many servers refuse what they do not have
        return None
    if text is None:
        return None
    manifest = parse_manifest(text, shown_address(place))
    folder = Room.of().root / manifest["fingerprint"][:32]
    try:
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER:
            copy = folder / "tokenizer" / name
            if not copy.is_file() and (
                found := read_whole(f"{address}/tokenizer/{name}", MOST_BYTES)
            ):
                write_file(copy, found)
        write_file(folder / ORIGIN, json.dumps({"address": address}).encode())
        write_file(folder / MANIFEST, text)
    except OSError as error:
        raise unusable(folder, error) from None
    return folder


def is_copy(folder: Path) -> bool:
    """Return whether a folder is the cache's of a remote dataset, and so may lack shards."""
    return (folder / ORIGIN).is_file()


def open_prepared(folder: Path, cache_gb: float | None = None) -> Dataset:
    """Open a prepared dataset, local or the cache's of a remote one, without checking hashes.

    Args:
        cache_gb: most that the cache may have, in 1e9 bytes; None: a share of the free disk.

    Raises:
        DataError: the folder has no dataset, or a file is missing or of another size.
    """
    if not is_copy(folder):
        return open_dataset(folder, verify=False)
    manifest = read_manifest(folder)
    try:
        address = json.loads((folder / ORIGIN).read_bytes())["address"]
    except (OSError, ValueError, LookupError, TypeError):
        address = None
    if not isinstance(address, str) or not is_remote(address):
        raise DataError(f"{folder / ORIGIN}: damaged: delete {folder}, and run again")
    train = manifest["splits"]["train"]
    fixed = [train["documents_file"]]
    if held_out := manifest["splits"].get("validation"):
        fixed += [held_out["documents_file"], *held_out["shards"]]
    cache = ShardCache(address, folder, manifest["files"], fixed, Room.of(cache_gb))
    dtype = np.dtype(manifest["dtype"])
    streams = {n: RemoteStream(cache, split, dtype) for n, split in manifest["splits"].items()}
    return RemoteDataset(folder, manifest, streams["train"], streams.get("validation"), cache)


def verify_prepared(folder: Path, again: bool = False) -> None:
    """Check a prepared dataset as `verify_dataset` does; a remote one's files as they are read."""
    if not is_copy(folder):
        verify_dataset(folder, again)
    elif again:
        (folder / VERIFIED).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteDataset(Dataset):
    """An open prepared dataset whose shards are elsewhere."""

    cache: ShardCache


class RemoteStream(TokenStream):
    """The tokens of a split whose shards are fetched before they are read."""

    def __init__(self, cache: ShardCache, split: dict[str, Any], dtype: np.dtype) -> None:
        self._cache = cache
        self._opened: dict[int, BinaryIO] = {}
        self._changing = threading.Lock()
        self._expected: tuple[Sequence[int], Sequence[int]] | None = None
        super().__init__(cache.folder, split, dtype)

    def _open(self) -> None:
        """Nothing is here yet."""

    def _file(self, shard: int) -> BinaryIO:
        file = self._opened.get(shard)
        if file is None:
            file = self._cache.open(self.names[shard])
            with self._changing:
                while len(self._opened) >= MOST_OPEN:
                    self._opened.pop(next(iter(self._opened)))
                self._opened[shard] = file
        return file

    def _path(self, name: str) -> Path:
        return self._cache.path(name)

    def at_hand(self) -> list[tuple[int, int]]:
        size, here = self.shard_tokens, self._cache.is_here
        shards = [i for i, name in enumerate(self.names) if here(name)]
        return [(i * size, min((i + 1) * size, len(self))) for i in shards]

    def expect(self, now: Sequence[int], soon: Sequence[int]) -> None:
        if (now, soon) == self._expected:
            return
        self._expected = now, soon
        with self._changing:
            for shard in set(self._opened).difference(now, soon):
                del self._opened[shard]  # closed once no thread reads it
        names = self.names
        self._cache.expect([names[shard] for shard in now], [names[shard] for shard in soon])
