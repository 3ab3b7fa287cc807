"""Tokens of a text that a user gives: read with one clear error where they cannot be."""

from __future__ import annotations

from jielong.errors import DataError
from jielong.present.visible import spelled, visible
from jielong.tokenization.tokenizer import Tokenizer


def read_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text, without bos.

    Raises:
        DataError: there is no text, or the tokenizer has no tokens for a part of it.
    """
    if not text:
        raise DataError("there is no text: give some, in quotes, or - to read standard input")
    unknown = set(tokenizer.encode(text, special=False)) & tokenizer.special_tokens
    if unknown:  # a special token that the text does not name: the tokenizer's <unk>
        missing = next(
            (c for c in text if set(tokenizer.encode(c, special=False)) & unknown), text[:20]
        )
        name = spelled(tokenizer.piece(min(unknown)))
        raise DataError(
            f"the tokenizer has no token for {visible(missing)!r} in the text and writes {name} "
            "instead: leave it out, or use a tokenizer that falls back to bytes"
        )
    ids = tokenizer.encode(text)
    if not ids:
        raise DataError("the tokenizer makes no token of this text: give another one")
    return ids


def texts_of(tokenizer: Tokenizer, ids: list[int]) -> tuple[str, ...]:
    """Return the text of each id, to look at."""
    return tuple(spelled(tokenizer.piece(i)) for i in ids)
