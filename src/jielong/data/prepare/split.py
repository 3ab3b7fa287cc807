"""Which documents are held out, and how many repeat others: decided by a hash of the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jielong.data.shard_writer import ShardWriter

DISTINCT_KEPT = 2**18
WRITTEN_TOKENS = 2**20  # repeats of a document written at once


def text_hash(data: bytes) -> int:
    """64 bits of BLAKE2b: equal texts share it, whatever their file or order."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Encoded:
    """Documents as tokens: tokens (N,) uint32, the rest (documents,).

    `lengths` counts each document's tokens, `sizes` the UTF-8 bytes of its text.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, chosen: np.ndarray) -> Encoded:
        """The documents where `chosen` (documents,) is true."""
        tokens = self.tokens[np.repeat(chosen, self.lengths)]
        return Encoded(tokens, self.lengths[chosen], self.sizes[chosen], self.hashes[chosen])

    def cut(self, places: Sequence[int] | np.ndarray) -> list[Encoded]:
        """The documents in parts, each but the first beginning at one of `places`, in order."""
        begins = np.append(0, np.cumsum(self.lengths))[places]
        columns = [np.split(column, places) for column in (self.lengths, self.sizes, self.hashes)]
        return list(map(Encoded, np.split(self.tokens, begins), *columns))

    def repeated(self, count: int) -> Encoded:
        """The documents so many times over."""
        columns = (self.tokens, self.lengths, self.sizes, self.hashes)
        return Encoded(*(np.tile(column, count) for column in columns))

    def write(self, writer: ShardWriter) -> None:
        writer.write(self.tokens, self.lengths, int(self.sizes.sum()))


class HeldOutSplit:
    """Holds out each document whose hash lies in the lowest `fraction` of all hashes.

    Repeated texts fall on one side, and the choice depends on nothing but the text. As long as
    only one side has come up, the document nearest to the other is kept aside (with its repeats),
    and goes there in the end: so of two different documents or more, each side gets one.

    A batch is decided at once, and of the document kept aside only the number of repeats grows: so
    time is linear in the documents, and memory bounded.
    """

    def __init__(self, train: ShardWriter, validation: ShardWriter, fraction: float) -> None:
        self._writers = {False: train, True: validation}
        self._bound = np.uint64(min(int(fraction * 2**64), 2**64 - 1))
        self._spare: Encoded | None = None  # the document kept aside, once
        self._repeats = 0  # times it is to be written
        self._one_sided = bool(self._bound)  # only one side has come up

    def add(self, documents: Encoded) -> None:
        if len(documents) and self._one_sided:
            documents = self._add_one_sided(documents)
        held = documents.hashes < self._bound
        documents.select(~held).write(self._writers[False])
        documents.select(held).write(self._writers[True])

    def _add_one_sided(self, documents: Encoded) -> Encoded:
        """Adds the documents up to the first of the other side; returns those from there on."""
        if self._spare is None:
            self._spare = documents.cut([1])[0]  # counted below, with its repeats
        side = bool(self._spare.hashes[0] < self._bound)
        crossed = np.flatnonzero((documents.hashes < self._bound) != side)
        first = int(crossed[0]) if len(crossed) else len(documents)
        alike, rest = documents.cut([first])
        hashes = np.append(self._spare.hashes, alike.hashes)
        nearest = np.minimum.accumulate(~hashes if side else hashes)  # to the other side, so far
        nearer = np.flatnonzero(nearest[1:] < nearest[:-1])  # each takes the place of the spare
        for number, part in enumerate(alike.cut(nearer)):
            if number:
                self._write_spare(side)
                self._spare, self._repeats = part.cut([1])[0], 0
            same = part.hashes == self._spare.hashes
            self._repeats += int(same.sum())
            part.select(~same).write(self._writers[side])
        if len(rest):
            self._write_spare(side)
            self._spare, self._one_sided = None, False
        return rest

    def _write_spare(self, side: bool) -> None:
        """Writes the document kept aside and its repeats, of which equal texts have the tokens."""
        assert self._spare is not None
        at_once = max(1, WRITTEN_TOKENS // len(self._spare.tokens))
        for done in range(0, self._repeats, at_once):
            count = min(at_once, self._repeats - done)
            self._spare.repeated(count).write(self._writers[side])

    def finish(self) -> None:
        """Places the document kept aside, if any."""
        if self._spare is not None:
            side = bool(self._spare.hashes[0] < self._bound)
            self._write_spare(not side and self._writers[False].documents > 0)


class DistinctSample:
    """How many of the texts seen are different, from a bounded sample of their hashes.

    Hashes below a bound are counted; the bound halves when too many are kept (the adaptive
    sampling of Wegman, see Flajolet 1990). Until then the numbers are exact.
    """

    def __init__(self, kept: int = DISTINCT_KEPT) -> None:
        self._kept = kept
        self._counts: dict[int, int] = {}
        self._bound = 2**64

    def add(self, hashes: np.ndarray) -> None:
        for key in hashes.tolist():
            if key < self._bound:
                self._counts[key] = self._counts.get(key, 0) + 1
                while len(self._counts) > self._kept:
                    self._bound //= 2
                    self._counts = {k: n for k, n in self._counts.items() if k < self._bound}

    @property
    def exact(self) -> bool:
        return self._bound == 2**64

    @property
    def duplicate_share(self) -> float:
        """Share of the texts that repeat one seen before."""
        return 1 - len(self._counts) / max(sum(self._counts.values()), 1)

    def count_in(self, hashes: np.ndarray) -> float:
        """How many of `hashes` were seen, an estimate unless `exact`."""
        seen = sum(key in self._counts for key in hashes.tolist() if key < self._bound)
        return seen * (2**64 / self._bound)
