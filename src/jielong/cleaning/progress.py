"""How far a cleaning is, told every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

PROGRESS_S = 5.0


class Progress:
    """Tells how far it is.

    Args:
        log: called with a line.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._begun = self._told = time.monotonic()

    def read(self, texts: int, size: int, done: float | None) -> None:
        """Tell how much has been read.

        Args:
            size: bytes of the texts.
            done: share of all text; None: not known.
        """
        self._tell(lambda: f"read {texts:,} texts, {size / 1e6:,.0f} MB{self._left(done)}")

    def written(self, texts: int) -> None:
        """Tell how many texts have been written."""
        self._tell(lambda: f"written {texts:,} texts")

    def of(self, name: str, total: int) -> Callable[[int], None]:
        """Return what tells how many texts a filter has looked at."""
        return lambda number: self._tell(lambda: f"{name}: text {number:,} of {total:,}")

    def _left(self, done: float | None) -> str:
        if not done:
            return ""
        seconds = (time.monotonic() - self._begun) * (1 - done) / done
        return f" ({seconds / 60:,.0f} min left)" if seconds > 90 else f" ({seconds:.0f} s left)"

    def _tell(self, line: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_S:
            self._told = now
            self._log(line())
