"""A prepared dataset at a remote address: shards come here as they are read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from jielong.data.cache_room import Room, unusable
from jielong.data.open_files import OPEN
from jielong.data.shard_cache import ShardCache
from jielong.data.shard_fetch import find, read_found, read_whole
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
from jielong.data.sources.remote import Info, is_remote, shown_address
from jielong.errors import DataError
from jielong.runtime.atomic import write_file

ORIGIN = "remote.json"  # of a dataset in the cache: where its shards are
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MOST_BYTES = 2**28  # of a manifest or a tokenizer
FRESH_S = 60.0  # after which is asked whether an address still has what was found there


@dataclass(frozen=True)
class _Found:
    """What was found at an address.

    Attributes:
        info: what the server said of the manifest; None if there is none.
        folder: the cache's for the dataset.
        asked_s: when, as `time.monotonic` says.
    """

    info: Info | None = None
    folder: Path | None = None
    asked_s: float = field(default_factory=time.monotonic)

    def is_fresh(self) -> bool:
        """Return whether that can be taken without asking again."""
        is_here = self.folder is None or (self.folder / MANIFEST).is_file()
        return is_here and time.monotonic() - self.asked_s <= FRESH_S

    def is_still(self, info: Info) -> bool:
        """Return whether a manifest is the one that was found, and its copy still there."""
        is_here = self.folder is not None and (self.folder / MANIFEST).is_file()
        return is_here and info.version is not None and info == self.info


_found: dict[str, _Found] = {}


def find_remote_dataset(address: str) -> Path | None:
    """Return the cache's folder for a prepared dataset at an address; None if there is none.

    The folder has the manifest and the tokenizer; `open_prepared` opens it.

    Raises:
        DataError: the manifest is damaged, or its server cannot be reached.
    """
    if not _may_be_dataset(address):
        return None
    known = _found.get(address)
    if known is None or not known.is_fresh():
        known = _found[address] = _look(address.rstrip("/"), known)
    return known.folder


def _may_be_dataset(address: str) -> bool:
    if not is_remote(address) or any(char in address for char in "*?[]"):
        return False  # a glob, or a file of the web that is asked for with a query
    path = urlsplit(address).path if address.startswith("http") else address
    return kind_of(PurePosixPath(path), frozenset()) is None


def _look(address: str, known: _Found | None) -> _Found:
    """Find out whether a dataset is at an address; only what is new there is fetched."""
    place = f"{address}/{MANIFEST}"
    try:
        store, info = find(place, again=known is not None)
    except UnreadableFileError:  # many servers refuse what they do not have
        return _Found()
    if info is None:
        return _Found()
    if known is not None and known.is_still(info):
        return _Found(info, known.folder)
    return _Found(info, _fetch(address, read_found(store, info, shown_address(place), MOST_BYTES)))


def _fetch(address: str, text: bytes) -> Path:
    """Write a manifest, and the tokenizer beside it there, to the cache; return the folder."""
    manifest = parse_manifest(text, shown_address(f"{address}/{MANIFEST}"))
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
        self._expected: tuple[Sequence[int], Sequence[int]] | None = None
        super().__init__(cache.folder, split, dtype)

    def _open(self, name: str) -> BinaryIO:
        return self._cache.open(name)

    def _path(self, name: str) -> Path:
        return self._cache.path(name)

    def at_hand(self) -> list[tuple[int, int]]:
        return self._stretches(i for i, name in enumerate(self.names) if self._cache.is_here(name))

    def read_now(self) -> list[tuple[int, int]]:
        """Return the stretches, from token to token, that are expected to be read now."""
        now, _ = self._expected or (range(len(self.names)), ())
        return self._stretches(sorted(now))

    def _stretches(self, shards: Iterable[int]) -> list[tuple[int, int]]:
        """Return from where to where there are shards, which are in ascending order."""
        size, found = self.shard_tokens, list[tuple[int, int]]()
        for shard in shards:
            start, stop = shard * size, min((shard + 1) * size, len(self))
            begin = found.pop()[0] if found and found[-1][1] == start else start
            found.append((begin, stop))
        return found

    def expect(self, now: Sequence[int], soon: Sequence[int]) -> None:
        if (now, soon) == self._expected:
            return
        self._expected = now, soon
        OPEN.close(self._owner, but={*now, *soon})  # an open file keeps its place on the disk
        names = self.names
        self._cache.expect([names[shard] for shard in now], [names[shard] for shard in soon])
