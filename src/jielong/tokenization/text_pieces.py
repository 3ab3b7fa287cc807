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
    kept: list[tuple[int, str, int]] = []  # hash of the piece's number, piece, bytes
    total, bound = 0, 2**32
    pieces = (piece for text in documents for piece in even_pieces(text))
    for number, piece in enumerate(pieces):
        key = _mix(number)
        if key >= bound:
            continue
        size = len(piece.encode("utf-8", "ignore"))
        kept.append((key, piece, size))
        total += size
        while total > sample_bytes and len(kept) > 1:
            bound //= 2
            kept = [item for item in kept if item[0] < bound] or kept[:1]
            total = sum(item[2] for item in kept)
    return [piece for _, piece, _ in kept]


def _mix(number: int) -> int:
    """Return a 32-bit hash of a number."""
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
