"""A text → the hashes of its shingles: all runs of a few words, whatever language it is in.

A word is a run of letters and digits. Scripts that write no spaces have no such words, so each of
their characters counts as one. Operators count too, since a sign is all that two lines of code may
differ in; the punctuation of prose does not, nor do case and white space.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import numpy as np

from jielong.data.shuffle import mix_bits

SHINGLE = 5  # words; Broder 1997 and FineWeb (Penedo et al. 2024) take as many
# Han, kana and bopomofo; Thai, Lao, Myanmar and Khmer
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
UNIT = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[-+](?=\d)|[+*/=<>&|^~%@#$\\{{}}\[\]]")
PIECE_CHARS = 2**20  # split at once: bounds the memory of a very long text
KNOWN_WORDS = 2**20  # whose hashes are kept
_ODD = np.uint64(0x9E3779B97F4A7C15)


class _WordHashes(dict[str, int]):
    """Hashes of words, computed once each; the same on every machine and in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KNOWN_WORDS:
            self.clear()
        data = word.encode("utf-8", "surrogatepass")
        self[word] = value = zlib.crc32(data) | zlib.adler32(data) << 32
        return value


_HASHES = _WordHashes()


def units(text: str) -> Iterator[list[str]]:
    """Yield the words of a text in lower case, in lists of those in about a million characters."""
    begin = 0
    while begin < len(text):
        end = begin + PIECE_CHARS
        while end < len(text) and not text[end].isspace() and end < begin + 2 * PIECE_CHARS:
            end += 1
        yield UNIT.findall(text[begin:end].lower())
        begin = end


def hashes_of(words: list[str]) -> np.ndarray:
    """Return the hash of each word: (words,) uint64."""
    return mix_bits(np.array(list(map(_HASHES.__getitem__, words)), np.uint64))


def unit_hashes(text: str) -> np.ndarray:
    """Return the hash of each word of a text: (words,) uint64."""
    return np.concatenate([np.empty(0, np.uint64), *map(hashes_of, units(text))])


def runs(hashes: np.ndarray, length: int) -> np.ndarray:
    """Return the hash of each run of `length` words: (words - length + 1,) uint64, or empty.

    Args:
        hashes: (words,), as `unit_hashes` gives them.
    """
    count = len(hashes) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for place in range(length):
        total = total * _ODD + hashes[place : place + count]
    return mix_bits(total)


def shingles(text: str) -> np.ndarray:
    """Return the distinct hashes of a text's shingles, sorted; of a shorter text, of all of it."""
    hashes = unit_hashes(text)
    return np.unique(runs(hashes, min(SHINGLE, max(len(hashes), 1))))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share that two sets of distinct hashes have in common, of all in either."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)
