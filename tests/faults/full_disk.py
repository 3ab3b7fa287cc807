"""A disk that is full while one call of a function writes: a limit on the size of files."""

from __future__ import annotations

import itertools
import resource
import signal
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # not by a call, which may be in a thread


def full_at(number: int, write: Callable[..., T], limit: int = 4096) -> Callable[..., T]:
    """A function whose call of that number, from 1, can write no more than `limit` bytes a file."""
    calls = itertools.count(1)

    def limited(*arguments: object) -> T:
        full = limit if next(calls) == number else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        try:
            return write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    return limited
