"""Atomic writes: a file or folder appears complete under its name, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from jielong.errors import DataError, JielongError
from jielong.runtime.files import check_local, sync


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically: write a hidden sibling, sync it to disk and rename it.

    The sibling has a fixed name, so the next write reuses what a killed process left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(
    out_dir: Path, error: type[JielongError] = DataError, replace: bool = False
) -> Iterator[Path]:
    """Yield an empty folder, and rename it to `out_dir` if the block ends without an error.

    The work happens in a hidden sibling of `out_dir`. Leftovers of a killed process are removed. A
    file lock, which the kernel releases when its process ends, prevents two writers.

    Args:
        error: the class of error to raise.
        replace: a folder already at `out_dir` is replaced; otherwise it must be empty.

    Raises:
        JielongError: another process is writing the folder, or writing fails.
    """
    check_local(out_dir)
    # a folder to be replaced may be a link, which is then replaced itself
    out_dir = out_dir.parent.resolve() / out_dir.name if replace else out_dir.resolve()
    work_dir = out_dir.parent / f".{out_dir.name}.partial"
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(work_dir / "lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise error(f"{out_dir}: another process is writing it: wait for it to end") from None
    except OSError as problem:
        raise error(f"{out_dir}: cannot be written: {problem.strerror}") from None
    folder = work_dir / "new"
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        yield folder
        _sync_tree(folder)
        if replace and (out_dir.exists() or out_dir.is_symlink()):
            out_dir.rename(work_dir / "replaced")
        elif out_dir.is_dir():
            out_dir.rmdir()  # fails unless it is empty
        folder.rename(out_dir)
        sync(out_dir.parent)
    except OSError as problem:
        raise error(f"{out_dir}: cannot be written: {problem.strerror or problem}") from None
    finally:
        lock.release()
        shutil.rmtree(work_dir, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    """Sync every file below a folder, and the folder itself, to disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
