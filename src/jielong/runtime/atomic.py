"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from jielong.errors import DataError
from jielong.runtime.files import sync


@contextmanager
def publishing(out_dir: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `out_dir` when the block ends without an error.

    It lies beside `out_dir` under another name; what a killed process left there is removed, and
    a lock, which the kernel frees with its process, keeps two from writing at once.

    Raises:
        DataError: another process is at it, or the disk refuses.
    """
    out_dir = out_dir.resolve()
    workshop = out_dir.parent / f".{out_dir.name}.partial"
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workshop / "lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DataError(f"{out_dir}: another process is preparing it: wait for it to end") from None
    except OSError as error:
        raise DataError(f"{out_dir}: cannot be written: {error.strerror}") from None
    folder = workshop / "new"
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        yield folder
        _sync(folder)
        if out_dir.is_dir():
            out_dir.rmdir()  # it is empty, or this fails
        folder.rename(out_dir)
        sync(out_dir.parent)
    except OSError as error:
        raise DataError(f"{out_dir}: cannot be written: {error.strerror or error}") from None
    finally:
        lock.release()
        shutil.rmtree(workshop, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Brings every file below a folder, and its names, to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
