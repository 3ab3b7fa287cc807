"""Train/validation split and duplicate statistics, both based on a hash of the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jielong.data.shard_writer import ShardWriter

DISTINCT_KEPT = 2**18
REPEAT_TOKENS = 2**20  # tokens of a repeated document written at once


def text_hash(data: bytes) -> int:
    """Return 64 bits of BLAKE2b. Equal texts have equal hashes, whatever their file or order."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class EncodedDocuments:
    """Tokenized documents.

    Attributes:
        tokens: (N,) uint32, the tokens of all documents, concatenated.
        lengths: (documents,), tokens of each document.
        sizes: (documents,), UTF-8 bytes of each document's text.
        hashes: (documents,), `text_hash` of each document.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def filter(self, keep: np.ndarray) -> EncodedDocuments:
        """Return the documents where `keep` (documents,) is true."""
        tokens = self.tokens[np.repeat(keep, self.lengths)]
        return EncodedDocuments(tokens, self.lengths[keep], self.sizes[keep], self.hashes[keep])

    def split(self, indices: Sequence[int] | np.ndarray) -> list[EncodedDocuments]:
        """Split the documents before each of `indices`, as `np.split` does."""
        offsets = np.append(0, np.cumsum(self.lengths))[indices]
        columns = [np.split(column, indices) for column in (self.lengths, self.sizes, self.hashes)]
        return list(map(EncodedDocuments, np.split(self.tokens, offsets), *columns))

    @staticmethod
    def concatenate(parts: Sequence[EncodedDocuments]) -> EncodedDocuments:
        """Return the documents of all parts, in order."""
        names = ("tokens", "lengths", "sizes", "hashes")
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return EncodedDocuments(*columns)

    def repeat(self, count: int) -> EncodedDocuments:
        """Return the documents `count` times over."""
        columns = (self.tokens, self.lengths, self.sizes, self.hashes)
        return EncodedDocuments(*(np.tile(column, count) for column in columns))

    def write(self, writer: ShardWriter) -> None:
        """Append the documents to a split."""
        writer.write(self.tokens, self.lengths, int(self.sizes.sum()))


class HeldOutSplit:
    """Assigns each document to the training or the validation split by its hash.

    Documents with hashes below `fraction` of the hash range are held out. So duplicates share a
    split, and the choice depends on the text alone. Until both splits have a document, the one with
    the hash closest to the threshold is held back (with its duplicates). If the text ends first, it
    goes to the empty split: with two or more different documents, neither split is empty.

    Batches are split at once, and duplicates of the held-back document are only counted. So time is
    linear in the number of documents, and memory is bounded.
    """

    def __init__(self, train: ShardWriter, validation: ShardWriter, fraction: float) -> None:
        self._writers = {False: train, True: validation}
        self._threshold = np.uint64(min(int(fraction * 2**64), 2**64 - 1))
        self._held_back: EncodedDocuments | None = None  # one copy of it
        self._copies = 0  # how many times to write it
        self._one_sided = bool(self._threshold)  # one split is still empty

    def add(self, documents: EncodedDocuments) -> None:
        """Write the documents to their splits."""
        if len(documents) and self._one_sided:
            documents = self._add_one_sided(documents)
        held = documents.hashes < self._threshold
        documents.filter(~held).write(self._writers[False])
        documents.filter(held).write(self._writers[True])

    def _add_one_sided(self, documents: EncodedDocuments) -> EncodedDocuments:
        """Add documents up to the first one of the other split; return the rest."""
        if self._held_back is None:
            self._held_back = documents.split([1])[0]  # counted below, with its duplicates
        side = bool(self._held_back.hashes[0] < self._threshold)
        crossed = np.flatnonzero((documents.hashes < self._threshold) != side)
        first = int(crossed[0]) if len(crossed) else len(documents)
        same_side, rest = documents.split([first])
        hashes = np.append(self._held_back.hashes, same_side.hashes)
        closest = np.minimum.accumulate(~hashes if side else hashes)  # to the threshold, so far
        closer = np.flatnonzero(closest[1:] < closest[:-1])  # each replaces the held-back one
        for number, part in enumerate(same_side.split(closer)):
            if number:
                self._write_held_back(side)
                self._held_back, self._copies = part.split([1])[0], 0
            same = part.hashes == self._held_back.hashes
            self._copies += int(same.sum())
            part.filter(~same).write(self._writers[side])
        if len(rest):
            self._write_held_back(side)
            self._held_back, self._one_sided = None, False
        return rest

    def _write_held_back(self, side: bool) -> None:
        """Write the held-back document as many times as it occurred."""
        assert self._held_back is not None
        at_once = max(1, REPEAT_TOKENS // len(self._held_back.tokens))
        for done in range(0, self._copies, at_once):
            count = min(at_once, self._copies - done)
            self._held_back.repeat(count).write(self._writers[side])

    def finish(self) -> None:
        """Write the held-back document, if any: to a split that is empty, but never all the text.

        Other documents may have been written to the splits from elsewhere.
        """
        if self._held_back is not None:
            is_missing = not self._writers[True].documents and self._writers[False].documents > 0
            side = bool(self._held_back.hashes[0] < self._threshold)
            self._write_held_back(not side and is_missing)


class DistinctSample:
    """Estimates the share of duplicate texts from a bounded sample of their hashes.

    Only hashes below a bound are counted. The bound is halved when too many are kept (Wegman's
    adaptive sampling, see Flajolet 1990). Until then the numbers are exact.
    """

    def __init__(self, kept: int = DISTINCT_KEPT) -> None:
        self._kept = kept
        self._counts: dict[int, int] = {}
        self._bound = 2**64

    def add(self, hashes: np.ndarray) -> None:
        """Count the hashes of more texts."""
        for key in hashes.tolist():
            if key < self._bound:
                self._counts[key] = self._counts.get(key, 0) + 1
                while len(self._counts) > self._kept:
                    self._bound //= 2
                    self._counts = {k: n for k, n in self._counts.items() if k < self._bound}

    @property
    def exact(self) -> bool:
        """Whether every hash so far has been counted."""
        return self._bound == 2**64

    @property
    def duplicate_share(self) -> float:
        """Share of the texts that duplicate an earlier one."""
        return 1 - len(self._counts) / max(sum(self._counts.values()), 1)

    def count_in(self, hashes: np.ndarray) -> float:
        """Count how many of `hashes` were seen before; an estimate unless `exact`."""
        seen = sum(key in self._counts for key in hashes.tolist() if key < self._bound)
        return seen * (2**64 / self._bound)
