"""Columns of numbers on disk, one for each text, so that memory does not grow with the texts.

What is mapped is in memory only as long as the system has room for it. It is written before it is
mapped: a full disk would otherwise end the process where it writes to a number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 2**18  # numbers that are taken at once


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
