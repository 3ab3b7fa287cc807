"""Room on disk for copies of remote shards, shared by all processes of a machine.

The cache is a folder of folders, one for each dataset. A file's time of access says when a run last
counted on it, the soonest needed last, so what is least soon needed is the oldest file: it makes
room first. Processes agree by that time and by locks alone, so one that is killed leaves nothing
to repair.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from jielong.data.sources.samples import cache_folder
from jielong.errors import DataError

FREE_SHARE = 0.8  # of the disk's free space, unless the user says how much
IN_USE_S = 180.0  # since a run last counted on a file; runs say so more often
PARTIAL, LOCK = ".partial", ".lock"


def lock_of(path: Path) -> filelock.FileLock:
    """Return the lock of whoever fetches a file; the system frees that of a dead process."""
    return filelock.FileLock(path.with_name(f".{path.name}{LOCK}"))


def partial_of(path: Path) -> Path:
    """Return where a file is while it is fetched."""
    return path.with_name(f".{path.name}{PARTIAL}")


def unusable(path: Path, error: OSError) -> DataError:
    """Return the error where the disk refuses the cache, or a file of it."""
    return DataError(
        f"{path}: the cache for shards cannot be written ({error.strerror}): set JIELONG_CACHE to "
        "a folder on a local disk"
    )


def count_on(paths: Sequence[Path], since_ns: int, first: int = 0) -> None:
    """Say that a run needs these files, the soonest first; some may not be there.

    Args:
        since_ns: when that was found out.
        first: how many files are needed before them.
    """
    for place, path in enumerate(paths, start=first):
        _set_access(path, since_ns - place * 1_000_000)


def give_up(paths: Collection[Path]) -> None:
    """Say that a run needs these files no more for a while."""
    for path in paths:
        _set_access(path, 0)


def leaving_access_time(path: str, flags: int) -> int:
    """Open a file, as an `opener`, so that reading it is not taken for counting on it."""
    with contextlib.suppress(PermissionError):  # another user's
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    return os.open(path, flags)


def _set_access(path: Path, access_ns: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, ns=(access_ns, path.stat().st_mtime_ns))


@dataclass(frozen=True)
class Room:
    """The cache of a machine.

    Attributes:
        root: its folder.
        limit: most bytes that its files may have.
    """

    root: Path
    limit: int

    @classmethod
    def of(cls, gigabytes: float | None = None) -> Room:
        """Open the cache: `datasets` in the folder that JIELONG_CACHE names, or the platform's.

        Args:
            gigabytes: most that it may take, in 1e9 bytes; None: four fifths of what is free.

        Raises:
            DataError: it cannot be made.
        """
        root = cache_folder() / "datasets"
        try:
            root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(root).free
        except OSError as error:
            raise unusable(root, error) from None
        if gigabytes is not None:
            return cls(root, int(gigabytes * 1e9))
        return cls(root, int(FREE_SHARE * (free + sum(size for _, size, _ in _files(root)))))

    def take(self, path: Path, size: int, keep: Collection[Path], must: bool) -> bool | None:
        """Make room for a file, and take it under the name of its partial copy.

        Args:
            keep: what is needed sooner, and stays.
            must: it cannot wait: what other runs count on may go too.

        Returns:
            Whether there is room; None: there will be, once somebody is done with another file.

        Raises:
            OSError: the file cannot be made.
        """
        with filelock.FileLock(self.root / LOCK):
            partial = partial_of(path)
            files = [file for file in _files(self.root) if file[0] != partial]
            excess = sum(bytes_there for _, bytes_there, _ in files) + size - self.limit
            in_use = time.time() - IN_USE_S
            may_go = [file for file in files if file[0] not in keep and (must or file[2] <= in_use)]
            if excess > sum(bytes_there for _, bytes_there, _ in may_go):
                return False  # then nothing goes in vain
            for file, bytes_there, _ in sorted(may_go, key=lambda file: file[2]):
                if excess > 0 and _remove(file):
                    excess -= bytes_there
            if excess > 0:
                return None  # somebody is busy with one of them
            try:
                with partial.open("wb") as made:
                    made.truncate(size)  # so that it counts from now on
            except OSError:
                partial.unlink(missing_ok=True)
                raise
        return True


def _files(root: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield the shards in the cache, whole and partial: bytes, and when they were last needed."""
    for file in root.glob("*/*"):  # manifests and what is known of copies, too, have partial ones
        if file.name.endswith((".bin", f".bin{PARTIAL}")):
            with contextlib.suppress(OSError):  # it is gone
                stat = file.stat()
                yield file, stat.st_size, stat.st_atime


def _remove(file: Path) -> bool:
    """Remove a file; a partial one only where nobody fetches it."""
    whole = file
    if file.name.endswith(PARTIAL):
        whole = file.with_name(file.name.removesuffix(PARTIAL).removeprefix("."))
    lock = lock_of(whole)
    try:
        with lock.acquire(timeout=0):
            file.unlink()
    except (OSError, filelock.Timeout):  # is being fetched, or looked at
        return False
    return True
