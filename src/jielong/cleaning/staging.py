"""The texts that are left, on disk while they are cleaned, so that each can be read again.

What compares texts with each other has to go over them more than once, and standard input can be
read only once. A text takes its size on disk and some 30 bytes more; memory does not grow with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jielong.cleaning.columns import LISTED, column, filled

BATCH_BYTES, BATCH_TEXTS = 2**22, 2**12  # that are taken together


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text comes from: the file, and the line or row there, counted from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Texts:
    """Texts that follow each other, as they are sent.

    Attributes:
        data: all of them in UTF-8.
        sizes: bytes of each, (texts,) int64.
    """

    data: bytes
    sizes: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Put texts together."""
        return cls(b"".join(texts), np.fromiter(map(len, texts), np.int64, len(texts)))

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[str]:
        end = 0
        for size in self.sizes.tolist():
            begin, end = end, end + size
            yield self.data[begin:end].decode()


@dataclass(frozen=True)
class Places:
    """Where texts that follow each other come from.

    Attributes:
        names: of their files, as they follow each other.
        sources: which of the names each text has, (texts,) int64.
        lines: (texts,) int64.
    """

    names: tuple[str, ...]
    sources: np.ndarray
    lines: np.ndarray

    @classmethod
    def of(cls, places: Sequence[Place]) -> Places:
        """Put places together."""
        names: list[str] = []
        sources = np.empty(len(places), np.int64)
        for number, place in enumerate(places):
            if not names or place.source != names[-1]:
                names.append(place.source)
            sources[number] = len(names) - 1
        lines = np.fromiter((place.line for place in places), np.int64, len(places))
        return cls(tuple(names), sources, lines)


class Stage:
    """Texts by number, in the order in which they were added.

    Args:
        folder: a new one to keep them in.

    Attributes:
        kept: whether each is still there; (texts,) bool, once all are added.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        names = ("texts", "starts", "lines", "sources", "names", "name-starts")
        self._files = {name: (folder / name).open("w+b") for name in names}
        self._count = self._end = self._names = self._names_end = 0
        self._last_name: str | None = None
        self._named = (-1, "")  # the place that was asked for last
        self.kept = np.empty(0, bool)

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of all texts that were added."""
        return self._end

    def add(self, texts: Texts, places: Places) -> None:
        """Append texts."""
        again = bool(places.names) and places.names[0] == self._last_name
        first = self._names - again
        for name in places.names[again:]:
            self._add_name(name)
        starts = self._end + np.cumsum(texts.sizes) - texts.sizes
        self._files["texts"].write(texts.data)
        self._files["starts"].write(starts.tobytes())
        self._files["lines"].write(places.lines.tobytes())
        self._files["sources"].write((places.sources + first).tobytes())
        self._end += len(texts.data)
        self._count += len(texts)

    def _add_name(self, name: str) -> None:
        data = name.encode("utf-8", "surrogatepass")
        self._files["names"].write(data)
        self._files["name-starts"].write(np.int64(self._names_end).tobytes())
        self._names_end += len(data)
        self._names += 1
        self._last_name = name

    def finish(self) -> None:
        """End adding; from then on texts can be read and dropped."""
        for name, end in (("starts", self._end), ("name-starts", self._names_end)):
            self._files[name].write(np.int64(end).tobytes())
        for file in self._files.values():
            file.flush()
        self._starts, self._lines, self._sources, self._name_starts = (
            column(self._folder / name, np.int64)
            for name in ("starts", "lines", "sources", "name-starts")
        )
        self.kept = filled(self._folder / "kept", len(self), bool, value=True)

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Return the bytes of texts in UTF-8."""
        return self._starts[numbers + 1] - self._starts[numbers]

    def place(self, number: int) -> Place:
        """Return where a text comes from."""
        source = int(self._sources[number])
        if source != self._named[0]:
            begin, end = self._name_starts[source : source + 2].tolist()
            data = os.pread(self._files["names"].fileno(), end - begin, begin)
            self._named = source, data.decode("utf-8", "surrogatepass")
        return Place(self._named[1], int(self._lines[number]))

    def data(self, number: int) -> bytes:
        """Read a text in UTF-8."""
        begin, end = self._starts[number : number + 2].tolist()
        return os.pread(self._files["texts"].fileno(), end - begin, begin)

    def text(self, number: int) -> str:
        """Read a text."""
        return self.data(number).decode()

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the texts that are still there, in order."""
        for begin in range(0, len(self), LISTED):
            yield from (np.flatnonzero(self.kept[begin : begin + LISTED]) + begin).tolist()

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the texts that are still there, with their numbers, in order."""
        return ((number, self.text(number)) for number in self.numbers())

    def batches(self, progress: Callable[[int], None] = lambda number: None) -> Iterator[Texts]:
        """Yield the same without their numbers, several at a time.

        Args:
            progress: called with the number of the last of them.
        """
        for batch, numbers in _in_batches((self.data(n), n) for n in self.numbers()):
            progress(numbers[-1])
            yield batch

    def drop(self, number: int) -> None:
        """Take a text away."""
        self.kept[number] = False

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def batches_of(texts: Iterable[tuple[Place, str]]) -> Iterator[tuple[Texts, Places]]:
    """Yield texts and their places, several at a time."""
    batches = _in_batches((text.encode(), place) for place, text in texts)
    return ((batch, Places.of(places)) for batch, places in batches)


def _in_batches(texts: Iterable[tuple[bytes, Any]]) -> Iterator[tuple[Texts, list[Any]]]:
    """Yield texts and what belongs to each, several at a time."""
    batch: list[bytes] = []
    others: list[Any] = []
    size = 0
    for data, other in texts:
        batch.append(data)
        others.append(other)
        size += len(data)
        if size >= BATCH_BYTES or len(batch) == BATCH_TEXTS:
            yield Texts.of(batch), others
            batch, others, size = [], [], 0
    if batch:
        yield Texts.of(batch), others
