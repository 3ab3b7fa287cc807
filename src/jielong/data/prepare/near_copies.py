"""What share of a text's documents nearly repeat an earlier one, from a bounded sample.

Each document is known by the least hash of its runs of tokens (MinHash, Broder 1997): two documents
have the same one with the probability that is their similarity, the share of runs in common. So the
documents whose least hash falls into a part of all hashes are a sample that has near copies in it
together.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from jielong.data.prepare.split import EncodedDocuments
from jielong.data.prepare.token_runs import ODD, TokenRuns, mixed

RUN = 5  # tokens
SIMILAR = 0.8  # least share of runs in common: what `jielong clean` takes for near by default
EACH = 4  # the runs count that begin with one of a quarter of the tokens
MOST_TOKENS = 2**26  # that are looked at
SAMPLE = 2**11  # documents in the sample, at most
SKETCH = 32  # least hashes of a document, by which it is compared
COMPARED = 8  # documents with the same least hash that one is compared with


class NearCopies:
    """Estimates the share of near copies.

    Args:
        vocab_size: of the tokens.
    """

    def __init__(self, vocab_size: int) -> None:
        self._runs = TokenRuns(vocab_size, RUN, EACH, with_first=True)
        self._bound = 2**64
        self._tokens = self._sample = 0
        self._copies = defaultdict[int, float](float)  # by least hash
        self._documents = defaultdict[int, int](int)
        self._sketches = defaultdict[int, list[set[int]]](list)

    @property
    def share(self) -> float:
        """Share of the documents that nearly repeat an earlier one, or repeat it."""
        return min(sum(self._copies.values()) / max(self._sample, 1), 1.0)

    def add(self, documents: EncodedDocuments) -> None:
        """Look at more documents, up to the one with which enough tokens were looked at."""
        if self._tokens >= MOST_TOKENS:
            return
        begins = self._tokens + np.cumsum(documents.lengths) - documents.lengths
        self._tokens += len(documents.tokens)
        documents = documents.split([int(np.searchsorted(begins, MOST_TOKENS))])[0]
        runs, starts = self._runs.of(documents)
        if not len(runs):
            return
        keys = mixed(np.minimum.reduceat(runs, starts) * ODD)
        ends = np.append(starts[1:], len(runs))
        among = np.flatnonzero(keys <= np.uint64(self._bound - 1))
        for key, start, end in zip(*(v[among].tolist() for v in (keys, starts, ends)), strict=True):
            if key < self._bound:
                self._enter(key, runs[start:end])

    def _enter(self, key: int, runs: np.ndarray) -> None:
        """Compare a document of the sample with those before it."""
        sketch = set(np.unique(runs)[:SKETCH].tolist())
        others = self._sketches[key]
        nearest = max((_similarity(sketch, other) for other in others), default=0.0)
        self._sample += 1
        self._documents[key] += 1
        if nearest >= SIMILAR:
            self._copies[key] += 1 / nearest  # the others of its kind have another least hash
        elif len(others) < COMPARED:
            others.append(sketch)
        while self._sample > SAMPLE and len(self._documents) > 1:
            self._bound //= 2
            for key in [key for key in self._documents if key >= self._bound]:
                self._sample -= self._documents.pop(key)
                self._copies.pop(key, None)
                self._sketches.pop(key, None)


def _similarity(a: set[int], b: set[int]) -> float:
    """Estimate the share of runs in common from the least hashes of both."""
    least = sorted(a | b)[:SKETCH]
    return sum(value in a and value in b for value in least) / len(least)
