"""Texts that are too short or too long, in characters or tokens."""

from __future__ import annotations

from jielong.cleaning.outcome import Drop
from jielong.cleaning.staging import Texts
from jielong.config.cleaning import CleaningConfig
from jielong.tokenization.tokenizer import Tokenizer


class Length:
    """Drops the texts outside of the bounds.

    Args:
        cleaning: min_chars, max_chars, min_tokens and max_tokens; None is no bound.
        tokenizer: that counts the tokens, without bos and eos; needed for bounds in tokens.
    """

    def __init__(self, cleaning: CleaningConfig, tokenizer: Tokenizer | None) -> None:
        self._chars = cleaning.min_chars, cleaning.max_chars
        self._tokens = cleaning.min_tokens, cleaning.max_tokens
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> Drop | None:
        """Return why a text is dropped; None if it is within the bounds."""
        if drop := _outside(len(text), *self._chars, "characters"):
            return drop
        if self._tokens == (None, None):
            return None
        assert self._tokenizer is not None
        return _outside(len(self._tokenizer.encode_flat([text])[0]), *self._tokens, "tokens")


def lengths_judged(length: Length, texts: Texts) -> list[Drop | None]:
    """Judge some texts: the task of a worker."""
    return list(map(length, texts))


def _outside(count: int, low: int | None, high: int | None, unit: str) -> Drop | None:
    if low is not None and count < low:
        return Drop(f"few {unit}", f"{count:,} {unit}, fewer than {low:,}")
    if high is not None and count > high:
        return Drop(f"many {unit}", f"{count:,} {unit}, more than {high:,}")
    return None
