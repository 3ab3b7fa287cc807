"""Runs of tokens inside documents, as hashes: what two texts have in common, however they are cut.

Tokens begin and end at the same characters wherever a text is cut, but for the first and last ones.
"""

from __future__ import annotations

import numpy as np

from jielong.data.prepare.split import EncodedDocuments

ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def mixed(values: np.ndarray) -> np.ndarray:
    """Return (N,) uint64 hashes of (N,) uint64 values, spread evenly."""
    values = (values ^ (values >> _HALF)) * ODD
    return values ^ (values >> _HALF)


class TokenRuns:
    """Hashes of the runs of `length` tokens that begin with one of a part of the tokens."""

    def __init__(self, vocab_size: int, length: int, each: int, with_first: bool = False) -> None:
        """Choose the tokens that begin a run: one of `each` in the vocabulary.

        Args:
            with_first: the first run of a document counts whatever it begins with, so that each
                document that is long enough has one.
        """
        self.length, self.with_first = length, with_first
        self._hashes = mixed(np.arange(1, vocab_size + 1, dtype=np.uint64) * ODD)
        self._begins_run = self._hashes % np.uint64(each) == 0

    def of(self, documents: EncodedDocuments) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes of the runs that count, and where those of each document begin."""
        ends = np.cumsum(documents.lengths)
        chosen = self._begins_run[documents.tokens]
        if self.with_first:
            chosen[(ends - documents.lengths)[documents.lengths > 0]] = True
        places = np.flatnonzero(chosen)
        of_document = np.searchsorted(ends, places, side="right")
        inside = places + self.length <= ends[of_document]
        places, of_document = places[inside], of_document[inside]
        total = np.zeros(len(places), np.uint64)
        for step in range(self.length):
            total = total * ODD + self._hashes[documents.tokens[places + step]]
        return mixed(total), np.flatnonzero(np.diff(of_document, prepend=-1))
