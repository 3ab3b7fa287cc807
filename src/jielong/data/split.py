"""Which documents are held out, and how many repeat others: decided by a hash of the text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from jielong.data.shards import ShardWriter

DISTINCT_KEPT = 2**18


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

    def part(self, start: int, stop: int) -> Encoded:
        """The documents [start, stop)."""
        first = int(self.lengths[:start].sum())
        last = first + int(self.lengths[start:stop].sum())
        cut = slice(start, stop)
        return Encoded(
            self.tokens[first:last], self.lengths[cut], self.sizes[cut], self.hashes[cut]
        )

    def then(self, other: Encoded) -> Encoded:
        names = ("tokens", "lengths", "sizes", "hashes")
        return Encoded(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))

    def write(self, writer: ShardWriter) -> None:
        writer.write(self.tokens, self.lengths, int(self.sizes.sum()))


class HeldOutSplit:
    """Holds out each document whose hash lies in the lowest `fraction` of all hashes.

    Repeated texts fall on one side, and the choice depends on nothing but the text. As long as
    only one side has come up, the document nearest to the other is kept aside (with its repeats),
    and goes there in the end: so of two different documents or more, each side gets one.
    """

    def __init__(self, train: ShardWriter, validation: ShardWriter, fraction: float) -> None:
        self._writers = {False: train, True: validation}
        self._bound = np.uint64(min(int(fraction * 2**64), 2**64 - 1))
        self._spare: Encoded | None = None
        self._both_seen = False

    def add(self, documents: Encoded) -> None:
        done = 0
        while done < len(documents) and self._bound and not self._both_seen:
            self._add_one(documents.part(done, done + 1))
            done += 1
        documents = documents.part(done, len(documents))
        held = documents.hashes < self._bound
        documents.select(~held).write(self._writers[False])
        documents.select(held).write(self._writers[True])

    def _add_one(self, document: Encoded) -> None:
        """Adds a document while only one side has come up, the spare's."""
        spare, side = self._spare, bool(document.hashes[0] < self._bound)
        self._spare = document
        if spare is None:
            return
        key, spare_key = document.hashes[0], spare.hashes[0]
        spare_side = bool(spare_key < self._bound)
        if side != spare_side:
            spare.write(self._writers[spare_side])
            document.write(self._writers[side])
            self._spare, self._both_seen = None, True
        elif key == spare_key:
            self._spare = spare.then(document)
        elif (key > spare_key) == side:  # nearer to the other side than the spare
            spare.write(self._writers[side])
        else:
            document.write(self._writers[side])
            self._spare = spare

    def finish(self) -> None:
        """Places the document kept aside, if any."""
        if self._spare is not None:
            side = bool(self._spare.hashes[0] < self._bound)
            to_validation = not side and self._writers[False].documents > 0
            self._spare.write(self._writers[to_validation])


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
