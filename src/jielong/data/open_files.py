"""Files that stay open for reading, at most so many in a process, whatever number it reads from."""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import BinaryIO

MOST_OPEN = 256
SHARE = 4  # of the files that the system lets a process open, one in so many is used here


def most_open() -> int:
    """Return how many files may stay open: `MOST_OPEN`, or fewer where the system allows few."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # of Unix alone
        import resource

        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if allowed != resource.RLIM_INFINITY:
            return max(1, min(MOST_OPEN, allowed // SHARE))
    return MOST_OPEN


class OpenFiles:
    """Open files of any number of owners, of which those used last stay open. Threads share it.

    A file that is given up is closed once no thread reads it any more.
    """

    def __init__(self, most: Callable[[], int] = most_open) -> None:
        self._most = most
        self._files: OrderedDict[tuple[int, int], BinaryIO] = OrderedDict()
        self._changing = threading.RLock()  # a collected owner may end within
        self._owners = itertools.count()

    def owner(self, of: object) -> int:
        """Return a number for an object whose files are closed when it is gone."""
        number = next(self._owners)
        weakref.finalize(of, self.close, number).atexit = False
        return number

    def get(self, owner: int, number: int, open_file: Callable[[], BinaryIO]) -> BinaryIO:
        """Return a file of an owner, opened if it is not open."""
        key = owner, number
        with self._changing:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        file = open_file()  # may take long: others go on meanwhile
        with self._changing:
            self._files[key] = file
            self._files.move_to_end(key)
            while len(self._files) > self._most():
                self._files.popitem(last=False)
        return file

    def close(self, owner: int, but: Collection[int] = ()) -> None:
        """Give up the files of an owner, but those of some numbers."""
        with self._changing:
            for key in list(self._files):
                if key[0] == owner and key[1] not in but:
                    self._files.pop(key, None)


OPEN = OpenFiles()
