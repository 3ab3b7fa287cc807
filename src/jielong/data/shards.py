"""A prepared dataset: a folder of flat token files, written once, read with random access.

`dataset.json`               the manifest: tokenizer, counts, settings, SHA-256 of every file
`train-00000.bin` …          tokens, little-endian uint16, or uint32 for vocabularies above 65,536
`train.documents.bin`        little-endian int64: start of each document in the split's tokens
`validation…`                the same files for the held-out documents, if any
`bad-lines.jsonl`            lines that could not be used, if any
`tokenizer/`                 the tokenizer that made the tokens
`sources.json`               size and mtime of each source, to detect changes
`verified.json`              size and mtime of each file at its last successful SHA-256 check

A document is bos + its tokens + eos; a tokenizer may have no bos or eos. A split is one stream of
tokens, cut into shards every `SHARD_TOKENS` tokens, so documents may span two shards.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jielong.data.open_files import OPEN
from jielong.errors import DataError
from jielong.runtime.files import sha256

FORMAT = "jielong-dataset-1"
SHARD_TOKENS = 2**27
MANIFEST = "dataset.json"
VERIFIED = "verified.json"
COUNTS = (  # the entries of the manifest's `counts` that the report needs
    *("bad_lines", "duplicate_share", "duplicates_exact", "shared_documents", "marked_documents"),
)
AGAIN = "delete the folder and prepare it again"


def token_dtype(vocab_size: int) -> np.dtype:
    """Return uint16 if it can hold every id of the vocabulary, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


class TokenStream:
    """The tokens of a split as one long array on disk. Threads may share a stream.

    Tokens are read through the file, not a memory map: a file truncated while in use then raises an
    error instead of crashing the process (SIGBUS), and resident memory does not grow. Of many
    shards only those read last stay open.

    Attributes:
        names: of its shards.
        shard_tokens: tokens of each shard but the last, which may have fewer.
        text_bytes: UTF-8 bytes of the text that the tokens encode.
    """

    def __init__(self, folder: Path, split: dict[str, Any], dtype: np.dtype) -> None:
        self.names: Sequence[str] = split["shards"]
        self.shard_tokens: int = split["shard_tokens"]
        self.text_bytes: int = split["text_bytes"]
        self._folder, self._split, self._dtype = folder, split, dtype
        self._length: int = split["tokens"]
        self._lock = threading.Lock()
        self._owner = OPEN.owner(self)

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def documents(self) -> np.ndarray:
        """Return the start of each document in the stream: (documents,) int64, memory-mapped."""
        split = self._split
        path = self._path(split["documents_file"])
        return np.memmap(path, dtype="<i8", mode="r", shape=(split["documents"],))

    def at_hand(self) -> list[tuple[int, int]]:
        """Return the stretches, from token to token, that can be read without waiting."""
        return [(0, self._length)]

    def expect(self, now: Sequence[int], soon: Sequence[int]) -> None:
        """Take note of the shards that are read now and soon; local ones are there anyway."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read tokens [start, stop): (stop − start,) uint16 or uint32.

        Raises:
            DataError: a file is gone, or was truncated since the dataset was opened.
        """
        if not 0 <= start <= stop <= self._length:
            raise IndexError(f"tokens {start}:{stop} of a stream of {self._length}")
        out = np.empty(stop - start, dtype=self._dtype)
        filled = 0
        while filled < len(out):
            shard, offset = divmod(start + filled, self.shard_tokens)
            count = min(len(out) - filled, self.shard_tokens - offset)
            self._read_into(shard, offset, out[filled : filled + count])
            filled += count
        return out

    def _read_into(self, shard: int, offset: int, out: np.ndarray) -> None:
        view = out.data.cast("B")
        position = offset * self._dtype.itemsize
        file = self._file(shard)
        while view:
            got = self._read_at(file, position, view)
            if not got:
                path = self._folder / self.names[shard]
                raise DataError(f"{path}: ends too soon, at byte {position}: {AGAIN}")
            view, position = view[got:], position + got

    def _file(self, shard: int) -> BinaryIO:
        return OPEN.get(self._owner, shard, lambda: self._open(self.names[shard]))

    def _open(self, name: str) -> BinaryIO:
        path = self._folder / name
        try:
            return path.open("rb", buffering=0)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}): {AGAIN}") from None

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _read_at(self, file: BinaryIO, position: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(file.fileno(), [view], position)
        with self._lock:  # without preadv, threads share the file position
            file.seek(position)
            return file.readinto(view)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Dataset:
    """An open prepared dataset; `validation` is None if nothing was held out."""

    folder: Path
    manifest: dict[str, Any]
    train: TokenStream
    validation: TokenStream | None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what determines the tokens: tokenizer, splits and their files' checksums."""
        return str(self.manifest["fingerprint"])


def open_dataset(folder: str | Path, verify: bool = True) -> Dataset:
    """Open a prepared dataset; with `verify`, check the SHA-256 of every file first.

    Raises:
        DataError: the folder has no dataset, or a file is missing, truncated or altered.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        _check_file(folder / name, entry, verify)
    dtype = np.dtype(manifest["dtype"])
    streams = {
        name: TokenStream(folder, split, dtype) for name, split in manifest["splits"].items()
    }
    return Dataset(folder, manifest, streams["train"], streams.get("validation"))


def verify_dataset(folder: Path, again: bool = False) -> None:
    """Check every file of a prepared dataset against its SHA-256 in the manifest.

    Reading a large dataset takes long. So a successful check is recorded in `verified.json` with
    the size and mtime of each file, and skipped while these stay the same.

    Args:
        again: check every file in any case.

    Raises:
        DataError: a file is missing, truncated or altered.
    """
    manifest = read_manifest(folder)
    if not again and _verified_before(folder, manifest):
        return
    for name, entry in manifest["files"].items():
        _check_file(folder / name, entry, verify=True)
    mark_verified(folder, manifest)


def mark_verified(folder: Path, manifest: dict[str, Any]) -> None:
    """Record that the files, in their current state, match the manifest."""
    record = {"fingerprint": manifest["fingerprint"], "files": _stamps(folder, manifest)}
    with contextlib.suppress(OSError):  # in a read-only folder, every start verifies again
        (folder / VERIFIED).write_text(json.dumps(record, indent=1))


def _verified_before(folder: Path, manifest: dict[str, Any]) -> bool:
    try:
        record = json.loads((folder / VERIFIED).read_text())
        wanted = {"fingerprint": manifest["fingerprint"], "files": _stamps(folder, manifest)}
        return bool(record == wanted)
    except (OSError, ValueError, RecursionError):
        return False


def _stamps(folder: Path, manifest: dict[str, Any]) -> dict[str, list[int]]:
    """Return the size in bytes and the mtime in nanoseconds of each file."""
    stats = {name: (folder / name).lstat() for name in manifest["files"]}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared dataset and check it against its own fingerprint.

    Raises:
        DataError: it is missing or damaged, or names files outside the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path}: no such file; make the dataset with `jielong prepare`")
    try:
        text = path.read_bytes()
    except OSError:
        text = b""
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, name: str) -> dict[str, Any]:
    """Return the manifest of a prepared dataset; `name` is its file's, for messages.

    Raises:
        DataError: it is damaged, or names files outside the folder.
    """
    try:
        manifest: dict[str, Any] = json.loads(text.decode("utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"{name}: format {manifest['format']!r} is not {FORMAT!r}: {AGAIN}")
        sound = manifest["fingerprint"] == fingerprint_of(manifest) and _is_consistent(manifest)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DataError(f"{name}: the manifest is damaged: {AGAIN}")
    return manifest


def _is_consistent(manifest: dict[str, Any]) -> bool:
    """Return whether the splits' files are listed, of the right size, and in the folder."""
    files, known = manifest["files"], token_dtype(manifest["vocab_size"])
    if manifest["dtype"] != known.str or "train" not in manifest["splits"]:
        return False
    for split in manifest["splits"].values():
        numbers = [split[key] for key in ("tokens", "documents", "text_bytes", "shard_tokens")]
        if not all(type(number) is int and number > 0 for number in numbers[:2] + numbers[3:]):
            return False
        tokens, documents, text_bytes, shard_tokens = numbers
        full, last = len(split["shards"]) - 1, split["shards"][-1]
        rest = tokens - full * shard_tokens
        sizes = dict.fromkeys(split["shards"], shard_tokens * known.itemsize)
        sizes |= {last: rest * known.itemsize, split["documents_file"]: 8 * documents}
        if not 0 < rest <= shard_tokens or type(text_bytes) is not int:
            return False
        if any(files[name]["bytes"] != size for name, size in sizes.items()):
            return False
    counts = [manifest["counts"][key] for key in COUNTS]
    plain_names = all(re.fullmatch(r"\w[\w.-]*", name) for name in files)
    have_sums = all(isinstance(entry["sha256"], str) for entry in files.values())
    return plain_names and have_sums and all(isinstance(count, int | float) for count in counts)


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """Compute `Dataset.fingerprint` from the rest of a manifest."""
    keys = ("format", "tokenizer_fingerprint", "vocab_size", "special_ids", "dtype", "splits")
    content = {key: manifest[key] for key in (*keys, "files")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    try:
        if path.is_symlink():
            raise DataError(f"{path}: is a link, not a regular file: {AGAIN}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DataError(f"{path}: has {size} bytes, not {entry['bytes']}: {AGAIN}")
        if verify and sha256(path) != entry["sha256"]:
            raise DataError(f"{path}: its content has changed or is damaged: {AGAIN}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): {AGAIN}") from None
