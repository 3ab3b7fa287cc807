"""Cutting text into bounded pieces, for encoding and for training a tokenizer."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator

PIECE_CHARS = 2**18  # longer texts are encoded in pieces: an encoding takes ~100 bytes a token
GROUP_CHARS = 2**22  # encoded at once
RUN_CHARS = 256  # longer words and gaps are cut for training: a merge costs its word's length
SAMPLE_CHARS = 2**14  # a training sample is drawn in pieces of at most this size

# Between a line break and a visible character no byte-level pre-tokenizer joins the two sides.
_SAFE_CUT = re.compile(r"(?<=\S\n)(?=\S)")
# All up to RUN_CHARS of the first run that is longer. Possessive: nothing is looked at twice.
_TO_LONG_RUN = re.compile(
    r"(?:\S{1,N}+(?!\S)|\s{1,N}+(?!\s))*+(?:\S{N}|\s{N})".replace("N", str(RUN_CHARS))
)


def sample(documents: Iterable[str], sample_bytes: int) -> list[str]:
    """Pieces of text spread over all documents, at most `sample_bytes` of UTF-8 together.

    A piece stays while a hash of its number is below a bound; the bound halves when the sample
    overflows. So every piece has the same chance, without knowing how many will come.
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
    """A 32-bit hash of a count."""
    return int.from_bytes(hashlib.blake2b(number.to_bytes(8, "little"), digest_size=4).digest())


def even_pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most SAMPLE_CHARS, cut after a line or space where there is one."""
    start = 0
    while len(text) - start > SAMPLE_CHARS:
        stop = start + SAMPLE_CHARS
        cut = max(text.rfind("\n", start, stop), text.rfind(" ", start, stop))
        stop = cut if cut > start else stop  # the space stays with the word that follows it
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def short_runs(text: str) -> list[str]:
    """`text` cut so that no run without spaces, or of spaces alone, is longer than RUN_CHARS."""
    cuts = [0]
    while match := _TO_LONG_RUN.match(text, cuts[-1]):
        cuts.append(match.end())
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def safe_pieces(text: str) -> list[str]:
    """`text` in pieces of PIECE_CHARS or little more, whose tokens join to the text's own."""
    cuts, start = [0], 0
    while len(text) - start > PIECE_CHARS and (
        place := _SAFE_CUT.search(text, start + PIECE_CHARS)
    ):
        start = place.start()
        cuts.append(start)
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def groups(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Lists of pieces, each list a bounded amount of text."""
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
