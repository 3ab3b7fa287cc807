"""Lines that many texts have: menus, notices, headers of pages.

They are counted on disk, so that memory holds only those that are to be dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jielong.cleaning.staging import Stage

PARTS = 64  # files that the lines are spread over; of 10 GB of text each has about 25 MB
BUFFERED = 2**16  # hashes of lines that are written together
LEAST_BYTES = 20  # of a line: names of speakers, braces and the like come back in any text


class RepeatedLines:
    """Finds the lines that many texts have, and takes them out of all but the first.

    So nothing is lost wholly, should a text be there that often in other frames.

    Args:
        stage: the texts.
        least: texts that must have a line.
        folder: for files while it works: 8 bytes for each line of each text.
        progress: called with the number of each text.

    Attributes:
        texts_with: by hash, how many texts have a repeated line.
    """

    def __init__(
        self, stage: Stage, least: int, folder: Path, progress: Callable[[int], None]
    ) -> None:
        self.texts_with: dict[int, int] = {}
        self._seen = set[int]()
        paths = [folder / f"lines-{part:02d}" for part in range(PARTS)]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for hashes in _batches(stage, progress):
                parts = (hashes >> np.uint64(58)).astype(np.int64)
                order = np.argsort(parts, kind="stable")
                bounds = np.searchsorted(parts[order], np.arange(PARTS + 1))
                for part in np.unique(parts).tolist():
                    of_part = hashes[order[bounds[part] : bounds[part + 1]]]
                    files[part].write(of_part.tobytes())
        for path in paths:
            values, counts = np.unique(np.fromfile(path, np.uint64), return_counts=True)
            often = counts >= least
            self.texts_with |= dict(
                zip(values[often].tolist(), counts[often].tolist(), strict=True)
            )
            path.unlink()

    def without(self, text: str) -> tuple[str, list[str]]:
        """Return a text without its repeated lines, and those; texts must come in order."""
        kept: list[str] = []
        removed: list[str] = []
        here = set[int]()
        for line in text.splitlines(keepends=True):
            key = line_hash(line)
            if key in self._seen:
                removed.append(line)
                continue
            kept.append(line)
            if key is not None and key in self.texts_with:
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
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _batches(stage: Stage, progress: Callable[[int], None]) -> Iterator[np.ndarray]:
    """Yield the hashes of the lines, each once for each text that has it."""
    batch: list[int] = []
    for number, text in stage.texts():
        progress(number)
        batch += {key for key in map(line_hash, text.splitlines()) if key is not None}
        if len(batch) >= BUFFERED:
            yield np.array(batch, np.uint64)
            batch = []
    if batch:
        yield np.array(batch, np.uint64)
