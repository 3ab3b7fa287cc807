"""Ending a text before given words, while it is written piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jielong.errors import ConfigError


class StopFilter:
    """Passes a text on, up to the first place where one of `stop` begins.

    A piece's end that may be the beginning of one of them is held back until that is known.

    Attributes:
        ended: whether one of `stop` was found; nothing after it is passed on.

    Raises:
        ConfigError: a text of `stop` is empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if not all(stop):
            raise ConfigError("stop: an empty text would stop at once; leave it out")
        self._stop = tuple(stop)
        self._held = ""
        self.ended = False

    def push(self, piece: str) -> str:
        """Return what of the text so far is ready and not returned yet; may be empty."""
        held = self._held + piece
        found = [place for text in self._stop if (place := held.find(text)) >= 0]
        if found:
            self.ended, self._held = True, ""
            return held[: min(found)]
        ready = len(held) - max((_overlap(held, text) for text in self._stop), default=0)
        self._held = held[ready:]
        return held[:ready]

    def flush(self) -> str:
        """Return what was held back, when the text has ended."""
        held, self._held = self._held, ""
        return held


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Yield a text up to the first place where one of `stop` begins, as `StopFilter` finds it.

    Args:
        pieces: the text; no more of it is read once it has ended.

    Raises:
        ConfigError: a text of `stop` is empty.
    """
    return _until(pieces, StopFilter(stop))


def _until(pieces: Iterable[str], stop: StopFilter) -> Iterator[str]:
    for piece in pieces:
        if ready := stop.push(piece):
            yield ready
        if stop.ended:
            return
    if rest := stop.flush():
        yield rest


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
