"""Columns of numbers on disk, one for each text, so that memory does not grow with the texts.

What is mapped is in memory only as long as the system has room for it. It is written before it is
mapped: a full disk would otherwise end the process where it writes to a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 2**18  # numbers that are taken at once
LISTED = 2**14  # the same as numbers of Python, which take four times the memory


def column(path: Path, dtype: npt.DTypeLike, writable: bool = False) -> np.ndarray:
    """Map the numbers in a file; an empty one cannot be mapped."""
    if not path.stat().st_size:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r+" if writable else "r"))


def filled(path: Path, count: int, dtype: npt.DTypeLike, value: Any = 0) -> np.ndarray:
    """Write `count` times a value to a new file, and map it so that it can be changed."""
    part = np.full(min(count, CHUNK), value, dtype)
    with path.open("wb") as file:
        for begin in range(0, count, CHUNK):
            file.write(part[: count - begin].tobytes())
    return column(path, dtype, writable=True)


def spread(keys: np.ndarray, rows: np.ndarray, paths: Sequence[Path]) -> None:
    """Append each row to the file that the upper bits of its key number, in order.

    Args:
        keys: (n,) uint64.
        rows: (n, …) uint64.
        paths: a power of two of them.
    """
    parts = (keys >> np.uint64(64 - (len(paths).bit_length() - 1))).astype(np.int64)
    order = np.argsort(parts, kind="stable")
    append(rows[order], np.searchsorted(parts[order], np.arange(len(paths) + 1)), paths)


def append(rows: np.ndarray, bounds: np.ndarray, paths: Sequence[Path]) -> None:
    """Append to each file its rows, from its bound to the next one: (files + 1,) bounds."""
    for part in np.flatnonzero(np.diff(bounds)).tolist():
        with paths[part].open("ab") as file:
            file.write(rows[bounds[part] : bounds[part + 1]].tobytes())


def taken(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield the uint64 numbers in each file, which is then removed; a file may not be there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            numbers = np.fromfile(path, np.uint64)
            path.unlink()
            yield numbers
