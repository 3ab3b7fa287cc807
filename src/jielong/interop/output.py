"""Atomic writes of exports."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jielong.errors import CheckpointError
from jielong.runtime.atomic import atomic_folder


@contextlib.contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder, which becomes `target` at the end; nothing remains after an error.

    Raises:
        CheckpointError: `target` exists and is not empty, another process is writing it, or
            writing fails.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists and is not empty; choose another folder")
    with atomic_folder(target, CheckpointError) as folder:
        yield folder


@contextlib.contextmanager
def new_files(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder, whose files move into `folder` at the end, beside existing files.

    Raises:
        CheckpointError: a file of the same name exists (no file is moved then), or writing fails.
    """
    folder = Path(folder)
    temporary = folder / f".export.{os.getpid()}.partial"
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    moved: list[Path] = []
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            if (folder / path.name).exists():
                raise CheckpointError(f"{folder / path.name}: exists; choose another folder")
        for path in temporary.iterdir():
            path.rename(folder / path.name)
            moved.append(folder / path.name)
        made, moved = [], []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in moved:  # all of them, or none
            path.unlink(missing_ok=True)
        for path in made:  # deepest first
            with contextlib.suppress(OSError):
                path.rmdir()
