"""How much of a text is held out, and which of it.

A share of the documents chosen one by one could be none of them or most of the text. So a text that
is small enough is seen whole first, and the share met as nearly as documents allow; where they do
not, pieces of them are held out. Of a larger text, pieces of its longest documents are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jielong.data.prepare.split import EncodedDocuments, HeldOutSplit
from jielong.data.shard_writer import ShardWriter

SMALL_TOKENS = 2**22  # texts of up to so many tokens are split with all of them in memory
LARGE_SHARE = 0.01  # held out of larger texts, where nothing is asked for,
MOST_TOKENS = 2**22  # but about so many at most: more would take long to measure and tell no more
BYTES_PER_TOKEN = 3.0  # about
LONGEST_WHOLE = 2**16  # tokens of a document of a larger text that is held out whole, if at all
# so many predict bits per byte to about 1 % (docs/experiments.md)
ENOUGH_TOKENS = 2**16
LARGEST_SHARE = 0.1  # of a small text
FEWEST_TOKENS = 200  # fewer held-out tokens than these tell nothing
FEWEST_DOCUMENTS = 4  # where fewer would be held out, pieces of more of them tell more
PIECES = 8
SHORTEST_PIECE = 128
GAP_TOKENS = 32  # left out at both ends of a piece: what is next to it is too much like it


class Split:
    """Holds out a share of the documents: of a small text exactly, of a large one by hash.

    Attributes:
        pieces: how many pieces of documents were held out, where these were too few or too long.
        too_small: there is too little text to hold any out.
    """

    def __init__(
        self,
        train: ShardWriter,
        validation: ShardWriter,
        share: float | None,
        token_bytes: np.ndarray,
        text_bytes: int = 0,
    ) -> None:
        """Start a split.

        Args:
            share: of the text; none: as much as its likelihood needs to be known to about 1 %, at
                most a tenth.
            token_bytes: (V,) bytes of text that each token encodes.
            text_bytes: about the size of the text, as far as it is known.
        """
        self.pieces, self.too_small = 0, False
        self._train, self._validation = train, validation
        self._share, self._token_bytes = share, token_bytes
        self._small: list[EncodedDocuments] | None = []
        self._tokens = 0
        self._large: HeldOutSplit | None = None
        most = MOST_TOKENS * BYTES_PER_TOKEN / max(1, text_bytes)
        self._large_share = min(LARGE_SHARE, most) if share is None else share

    def add(self, documents: EncodedDocuments) -> None:
        """Take more documents; nothing is written while the text may still be small."""
        if self._small is not None:
            self._small.append(documents)
            self._tokens += len(documents.tokens)
            if self._tokens <= SMALL_TOKENS:
                return
            self._large = HeldOutSplit(self._train, self._validation, self._large_share)
            for earlier in self._small:
                self._add_large(earlier)
            self._small = None
        else:
            self._add_large(documents)

    def _add_large(self, documents: EncodedDocuments) -> None:
        """Choose among documents by hash; of each very long one, hold out pieces."""
        assert self._large is not None
        is_long = np.flatnonzero(documents.lengths > LONGEST_WHOLE)
        for part in documents.split(np.sort(np.append(is_long, is_long + 1))):
            if len(part) != 1 or part.lengths[0] <= LONGEST_WHOLE:
                self._large.add(part)
                continue
            cuts = choose_pieces(part, round(self._large_share * len(part.tokens)))
            self._write_with_cuts(part, cuts)

    def finish(self) -> None:
        """Write what is left."""
        if self._large is not None:
            self._large.finish()
            self.too_small = self._large_share != 0 and not self._validation.documents
        elif self._small:
            self._split_small(EncodedDocuments.concatenate(self._small))

    def _split_small(self, documents: EncodedDocuments) -> None:
        wanted = self._wanted()
        held = choose_documents(documents, wanted)
        if held.sum() < FEWEST_DOCUMENTS:
            # a share that is asked for holds out something
            cuts = choose_pieces(documents, max(wanted, SHORTEST_PIECE) if self._share else wanted)
            if cuts and sum(cut.stop - cut.start for cut in cuts) >= wanted / 2:
                self._write_with_cuts(documents, cuts)
                return
        if self._share and not held.any():
            held = smallest_document(documents)
        self.too_small = self._share != 0 and not held.any()
        documents.filter(~held).write(self._train)
        documents.filter(held).write(self._validation)

    def _write_with_cuts(self, documents: EncodedDocuments, cuts: list[Cut]) -> None:
        """Write the pieces to one split and what is left, but for the gaps, to the other."""
        by_document: dict[int, list[Cut]] = {}
        for cut in cuts:
            by_document.setdefault(cut.document, []).append(cut)
        kept, held = [], []
        ends = np.cumsum(documents.lengths)
        for number, (end, length) in enumerate(zip(ends, documents.lengths, strict=True)):
            tokens = documents.tokens[end - length : end]
            position = 0
            for cut in by_document.get(number, []):
                kept.append(tokens[position : cut.start - GAP_TOKENS])
                held.append(tokens[cut.start : cut.stop])
                position = cut.stop + GAP_TOKENS
            kept.append(tokens[position:])
        for parts, writer in ((kept, self._train), (held, self._validation)):
            whole = [part for part in parts if len(part)]
            if whole:
                joined = np.concatenate(whole)
                sizes = int(self._token_bytes[joined].sum())
                writer.write(joined, [len(part) for part in whole], sizes)
        self.pieces += len(cuts)

    def _wanted(self) -> int:
        """Tokens to hold out."""
        if self._share is not None:
            return round(self._share * self._tokens)
        wanted = round(min(ENOUGH_TOKENS, LARGEST_SHARE * self._tokens))
        return wanted if wanted >= FEWEST_TOKENS else 0


def choose_documents(documents: EncodedDocuments, wanted: int) -> np.ndarray:
    """Choose whole documents of about `wanted` tokens, by their hashes; duplicates stay together.

    Returns:
        (documents,) bool; none where no choice of documents comes near, or none would be left.
    """
    hashes, group = np.unique(documents.hashes, return_inverse=True)
    sizes = np.bincount(group, weights=documents.lengths).astype(np.int64)
    chosen, taken = np.zeros(len(hashes), dtype=bool), 0
    for i, size in enumerate(sizes.tolist()):
        if taken >= wanted or chosen.sum() == len(hashes) - 1:
            break
        if taken + size <= 1.25 * wanted:
            chosen[i], taken = True, taken + size
    near = taken >= 0.5 * wanted
    return chosen[group] & near


def smallest_document(documents: EncodedDocuments) -> np.ndarray:
    """Choose the shortest document, with its duplicates, if there is another: (documents,) bool."""
    hashes, group = np.unique(documents.hashes, return_inverse=True)
    if len(hashes) < 2:
        return np.zeros(len(documents), dtype=bool)
    sizes = np.bincount(group, weights=documents.lengths)
    return np.asarray(group == np.argmin(sizes))


@dataclass(frozen=True)
class Cut:
    """A piece of a document: its tokens from `start` to `stop`, counted in the document."""

    document: int
    start: int
    stop: int


def choose_pieces(documents: EncodedDocuments, wanted: int) -> list[Cut]:
    """Choose pieces, spread evenly over the documents that have no duplicate.

    Returns:
        The pieces in order, each with GAP_TOKENS of its document on both sides; none if nothing is
        long enough.
    """
    if not wanted:
        return []
    _, group, counts = np.unique(documents.hashes, return_inverse=True, return_counts=True)
    count = max(1, min(PIECES, wanted // SHORTEST_PIECE))
    length = wanted // count
    single = np.where(counts[group] == 1, documents.lengths, 0)  # tokens that may be held out
    ends = np.cumsum(single)
    cuts: list[Cut] = []
    for i in range(count):
        middle = (2 * i + 1) * int(ends[-1]) // (2 * count)
        document = int(np.searchsorted(ends, middle, side="right"))
        if document == len(ends):
            break  # no document is single
        size = int(single[document])
        start = middle - int(ends[document] - size) - length // 2
        stop = min(max(GAP_TOKENS, start) + length, size - GAP_TOKENS)
        start = max(GAP_TOKENS, stop - length)
        if cuts and cuts[-1].document == document:
            start = max(start, cuts[-1].stop + GAP_TOKENS)
        if stop - start >= GAP_TOKENS:
            cuts.append(Cut(document, start, stop))
    return cuts
