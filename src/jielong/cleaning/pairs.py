"""Pairs of texts that share a key: found part by part, and put in order on disk.

Keys are spread over parts by their upper bits, so that equal ones are in the same, and a part has
some 4 MB of them however many there are (beyond MOST_PARTS of them, it grows). What is found in the
parts is sorted by the texts, in the same way. So neither takes memory by the number of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jielong.cleaning.columns import CHUNK, append, column, spread, taken
from jielong.errors import DataError
from jielong.runtime.tasks import Tasks

PART_ROWS = 2**18  # keys of a part, about; some parts are in memory at once
MOST_PARTS = 2**12  # each chunk of keys is appended to so many files
SORTED_TEXTS = 2**16  # texts whose pairs are sorted together
WRITTEN = 2**18  # pairs that are written together
MOST_TEXTS = 2**32
HALF, LOWER = np.uint64(32), np.uint64(2**32 - 1)

Rows = tuple[np.ndarray, np.ndarray]  # keys, and the numbers of their texts, which ascend


class Pairs:
    """Distinct pairs of texts, in a file in order.

    A pair is a uint64: the number of a text in its upper half, and of another in its lower.

    Args:
        folder: a new one for the files.
        texts: how many there are.

    Raises:
        DataError: there are more than have a number of 32 bits.
    """

    def __init__(self, folder: Path, texts: int) -> None:
        if texts > MOST_TEXTS:
            raise DataError(
                f"{texts:,} texts are more than are compared with each other, {MOST_TEXTS:,}: "
                "clean them in parts"
            )
        folder.mkdir()
        self._all = folder / "all"
        self._held: list[np.ndarray] = []
        self._held_pairs = 0
        self._paths = [folder / f"{part:05d}" for part in range(-(-texts // SORTED_TEXTS))]

    def add(self, pairs: np.ndarray) -> None:
        """Add pairs, in any order."""
        if len(pairs):
            self._held.append(pairs)
            self._held_pairs += len(pairs)
        if self._held_pairs >= WRITTEN:
            self._write()

    def _write(self) -> None:
        pairs = np.sort(np.concatenate([np.empty(0, np.uint64), *self._held]))
        self._held, self._held_pairs = [], 0
        starts = np.arange(len(self._paths) + 1, dtype=np.uint64) * np.uint64(SORTED_TEXTS) << HALF
        starts[-1] = np.iinfo(np.uint64).max  # the last start may be 2**64
        bounds = np.searchsorted(pairs, starts)
        bounds[-1] = len(pairs)
        append(pairs, bounds, self._paths)

    def finish(self) -> np.ndarray:
        """Return all pairs in order, each once, as they are on disk."""
        self._write()
        with self._all.open("wb") as file:
            for pairs in taken(self._paths):
                pairs.sort()
                is_new = np.append(True, pairs[1:] != pairs[:-1])
                file.write(pairs[is_new].tobytes())
        return column(self._all, np.uint64)


def pair(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return pairs of numbers."""
    return upper.astype(np.uint64) << HALF | lower.astype(np.uint64)


def both(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of pairs, (pairs,) int64 each."""
    return (pairs >> HALF).astype(np.int64), (pairs & LOWER).astype(np.int64)


def of_numbers(pairs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return where the pairs of each number begin in the sorted pairs, and where they end: (2, n).

    The pairs may be on disk: they are looked at, and not copied.
    """
    starts = numbers.astype(np.uint64) << HALF
    return np.stack(
        (np.searchsorted(pairs, starts), np.searchsorted(pairs, starts | LOWER, "right"))
    )


def share_keys(
    tasks: Tasks,
    keys: np.ndarray,
    is_compared: Callable[[slice], np.ndarray],
    pairs: Pairs,
    folder: Path,
    with_first: bool,
) -> None:
    """Add the pairs of texts that have the same key.

    Args:
        keys: one for each text; they may be on disk.
        is_compared: which texts of a slice are meant.
        folder: for files while it works.
        with_first: pair each text with the first of the same key, else with the one before it.
    """
    for found in tasks.each(_pairs_of, with_first, _parts(keys, is_compared, folder)):
        pairs.add(found)


def _pairs_of(with_first: bool, rows: Rows) -> np.ndarray:
    """Return the pairs in a part: the task of a worker."""
    keys, numbers = rows
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_same = np.append(False, ordered[1:] == ordered[:-1])
    others = np.arange(len(order)) - 1
    if with_first:
        others = np.maximum.accumulate(np.where(is_same, 0, np.arange(len(order))))
    return pair(numbers[order[is_same]], numbers[order[others[is_same]]])


def _parts(
    keys: np.ndarray, is_compared: Callable[[slice], np.ndarray], folder: Path
) -> Iterator[Rows]:
    """Yield keys and numbers so that equal keys are together."""
    bits = min(max(0, -(-len(keys) // PART_ROWS) - 1), MOST_PARTS - 1).bit_length()
    chunks = _chunks(keys, is_compared)
    if not bits:
        found = list(chunks)
        if found:
            yield np.concatenate([k for k, _ in found]), np.concatenate([n for _, n in found])
        return
    paths = [folder / f"keys-{part:05d}" for part in range(2**bits)]
    for of_chunk, numbers in chunks:
        spread(of_chunk, np.stack((of_chunk, numbers.astype(np.uint64)), axis=1), paths)
    for flat in taken(paths):
        rows = flat.reshape(-1, 2)
        yield rows[:, 0].copy(), rows[:, 1].astype(np.int64)


def _chunks(keys: np.ndarray, is_compared: Callable[[slice], np.ndarray]) -> Iterator[Rows]:
    for begin in range(0, len(keys), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        rows = np.flatnonzero(is_compared(chunk))
        yield keys[chunk][rows], rows + begin
