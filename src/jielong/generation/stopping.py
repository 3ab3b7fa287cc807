"""Ending a text before given words, while it is written piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jielong.errors import ConfigError


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Yield a text up to the first place where one of `stop` begins.

    A piece's end that may be the beginning of one of them is held back until that is known.

    Args:
        pieces: the text; no more of it is read once it has ended.

    Raises:
        ConfigError: a text of `stop` is empty.
    """
    if not all(stop):
        raise ConfigError("stop: an empty text would stop at once; leave it out")
    return _until(pieces, tuple(stop))


def _until(pieces: Iterable[str], stop: tuple[str, ...]) -> Iterator[str]:
    held = ""
    for piece in pieces:
        held += piece
        found = [place for text in stop if (place := held.find(text)) >= 0]
        if found:
            if held[: min(found)]:
                yield held[: min(found)]
            return
        ready = len(held) - max(_overlap(held, text) for text in stop)
        if ready:
            yield held[:ready]
        held = held[ready:]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
