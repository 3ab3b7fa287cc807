"""The windows that a stream of tokens is cut into, and their order in each epoch: arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jielong.config.settings import IGNORE_INDEX, DataConfig
from jielong.data.noise import SPLIT_ROUNDS, BpeDropout
from jielong.data.shards import TokenStream
from jielong.data.shuffle import permute, random_bits

AT_A_TIME = 2  # shards of a text that is read in order, as a window may end in the next one
_OFFSET, _SPLIT = 1, 4  # keys that set these random bits apart from those of noise and dropout

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens, targets and document ids, (T,) each


class Stream(Protocol):
    """The tokens of a split: documents one after another, each from bos to eos."""

    @property
    def documents(self) -> np.ndarray: ...  # (documents,) int64: where each begins
    def __len__(self) -> int: ...
    def read(self, start: int, stop: int) -> np.ndarray: ...


class Windows:
    """The windows of one stream.

    Packed windows start every `max_seq_len` tokens and hold one more, so each token is an input
    once and a target once. Each epoch but the first takes the stream as a ring and begins at
    another token, so that its windows are cut anew: where a text is read often, no window comes
    twice. A padded row holds one document of at most `max_seq_len` tokens; a longer one is cut,
    but keeps its last token (eos).

    With `bpe_dropout` some tokens are split. What then no longer fits into its window is left out;
    another epoch's windows end elsewhere.
    """

    def __init__(
        self, stream: Stream, data: DataConfig, seed: int, bpe_dropout: BpeDropout | None = None
    ) -> None:
        self.stream, self.data, self.seed, self.bpe_dropout = stream, data, seed, bpe_dropout
        if data.packing == "pad":
            self.count = len(stream.documents)
        else:
            self.count = max(1, -(-(len(stream) - 1) // data.max_seq_len))

    def ordered(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the windows at `places` of an epoch's order, in which each occurs exactly once."""
        if not self.data.shuffle:
            return places
        return permute(places, self.count, self.seed, epoch)

    def row(self, window: int, epoch: int) -> Row:
        """Return a window of an epoch: what it holds, and what is to be predicted."""
        if self.data.packing == "pad":
            return self._padded_row(window, epoch)
        return self._packed_row(window, epoch)

    def documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the documents, by index in the split, that have tokens in an epoch's windows."""
        if self.data.packing == "pad":
            return sorted(int(w) for w in windows)
        starts, found, offset = self.stream.documents, set[int](), self.offset(epoch)
        for window in windows:
            for start, stop in self._stretches(int(window), offset):
                first = int(np.searchsorted(starts, start, side="right")) - 1
                found.update(range(first, int(np.searchsorted(starts, stop))))
        return sorted(found)

    def expect(self, epoch: int, place: int) -> None:
        """Tell the stream which shards are read from a place of an epoch on."""
        if isinstance(self.stream, TokenStream):
            self.stream.expect(*self._shards_from(self.stream, place))

    def _shards_from(self, stream: TokenStream, place: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the shards that are read now and soon: where windows are shuffled, all now."""
        count = len(stream.names)
        if self.data.shuffle:
            return range(count), ()
        is_row = self.data.packing == "pad"
        token = int(stream.documents[place]) if is_row else place * self.data.max_seq_len
        at = token // stream.shard_tokens
        ahead = [(at + i) % count for i in range(min(count, 2 * AT_A_TIME))]
        return ahead[:AT_A_TIME], ahead[AT_A_TIME:]

    def offset(self, epoch: int) -> int:
        """Return the token at which an epoch's first window begins."""
        if epoch == 0 or not self.data.shuffle:
            return 0
        return _offset_bits(self.seed, epoch) % len(self.stream)

    def _stretches(self, window: int, offset: int) -> list[tuple[int, int]]:
        """Return where a packed window's tokens are in the stream: one stretch, or two."""
        T, total = self.data.max_seq_len, len(self.stream)
        first = window * T
        # after the last token comes the ring's first one, unless the epoch ends where the text does
        last = min(first + T + 1, total + 1 if offset else total)
        start, stop = offset + first, offset + last
        if start >= total:
            return [(start - total, stop - total)]
        return [(start, stop)] if stop <= total else [(start, total), (0, stop - total)]

    def _packed_row(self, window: int, epoch: int) -> Row:
        T, documents = self.data.max_seq_len, self.stream.documents
        parts, begins, length = [], [], 0
        for start, stop in self._stretches(window, self.offset(epoch)):
            parts.append(self.stream.read(start, stop).astype(np.int64))
            first, last = np.searchsorted(documents, [start, stop])
            begins.append(np.asarray(documents[first:last]) - start + length)
            length += stop - start
        read, origin = self._split(np.concatenate(parts), window, epoch)
        read = read[: T + 1]
        begin = np.searchsorted(origin, np.concatenate(begins))
        begin = begin[(begin > 0) & (begin < len(read))]  # in 1 … T
        targets = np.full(T, IGNORE_INDEX, np.int64)
        targets[: len(read) - 1] = read[1:]
        tokens = np.zeros(T, np.int64)  # only the last window can be shorter
        tokens[: len(read[:T])] = read[:T]
        targets[begin - 1] = IGNORE_INDEX  # the next token belongs to another document
        ids = np.zeros(T + 1, np.int32)
        ids[begin] = 1
        return tokens, targets, ids[:T].cumsum(dtype=np.int32)

    def _padded_row(self, document: int, epoch: int) -> Row:
        T, starts = self.data.max_seq_len, self.stream.documents
        start = int(starts[document])
        stop = int(starts[document + 1]) if document + 1 < len(starts) else len(self.stream)
        last = self.stream.read(stop - 1, stop)[0]
        read = self.stream.read(start, min(stop, start + T)).astype(np.int64)
        read = self._split(read, document, epoch)[0][:T]
        if stop - start > T or len(read) == T:
            read[-1] = last
        row = np.full(T, IGNORE_INDEX, np.int64)
        row[: len(read)] = read
        return np.maximum(row[:-1], 0), row[1:], np.zeros(T - 1, np.int32)

    def _split(self, tokens: np.ndarray, window: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a window's tokens, some of them split, and where each was before."""
        if self.bpe_dropout is None:
            return tokens, np.arange(len(tokens))
        most = (self.data.max_seq_len + 1) << SPLIT_ROUNDS

        def bits(number: int, count: int) -> np.ndarray:
            return random_bits(window * most + np.arange(count), self.seed, epoch, _SPLIT, number)

        return self.bpe_dropout.split(tokens, bits)


@functools.lru_cache(maxsize=1024)  # asked for with every window, and of shards by many seeds
def _offset_bits(seed: int, epoch: int) -> int:
    return int(random_bits(np.array(epoch), seed, _OFFSET))
