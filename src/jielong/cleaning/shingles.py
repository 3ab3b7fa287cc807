"""A text → the hashes of its shingles: all runs of a few words, whatever language it is in.

A word is a run of letters and digits. Scripts that write no spaces have no such words, so each of
their characters counts as one. Operators count too, since a sign is all that two lines of code may
differ in; the punctuation of prose does not, nor do case and white space.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

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
END = "\0"  # put after each of several texts that are split together; it is part of no word
UNIT_OR_END = re.compile(f"{UNIT.pattern}|{END}")
END_HASH = np.uint64(2**64 - 1)  # no word has it, since Adler-32 is never 2^32 - 1
KNOWN_WORDS = 2**17  # whose hashes are kept: some 20 MB
_ODD = np.uint64(0x9E3779B97F4A7C15)


class _WordHashes(dict[str, int]):
    """Hashes of words, computed once each; the same on every machine and in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KNOWN_WORDS:
            self.clear()
        if word == END:
            self[word] = int(END_HASH)
            return self[word]
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
    return mix_bits(_plain_hashes(words))


def _plain_hashes(words: list[str]) -> np.ndarray:
    return np.fromiter(map(_HASHES.__getitem__, words), np.uint64, len(words))


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


def shingles_of_all(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `shingles` does of each text, but in the text's order and with repeated ones.

    Many short texts are split and hashed together, which takes a third of the time.

    Args:
        texts: of about PIECE_CHARS together at most.

    Returns:
        The hashes of the first text, of the second, and so on, (shingles,) uint64; and how many
        each text has, (texts,) int64.
    """
    if not texts:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    # neither END nor a line feed is part of a word, and both end one
    plain = (text.replace(END, "\n") if END in text else text for text in texts)
    hashes = _plain_hashes(UNIT_OR_END.findall((END.join(plain) + END).lower()))
    ends = np.flatnonzero(hashes == END_HASH)
    starts = np.append(0, ends[:-1] + 1)
    hashes = mix_bits(hashes)
    lengths = np.minimum(ends - starts, SHINGLE)  # words of a shingle
    counts = np.where(lengths > 0, ends - starts - lengths + 1, 0)
    firsts = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    length_of_each = np.repeat(lengths, counts)
    total = np.zeros(len(firsts), np.uint64)
    for place in range(SHINGLE):
        at = np.flatnonzero(length_of_each > place)
        total[at] = total[at] * _ODD + hashes[firsts[at] + place]
    return mix_bits(total), counts


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share that two sets of distinct hashes have in common, of all in either."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)
