"""Unigram and bigram models of a run's training text: what a model should know more than."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jielong.data.windows import Stream
from jielong.evaluation.suites.scoring import Row, Scored

COUNTED_TOKENS = 2**24  # of a longer text, pieces that are evenly spread: bounds memory and time
PIECE_TOKENS = 2**18
DISCOUNT = 0.75  # taken off each pair's count and given to pairs that were not seen


class Unigram:
    """Knows only how frequent each token is, with one added to each count (Laplace 1814).

    Args:
        train: the training text.
        vocab_size: number of token ids.
    """

    def __init__(self, train: Stream, vocab_size: int) -> None:
        counts = np.ones(vocab_size)
        for piece in pieces(train):
            counts += np.bincount(piece, minlength=vocab_size)
        self.probability = counts / counts.sum()  # (V,)
        self.likeliest = int(counts.argmax())

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Return what the model says about each row."""
        following = [row.ids[row.first :] for row in rows]
        return [Scored(-np.log(self.probability[w]), w == self.likeliest) for w in following]


class Bigram:
    """Predicts a token from the one before it: absolute discounting, interpolated with the unigram.

    P(w|v) = max(c(v, w) − d, 0) / c(v) + d · N(v) / c(v) · P(w), with N(v) the number of different
    tokens seen after v (Ney, Essen and Kneser 1994).

    Args:
        train: the training text.
        unigram: of the same text.
    """

    def __init__(self, train: Stream, unigram: Unigram) -> None:
        self.V, self.unigram = len(unigram.probability), unigram
        keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for piece in pieces(train):
            pairs, seen = np.unique(piece[:-1] * self.V + piece[1:], return_counts=True)
            keys, which = np.unique(np.concatenate([keys, pairs]), return_inverse=True)
            weights = np.concatenate([counts, seen])
            counts = np.bincount(which, weights=weights).astype(np.int64)
        self.keys, self.counts = keys, counts  # of the pairs seen: v · V + w, ascending
        before, after = np.divmod(keys, self.V)
        self.total = np.bincount(before, weights=counts, minlength=self.V)  # (V,) c(v)
        different = np.bincount(before, minlength=self.V)  # (V,) N(v)
        self.backoff = np.where(self.total > 0, DISCOUNT * different / np.maximum(self.total, 1), 1)
        self.likeliest = np.full(self.V, unigram.likeliest)
        order = np.argsort(self._probability(before, after), kind="stable")
        self.likeliest[before[order]] = after[order]  # the last one written is the likeliest
        # a frequent token that was never seen after v can be likelier than all that were
        everything, top = np.arange(self.V), np.full(self.V, unigram.likeliest)
        unseen = self._probability(everything, top) > self._probability(everything, self.likeliest)
        self.likeliest[unseen] = unigram.likeliest

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Return what the model says about each row."""
        found = []
        for row in rows:
            v, w = row.ids[row.first - 1 : -1], row.ids[row.first :]
            found.append(Scored(-np.log(self._probability(v, w)), w == self.likeliest[v]))
        return found

    def _probability(self, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return P(w|v) of each pair, (n,)."""
        rest = self.backoff[v] * self.unigram.probability[w]
        if not len(self.keys):
            return rest
        key = v * self.V + w
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        count = np.where(self.keys[place] == key, self.counts[place], 0)
        return np.maximum(count - DISCOUNT, 0) / np.maximum(self.total[v], 1) + rest


def pieces(train: Stream) -> Iterator[np.ndarray]:
    """Yield pieces of the training text, (n,) int64: all of it, or some that are evenly spread."""
    starts = range(0, len(train), PIECE_TOKENS)
    step = -(-len(starts) // (COUNTED_TOKENS // PIECE_TOKENS))
    for start in starts[::step]:
        yield train.read(start, min(start + PIECE_TOKENS, len(train))).astype(np.int64)
