"""Cutting text into bounded pieces, for encoding and for training a tokenizer."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator

PIECE_CHARS = 2**18  # longer texts are encoded in pieces: an encoding takes ~100 bytes/token
GROUP_CHARS = 2**22  # most characters encoded at once
RUN_CHARS = 256  # longer runs are cut for training: the cost of a merge grows with the word
SAMPLE_CHARS = 2**14  # most characters in a piece of a training sample
KEYS = 2**32  # the keys by which its pieces are chosen are below

# No byte-level pre-tokenizer joins a line break and the visible character after it.
_SAFE_CUT = re.compile(r"(?<=\S\n)(?=\S)")
# Text up to and including RUN_CHARS of the first longer run. Possessive, so never backtracks.
_TO_LONG_RUN = re.compile(
    r"(?:\S{1,N}+(?!\S)|\s{1,N}+(?!\s))*+(?:\S{N}|\s{N})".replace("N", str(RUN_CHARS))
)


def sample(documents: Iterable[str], sample_bytes: int) -> list[str]:
    """Sample pieces of text from all documents, at most `sample_bytes` of UTF-8 in total.

    A piece is kept while a hash of its number is below a bound; the bound is halved when the sample
    is too large. So every piece is equally likely, though their number is not known in advance.
    """
    pieces = (piece for text in documents for piece in even_pieces(text))
    return sample_numbered(enumerate(pieces), sample_bytes, KEYS)[0]


def sample_numbered(
    pieces: Iterable[tuple[int, str]], sample_bytes: int, bound: int
) -> tuple[list[str], int]:
    """Sample numbered pieces of text, as `sample` does.

    Args:
        pieces: at least those whose key is below `bound`, in order.
        bound: of keys, to start with.

    Returns:
        The pieces with keys below the largest bound at which they fit, but one at least; and that
        bound. If it is the one to start with, and that is not KEYS, too few may have been given.
    """
    kept: list[tuple[int, str, int]] = []  # key of the piece's number, piece, bytes
    total = 0
    for number, piece in pieces:
        key = sample_key(number)
        if key >= bound:
            continue
        if kept and kept[0][0] >= bound:  # it was kept for want of another
            kept, total = [], 0
        size = len(piece.encode("utf-8", "ignore"))
        kept.append((key, piece, size))
        total += size
        while total > sample_bytes and len(kept) > 1:
            bound //= 2
            kept = [item for item in kept if item[0] < bound] or [min(kept)]
            total = sum(item[2] for item in kept)
    return [piece for _, piece, _ in kept], bound


def sample_key(number: int) -> int:
    """Return a hash of a piece's number, below KEYS."""
    return int.from_bytes(hashlib.blake2b(number.to_bytes(8, "little"), digest_size=4).digest())


def even_pieces(text: str) -> Iterator[str]:
    """Yield pieces of at most SAMPLE_CHARS, cut before a line break or space if possible."""
    start = 0
    while len(text) - start > SAMPLE_CHARS:
        stop = start + SAMPLE_CHARS
        cut = max(text.rfind("\n", start, stop), text.rfind(" ", start, stop))
        stop = cut if cut > start else stop  # the space stays with the word after it
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def short_runs(text: str) -> list[str]:
    """Cut `text` so that no run of spaces or of other characters is longer than RUN_CHARS."""
    cuts = [0]
    while match := _TO_LONG_RUN.match(text, cuts[-1]):
        cuts.append(match.end())
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def safe_pieces(text: str) -> list[str]:
    """Cut `text` into pieces of about PIECE_CHARS, where a cut does not change the tokens."""
    cuts, start = [0], 0
    while len(text) - start > PIECE_CHARS and (
        place := _SAFE_CUT.search(text, start + PIECE_CHARS)
    ):
        start = place.start()
        cuts.append(start)
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def groups(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of pieces, each list with a bounded amount of text."""
    group: list[str] = []
    chars = 0
    for piece in pieces:
        group.append(piece)
        chars += len(piece)
        if chars > GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group
