"""Does a text repeat itself? The rules of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1).

Chinese is counted in characters, of which a word has about one and a half, and by the shares that
FineWeb-2 (Penedo et al. 2025, arXiv:2506.20920) found for Chinese words, which repeat more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.shingles import hashes_of, runs, units
from jielong.cleaning.words import CHARS_OF_WORD, Words

MOST_REPEATED, MOST_REPEATED_CHARS = 0.3, 0.2  # of lines and of paragraphs
# by the length of a run of words: the most that the commonest one, or all that repeat, may cover
COMMONEST = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
COMMONEST_CHINESE = {2: 0.256, 3: 0.201, 4: 0.171}
REPEATED_CHINESE = {5: 0.198, 6: 0.182, 7: 0.167, 8: 0.154, 9: 0.14, 10: 0.127}
PARAGRAPH = re.compile(r"\n\s*\n")


def repetition(text: str) -> Drop | Change | None:
    """Judge a text by Gopher's rules of repetition."""
    words = Words.of(text)
    parts = [part.strip() for part in PARAGRAPH.split(words.text)]
    for name, pieces in (("lines", words.lines), ("paragraphs", list(filter(None, parts)))):
        if drop := _pieces(name, pieces):
            return drop
    return _runs(words)


def _pieces(name: str, pieces: Sequence[str]) -> Drop | None:
    """Judge the lines or paragraphs that are there already."""
    counts = Counter(pieces)
    share = 1 - len(counts) / max(len(pieces), 1)
    if share > MOST_REPEATED:
        return Drop(f"repeated {name}", f"{share:.0%} of the {name} repeat, above 30%")
    total = sum(map(len, pieces))
    repeated = sum(len(piece) * (count - 1) for piece, count in counts.items())
    if repeated > MOST_REPEATED_CHARS * total:
        share = repeated / total
        return Drop(f"repeated {name}", f"repeated {name} are {share:.0%} of the text, above 20%")
    return None


def _runs(words: Words) -> Drop | None:
    """Judge the runs of words: the commonest of few words, and all repeated ones of many."""
    chinese = words.kind == "chinese"
    scale = CHARS_OF_WORD if chinese else 1
    found_units = [unit for part in units(words.text) for unit in part]
    hashes = hashes_of(found_units)
    ends = np.append(0, np.cumsum([len(unit) for unit in found_units]))
    for length, most in (COMMONEST_CHINESE if chinese else COMMONEST).items():
        found = runs(hashes, round(length * scale))
        if len(found):
            values, counts = np.unique(found, return_counts=True)
            top = int(counts.argmax())
            if counts[top] > 1:
                places = np.flatnonzero(found == values[top])
                share = _covered(places, round(length * scale), ends)
                if share > most:
                    return Drop(
                        "a repeated phrase",
                        f"one run of {length} words is {share:.0%} of the text, above {most:.0%}",
                    )
    for length, most in (REPEATED_CHINESE if chinese else REPEATED).items():
        found = runs(hashes, round(length * scale))
        if len(found):
            first = np.unique(found, return_index=True)[1]
            again = np.ones(len(found), bool)
            again[first] = False
            share = _covered(np.flatnonzero(again), round(length * scale), ends)
            if share > most:
                return Drop(
                    "repeated phrases",
                    f"repeated runs of {length} words are {share:.0%}, above {most:.0%}",
                )
    return None


def _covered(places: np.ndarray, length: int, ends: np.ndarray) -> float:
    """Return the share of the words' characters in the runs that begin at `places`."""
    words = np.zeros(len(ends), np.int64)
    np.add.at(words, places, 1)
    np.subtract.at(words, places + length, 1)
    inside = np.cumsum(words[:-1]) > 0
    return float(np.diff(ends)[inside].sum() / max(int(ends[-1]), 1))
