"""Whether a copy in the cache has the content of its manifest; the answer is kept beside it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from jielong.data.shards import VERIFIED
from jielong.runtime.files import sha256


def is_sound(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a copy is there and has the right content; a damaged one is removed.

    Its SHA-256 is computed if its size or mtime is not the one at its last check.

    Args:
        entry: its `bytes` and `sha256` in the manifest.
    """
    try:
        if path.is_symlink() or path.stat().st_size != entry["bytes"]:
            raise ValueError
        if _stamps(path.parent).get(path.name) == _stamp(path):
            return True
        if sha256(path) != entry["sha256"]:
            raise ValueError
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        print(f"{path}: damaged in the cache; fetching it again", file=sys.stderr)
        path.unlink(missing_ok=True)
        return False
    mark_sound(path)
    return True


def mark_sound(path: Path) -> None:
    """Record that a copy, in its current state, has the right content."""
    folder = path.parent
    with contextlib.suppress(OSError), filelock.FileLock(folder / f".{VERIFIED}.lock"):
        stamps = _stamps(folder) | {path.name: _stamp(path)}
        partial = folder / f".{VERIFIED}.partial"
        # not synced to disk: were it lost, the copies would only be checked again
        partial.write_text(json.dumps({"files": stamps}))
        partial.replace(folder / VERIFIED)


def _stamps(folder: Path) -> dict[str, Any]:
    """Return size in bytes and mtime in nanoseconds of each copy, as of its last check."""
    try:
        found = json.loads((folder / VERIFIED).read_bytes())["files"]
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
