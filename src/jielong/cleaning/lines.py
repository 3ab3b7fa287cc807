"""Lines that many texts have: menus, notices, headers of pages.

They are counted on disk, so that memory holds only those that are to be dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jielong.cleaning.columns import spread, taken
from jielong.cleaning.staging import Stage, Texts
from jielong.data.prepare.split import text_hash
from jielong.runtime.tasks import Tasks

PART_BYTES = 2**26  # of text, whose lines are counted together: some 6 MB of hashes
MOST_PARTS = 2**12
WRITTEN = 2**18  # hashes that are written together
LEAST_BYTES = 20  # of a line: names of speakers, braces and the like come back in any text

Places = Mapping[int, int]  # the repeated lines of a text: the hash of each, by its number


def repeated_lines(
    stage: Stage, least: int, tasks: Tasks, folder: Path, progress: Callable[[int], None]
) -> np.ndarray:
    """Return the hashes of the lines that at least `least` texts have, sorted, (lines,) uint64.

    Args:
        folder: a new one for files while it works: 8 bytes for each line of each text.
        progress: called with the number of each text.
    """
    folder.mkdir()
    bits = min(-(-stage.size // PART_BYTES), MOST_PARTS).bit_length()
    paths = [folder / f"{part:05d}" for part in range(2**bits)]
    for hashes in _together(tasks.each(_hashes, None, stage.batches(progress))):
        spread(hashes, hashes, paths)
    found = list(tasks.each(_often, least, taken(paths)))
    return np.concatenate([np.empty(0, np.uint64), *found])


def places_of_lines(stage: Stage, repeated: np.ndarray, tasks: Tasks) -> Iterator[Places]:
    """Yield the repeated lines of each text that is still there, in order."""
    for places in tasks.each(_places, repeated, stage.batches()):
        yield from places


class RepeatedLines:
    """Takes repeated lines out of all texts but the first that has them.

    So nothing is lost wholly, should a text be there that often in other frames.
    """

    def __init__(self) -> None:
        self._seen = set[int]()

    def without(self, text: str, places: Places) -> tuple[str, list[str]]:
        """Return a text without its repeated lines, and those; texts must come in order."""
        if not places:
            return text, []
        kept: list[str] = []
        removed: list[str] = []
        here = set[int]()
        for number, line in enumerate(text.splitlines(keepends=True)):
            key = places.get(number)
            if key in self._seen:
                removed.append(line)
                continue
            kept.append(line)
            if key is not None:
                here.add(key)
        self._seen |= here
        return "".join(kept), [line.rstrip("\r\n") for line in removed]


def line_hash(line: str) -> int | None:
    """Return a hash of a line without the space in and around it.

    None for a line that is too short to be taken out, or has no letters.
    """
    plain = " ".join(line.split())
    data = plain.encode()
    if len(data) < LEAST_BYTES or not any(map(str.isalpha, plain)):
        return None
    return text_hash(data)


def _hashes(_: None, texts: Texts) -> np.ndarray:
    """Return the hashes of lines, each once for each text that has it: the task of a worker."""
    found: list[int] = []
    for text in texts:
        found += {key for key in map(line_hash, text.splitlines()) if key is not None}
    return np.array(found, np.uint64)


def _together(some: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same hashes, more of them at a time."""
    held: list[np.ndarray] = []
    for hashes in some:
        held.append(hashes)
        if sum(map(len, held)) >= WRITTEN:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _often(least: int, hashes: np.ndarray) -> np.ndarray:
    """Return those that are there so often, sorted: the task of a worker."""
    values, counts = np.unique(hashes, return_counts=True)
    return values[counts >= least]


def _places(repeated: np.ndarray, texts: Texts) -> list[Places]:
    """Return the repeated lines of each text: the task of a worker."""
    return [_places_in(text, repeated) for text in texts]


def _places_in(text: str, repeated: np.ndarray) -> Places:
    hashed = enumerate(map(line_hash, text.splitlines()))
    keys = {number: key for number, key in hashed if key is not None}
    hashes = np.fromiter(keys.values(), np.uint64, len(keys))
    at = np.searchsorted(repeated, hashes)
    is_repeated = repeated[np.minimum(at, len(repeated) - 1)] == hashes
    return {n: key for (n, key), yes in zip(keys.items(), is_repeated.tolist(), strict=True) if yes}
