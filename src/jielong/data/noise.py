"""Noise on the input tokens, for text that is read many times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LOW_BITS = np.uint64(2**32 - 1)


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
