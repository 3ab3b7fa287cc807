"""Writing an export whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jielong.errors import CheckpointError


@contextlib.contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end; on an error nothing is left behind.

    Raises:
        CheckpointError: `target` exists and is not empty, or the disk refuses.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists and is not empty; choose another folder")
    temporary = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()  # empty: Windows cannot rename onto it
        temporary.rename(target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_files(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, whose files move into `folder` at the end, beside what is there.

    Raises:
        CheckpointError: a file of that name is there already, or the disk refuses; then none moves.
    """
    folder = Path(folder)
    temporary = folder / f".export.{os.getpid()}.partial"
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            if (folder / path.name).exists():
                raise CheckpointError(f"{folder / path.name}: exists; choose another folder")
        for path in temporary.iterdir():
            path.rename(folder / path.name)
        made = []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:  # deepest first
            with contextlib.suppress(OSError):
                path.rmdir()
