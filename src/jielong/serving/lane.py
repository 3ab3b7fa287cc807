"""The slots of the KV cache that texts of one precision use, side by side."""

from __future__ import annotations

from torch import Tensor

from jielong.generation.batch_decoder import BatchDecoder, CacheSlot
from jielong.serving.rows import Row


class Lane:
    """Texts that are stepped together. Two lanes share a cache: they fill it from both ends.

    Args:
        pairs: (layers, slots, 2, kv heads, max_len, head size), the whole cache.
        decoder: computes their steps.
        from_front: from which end of the cache.
    """

    def __init__(self, pairs: Tensor, decoder: BatchDecoder, from_front: bool) -> None:
        self.decoder = decoder
        self._pairs, self._from_front = pairs, from_front
        self.rows: list[Row] = []  # in the order of `used`

    @property
    def used(self) -> Tensor:
        """The part of the cache that holds `rows`, in their order."""
        slots = self._pairs.shape[1]
        start = 0 if self._from_front else slots - len(self.rows)
        return self._pairs[:, start : start + len(self.rows)]

    def add(self, row: Row) -> None:
        """Give a text the next slot; the caller knows that one is free."""
        place = len(self.rows) if self._from_front else 0
        self.rows.insert(place, row)
        row.cache = self._slot(place, 0)

    def _slot(self, place: int, length: int) -> CacheSlot:
        return CacheSlot(self.used[:, place : place + 1], length)

    def remove_ended(self) -> None:
        """Free the slots of texts that have ended or whose client has left; close the gaps."""
        place = 0
        while place < len(self.rows):
            row = self.rows[place]
            if row.remaining and not row.job.cancelled:
                place += 1
                continue
            self._remove(place)
            row.job.unfinished -= 1

    def _remove(self, place: int) -> None:
        outermost = len(self.rows) - 1 if self._from_front else 0  # beside the free slots
        if place != outermost:
            moved = self.rows[outermost]
            n, old = moved.length, moved.cache
            moved.cache = self._slot(place, n)
            moved.cache.pairs[..., :n, :] = old.pairs[..., :n, :]
            self.rows[place] = moved
        del self.rows[outermost]
