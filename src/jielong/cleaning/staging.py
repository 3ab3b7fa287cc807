"""The texts that are left, on disk while they are cleaned, so that each can be read again.

What compares texts with each other has to go over them more than once, and standard input can be
read only once. A text takes about 40 bytes of memory and its size on disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text comes from: the file, and the line or row there, counted from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class Stage:
    """Texts by number, in the order in which they were added.

    Args:
        path: the file to keep them in.

    Attributes:
        kept: whether each is still there; (texts,) bool, once all are added.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._starts, self._lines = array("q", [0]), array("q")
        self._sources: dict[str, int] = {}
        self._names: list[str] = []
        self._source = array("i")
        self.kept = np.empty(0, bool)

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, text: str, place: Place) -> None:
        """Append a text."""
        data = text.encode()
        self._file.write(data)
        self._starts.append(self._starts[-1] + len(data))
        self._lines.append(place.line)
        number = self._sources.setdefault(place.source, len(self._names))
        if number == len(self._names):
            self._names.append(place.source)
        self._source.append(number)

    def finish(self) -> None:
        """End adding; from then on texts can be read and dropped."""
        self._file.flush()
        self.kept = np.ones(len(self), bool)

    def size(self, number: int) -> int:
        """Return the bytes of a text in UTF-8."""
        return self._starts[number + 1] - self._starts[number]

    @property
    def bytes(self) -> int:
        """Bytes of the texts that are still there."""
        return int(np.diff(np.frombuffer(self._starts, np.int64))[self.kept].sum())

    def place(self, number: int) -> Place:
        """Return where a text comes from."""
        return Place(self._names[self._source[number]], self._lines[number])

    def text(self, number: int) -> str:
        """Read a text."""
        self._file.seek(self._starts[number])
        return self._file.read(self.size(number)).decode()

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the texts that are still there, with their numbers, in order.

        Others may be read, and this one dropped, meanwhile.
        """
        for number in np.flatnonzero(self.kept).tolist():
            if self.kept[number]:
                yield number, self.text(number)

    def drop(self, number: int) -> None:
        """Take a text away."""
        self.kept[number] = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
