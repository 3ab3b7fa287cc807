"""From sums over batches to a likelihood and its standard error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

MAX_EXPONENT = 700.0  # exp of a larger number overflows a float


@dataclass(frozen=True)
class Likelihood:
    """How well a model predicts a text.

    Attributes:
        loss: mean negative log-likelihood per predicted token, in nats.
        perplexity: exp(loss).
        bits_per_byte: total bits divided by UTF-8 bytes; comparable across tokenizers.
        tokens: number of predicted tokens.
        bytes: UTF-8 bytes of text that they encode.
        seconds: wall-clock time.
        bits_per_byte_error: standard error of bits_per_byte as an estimate for more text of the
            kind, from how much it differs between batches; none where there is only one.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    seconds: float
    bits_per_byte_error: float | None = None


@dataclass
class Sums:
    """Sums over batches: of what is measured, and of squares, by which it varies between them."""

    nats: float = 0.0
    tokens: float = 0.0
    bytes: float = 0.0
    batches: float = 0.0
    nats_squared: float = 0.0
    nats_bytes: float = 0.0
    bytes_squared: float = 0.0

    def add(self, nats: float, predicted: np.ndarray, token_bytes: np.ndarray) -> None:
        """Add a batch of `predicted` tokens, (n,) ids."""
        if not len(predicted):
            return
        size = float(token_bytes[predicted].sum())
        self.nats += nats
        self.tokens += len(predicted)
        self.bytes += size
        self.batches += 1
        self.nats_squared += nats * nats
        self.nats_bytes += nats * size
        self.bytes_squared += size * size

    def over_ranks(self, total: Callable[[float], float]) -> Sums:
        return Sums(*(total(getattr(self, field.name)) for field in fields(self)))

    def likelihood(self, text_bytes: int, started: float) -> Likelihood:
        """Return the result for all batches, whose text has `text_bytes`."""
        loss = self.nats / self.tokens
        return Likelihood(
            loss=loss,
            perplexity=math.exp(loss) if loss < MAX_EXPONENT else math.inf,
            bits_per_byte=self.nats / math.log(2) / text_bytes if text_bytes else math.nan,
            tokens=int(self.tokens),
            bytes=text_bytes,
            seconds=time.perf_counter() - started,
            bits_per_byte_error=self._error(),
        )

    def _error(self) -> float | None:
        """Standard error of the ratio nats / bytes (Cochran 1977, section 2.11), in bits."""
        if self.batches < 2 or not self.bytes:
            return None
        ratio = self.nats / self.bytes
        squares = self.nats_squared - 2 * ratio * self.nats_bytes + ratio**2 * self.bytes_squared
        variance = max(0.0, squares) * self.batches / (self.batches - 1)
        return math.sqrt(variance) / self.bytes / math.log(2)


def mixed_likelihood(parts: Sequence[tuple[float, Likelihood]]) -> Likelihood:
    """Return the likelihood of a mixture of texts, each with its share of the tokens.

    Its loss is that of a token drawn from the mixture; bits per byte are the bits of such tokens
    over their bytes.

    Args:
        parts: shares, which need not add up to 1, and likelihoods.
    """
    total = sum(share for share, _ in parts)
    shares = [share / total for share, _ in parts]
    found = [likelihood for _, likelihood in parts]
    loss = sum(share * each.loss for share, each in zip(shares, found, strict=True))
    size = sum(share * each.bytes / each.tokens for share, each in zip(shares, found, strict=True))
    errors = [
        share * (each.bits_per_byte_error or 0.0) * each.bytes / each.tokens
        for share, each in zip(shares, found, strict=True)
    ]
    known = all(each.bits_per_byte_error is not None for each in found)
    return Likelihood(
        loss=loss,
        perplexity=math.exp(loss) if loss < MAX_EXPONENT else math.inf,
        bits_per_byte=loss / math.log(2) / size if size else math.nan,
        tokens=sum(each.tokens for each in found),
        bytes=sum(each.bytes for each in found),
        seconds=sum(each.seconds for each in found),
        bits_per_byte_error=math.hypot(*errors) / size if known and size else None,
    )
