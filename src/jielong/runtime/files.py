"""Syncing files to disk, their SHA-256 checksums, and whether a folder can be written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jielong.errors import ConfigError


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk (fsync)."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a folder
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file in hexadecimal, without loading the file whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


COPY = {  # the command that copies a folder to an address
    "s3": "aws s3 cp --recursive FOLDER {to}",
    "gs": "gcloud storage cp --recursive FOLDER {to}",
    "az": "az storage blob upload-batch --source FOLDER --destination {bucket} "
    "--destination-path {key}",
    "hf": "hf upload REPOSITORY FOLDER --repo-type dataset",
}


def check_local(folder: Path) -> None:
    """Refuse a folder whose name is a remote address: nothing is written there.

    Raises:
        ConfigError: it is one.
    """
    address = re.match("([a-z][a-z0-9+.-]+):/+(.*)", str(folder), re.IGNORECASE | re.DOTALL)
    if address is not None:
        to = f"{address[1]}://{address[2]}"
        bucket, _, key = address[2].partition("/")
        how = COPY.get(address[1].lower(), "").format(to=to, bucket=bucket, key=key or ".")
        then = f"copy it there: {how}" if how else "copy it there"
        raise ConfigError(f"{to}: results are written to local folders: give one, then {then}")


def check_writable(folder: Path) -> None:
    """Refuse, before any work, a folder that could not be written.

    Raises:
        ConfigError: it could not.
    """
    check_local(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{folder}: {there} is not a folder: choose another --out-dir")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder}: {there} cannot be written: choose another --out-dir")


def as_paths(given: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """Return one path, several or none as texts."""
    if given is None:
        return ()
    several = [given] if isinstance(given, str | Path) else given
    return tuple(map(str, several))
