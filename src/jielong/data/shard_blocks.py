"""Windows shuffled within blocks of shards: a large dataset is read a few shards at a time."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from jielong.config.settings import DataConfig
from jielong.data.noise import BpeDropout
from jielong.data.shards import TokenStream
from jielong.data.shuffle import permute, random_bits
from jielong.data.windows import Row, Stream, Windows

_SHARD, _ORDER, _BLOCK = 5, 6, 7  # keys that set these random numbers apart from others


def windows_of(
    stream: Stream, data: DataConfig, seed: int, bpe_dropout: BpeDropout | None = None
) -> AnyWindows:
    """Return the windows of a stream, in the order that the settings say."""
    kind = Windows if data.shuffle_shards is None else BlockWindows
    return kind(stream, data, seed, bpe_dropout)


class ShardStream:
    """One shard as a stream: a document that began before it begins again with it.

    Attributes:
        documents: (documents,) int64, start of each document, or of its rest, in the shard.
        first_document: index, in the whole stream, of the first one.
    """

    def __init__(self, stream: Stream, begin: int, end: int) -> None:
        self._stream, self._begin, self._length = stream, begin, end - begin
        first, last = np.searchsorted(stream.documents, [begin, end])
        starts = np.asarray(stream.documents[first:last]) - begin
        is_cut = not len(starts) or starts[0] > 0
        self.documents = np.concatenate([[0], starts]) if is_cut else starts
        self.first_document = int(first) - is_cut

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._stream.read(self._begin + start, self._begin + stop)


class BlockWindows:
    """The windows of a stream, in an order that reads `data.shuffle_shards` shards at a time.

    An epoch takes the shards in a random order, in blocks; the windows of a block are shuffled, and
    all come before any of the next block. (Blocks of shards: the MosaicML team, Streaming, 2022.)
    No window crosses a shard's border: a shard is a ring, cut anew in each epoch as `Windows` cuts
    a whole stream, so its last token has no target.

    Windows are numbered by shard, so that each has a number of its own.
    """

    def __init__(
        self, stream: Stream, data: DataConfig, seed: int, bpe_dropout: BpeDropout | None = None
    ) -> None:
        assert data.shuffle_shards is not None and data.shuffle
        self.stream, self.data, self.seed, self.bpe_dropout = stream, data, seed, bpe_dropout
        size = stream.shard_tokens if isinstance(stream, TokenStream) else len(stream)
        self._borders = np.append(np.arange(0, len(stream), size), len(stream))
        self._counts = self._count_windows()  # of each shard
        self._begins = np.cumsum([0, *self._counts])  # the first window of each
        self.count = int(self._begins[-1])
        self._blocks = -(-len(self._counts) // data.shuffle_shards)
        in_use = 2 * data.shuffle_shards  # each holds where its documents begin
        self._of_shard = functools.lru_cache(maxsize=in_use)(self._windows_of)
        self._layout = functools.lru_cache(maxsize=4)(self._lay_out)

    def _count_windows(self) -> np.ndarray:
        borders = self._borders
        if self.data.packing == "pad":
            begins = np.searchsorted(self.stream.documents, borders)
            whole = self.stream.documents[np.minimum(begins[:-1], begins[-1] - 1)] == borders[:-1]
            return np.diff(begins) + ~whole
        return np.maximum(1, -(-(np.diff(borders) - 1) // self.data.max_seq_len))

    def _windows_of(self, shard: int) -> Windows:
        begin, end = int(self._borders[shard]), int(self._borders[shard + 1])
        seed = int(random_bits(np.array(shard), self.seed, _SHARD))
        return Windows(ShardStream(self.stream, begin, end), self.data, seed, self.bpe_dropout)

    def _lay_out(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the shards of each block of an epoch, and the place at which each block begins."""
        count, seed = len(self._counts), int(random_bits(np.array(0), self.seed, _ORDER))
        blocks = np.array_split(permute(np.arange(count), count, seed, epoch), self._blocks)
        return blocks, np.cumsum([0, *(self._counts[block].sum() for block in blocks)])

    def ordered(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the windows at `places` of an epoch's order, in which each occurs exactly once."""
        blocks, begins = self._layout(epoch)
        found = np.empty_like(places)
        block_of = np.searchsorted(begins, places, side="right") - 1
        for number in np.unique(block_of):
            own, shards = block_of == number, blocks[number]
            seed = int(random_bits(np.array(number), self.seed, _BLOCK))
            within = np.cumsum([0, *self._counts[shards]])
            window = permute(places[own] - begins[number], int(within[-1]), seed, epoch)
            at = np.searchsorted(within, window, side="right") - 1
            found[own] = self._begins[shards[at]] + window - within[at]
        return found

    def row(self, window: int, epoch: int) -> Row:
        """Return a window of an epoch: what it holds, and what is to be predicted."""
        shard = self._shard_of(window)
        return self._of_shard(shard).row(window - int(self._begins[shard]), epoch)

    def _shard_of(self, window: int) -> int:
        return int(np.searchsorted(self._begins, window, side="right")) - 1

    def documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the documents, by index in the split, that have tokens in an epoch's windows."""
        shards = np.searchsorted(self._begins, windows, side="right") - 1
        found = set[int]()
        for shard in np.unique(shards):
            own, text = windows[shards == shard] - self._begins[shard], self._of_shard(int(shard))
            assert isinstance(text.stream, ShardStream)
            first = text.stream.first_document
            found.update(first + document for document in text.documents_of(own, epoch))
        return sorted(found)

    def expect(self, epoch: int, place: int) -> None:
        """Tell the stream which shards are read from a place of an epoch on: a block, the next."""
        if isinstance(self.stream, TokenStream):
            self.stream.expect(*self.shards_from(epoch, place))

    def shards_from(self, epoch: int, place: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the shards of the block at a place of an epoch, and those of the next one."""
        blocks, begins = self._layout(epoch)
        at = int(np.searchsorted(begins, place, side="right")) - 1
        after = blocks[at + 1] if at + 1 < len(blocks) else self._layout(epoch + 1)[0][0]
        return blocks[at].tolist(), after.tolist()


AnyWindows = Windows | BlockWindows
