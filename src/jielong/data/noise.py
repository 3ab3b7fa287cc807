"""Changes to text that is read many times, so that it is never twice the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_LOW_BITS = np.uint64(2**32 - 1)
SPLIT_ROUNDS = 3  # a token is split into at most 2³ parts


@dataclass(frozen=True)
class InputNoise:
    """Input tokens replaced by random ones, so that a text read often is never twice the same.

    The targets stay as they are. (Random tokens in the input against memorising: arXiv:2606.16246;
    the older word dropout: Bowman et al. 2016.)
    """

    rate: float  # share of the input tokens
    vocabulary: np.ndarray  # (n,) int64: ids that are replaced and that replace; no special ones

    def replace(self, tokens: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Return tokens, int64, with some replaced.

        Args:
            tokens: any shape.
            bits: 64 random bits for each token, uint64 of the same shape.
        """
        chosen = (bits & _LOW_BITS) < np.uint64(self.rate * 2**32)
        chosen &= np.isin(tokens, self.vocabulary)
        others = self.vocabulary[(bits >> np.uint64(32)) % np.uint64(len(self.vocabulary))]
        return np.where(chosen, others, tokens)


@dataclass(frozen=True)
class BpeDropout:
    """Tokens split into the two that they were merged from: the same text in other tokens.

    The model learns what a word is made of, and cannot memorise a text as one sequence of tokens.
    (BPE-dropout, Provilkov et al. 2020; here a token is split after encoding, so that a text need
    not be encoded again each time it is read.)
    """

    rate: float  # share of the tokens that are split, and of their parts again
    parts: np.ndarray  # (V, 2) int64: the tokens that each was merged from; -1 if it was not

    def split(
        self, tokens: np.ndarray, bits: Callable[[int, int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Split some tokens.

        Args:
            tokens: (n,) int64.
            bits: takes a round and a count; returns that many random 64-bit numbers.

        Returns:
            The tokens, (m,) with m >= n, and for each the place in `tokens` that it comes from.
        """
        origin = np.arange(len(tokens))
        whole = np.zeros(len(tokens), bool)  # tokens that have been left as they are
        for number in range(SPLIT_ROUNDS):
            chosen = (bits(number, len(tokens)) & _LOW_BITS) < np.uint64(self.rate * 2**32)
            chosen &= (self.parts[tokens, 0] >= 0) & ~whole
            counts = 1 + chosen
            first = np.cumsum(counts) - counts  # where each token, or its first part, goes
            split = np.repeat(tokens, counts)
            split[first[chosen]] = self.parts[tokens[chosen], 0]
            split[first[chosen] + 1] = self.parts[tokens[chosen], 1]
            tokens, origin = split, np.repeat(origin, counts)
            whole = np.repeat(~chosen, counts)
        return tokens, origin
