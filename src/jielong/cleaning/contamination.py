"""Texts that share a passage with evaluation texts, which would then measure memory.

A passage is a run of words, 13 by default as for GPT-3 (Brown et al. 2020, arXiv:2005.14165,
appendix C). An evaluation text shorter than that is looked for as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from jielong.cleaning.outcome import Drop
from jielong.cleaning.shingles import runs, unit_hashes, units
from jielong.errors import DataError

LEAST_WORDS = 5  # an evaluation text with fewer is in too many texts by chance
MOST_WORDS = 2**26  # of all evaluation texts: their runs are held in memory, 8 bytes each
SHOWN_WORDS = 20


class Contamination:
    """Drops the texts that share a run of words with any of the evaluation texts.

    Args:
        texts: the evaluation texts.
        length: words of a run.

    Attributes:
        texts, too_short: how many evaluation texts there are, and how many were too short.

    Raises:
        DataError: there are none that could be looked for, or far too many.
    """

    def __init__(self, texts: Iterable[str], length: int) -> None:
        self.texts = self.too_short = 0
        found = defaultdict[int, list[np.ndarray]](list)
        words = 0
        for text in texts:
            hashes = unit_hashes(text)
            self.texts += 1
            words += len(hashes)
            if words > MOST_WORDS:
                raise DataError(
                    f"the evaluation texts of --against have more than {MOST_WORDS:,} words: "
                    "give the test sets, not the text to be cleaned"
                )
            if len(hashes) < LEAST_WORDS:
                self.too_short += 1
                continue
            size = min(length, len(hashes))
            found[size].append(np.unique(runs(hashes, size)))
        if not found:
            raise DataError(
                f"--against: no evaluation text has {LEAST_WORDS} words or more, so none can be "
                "looked for"
            )
        self._runs = {size: np.unique(np.concatenate(parts)) for size, parts in found.items()}

    def __call__(self, text: str) -> Drop | None:
        """Return why a text is dropped; None if it shares nothing."""
        hashes = unit_hashes(text)
        for size, wanted in sorted(self._runs.items(), reverse=True):
            own = runs(hashes, size)
            places = np.searchsorted(wanted, own)
            shared = np.flatnonzero(wanted[np.minimum(places, len(wanted) - 1)] == own)
            if len(shared):
                words = [word for part in units(text) for word in part]
                begin = int(shared[0])
                passage = " ".join(words[begin : begin + size][:SHOWN_WORDS])
                return Drop("a shared passage", f"{len(shared):,} shared runs; first: {passage}")
        return None
