"""Several texts in one run: each has its share of the windows, evenly spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jielong.data.shard_blocks import AnyWindows, windows_of
from jielong.data.windows import Row, Stream


@dataclass(frozen=True)
class Part:
    """The training split of a text beside the main one, and its share of a run's windows."""

    stream: Stream
    share: float  # above 0; those of all parts are below 1


@dataclass(frozen=True)
class Mixture:
    """What is mixed into a run's main text.

    Attributes:
        passes: how often the main text is read while the mixture is read once.
    """

    parts: tuple[Part, ...]
    passes: float = 1.0

    @property
    def main_share(self) -> float:
        """The share that the main text has of a run's windows."""
        return 1 - sum(part.share for part in self.parts)


class MixedWindows:
    """The windows of a main text with those of other texts, the parts, between them.

    An epoch has every window of the main text, in the order that it has alone, and a fixed number
    of each part's, evenly spread among them. A part's go on from epoch to epoch: each window of it
    comes once before any comes again, in another order and cut anew. (For replay against
    forgetting: Robins 1995; in continued pretraining Ibrahim et al. 2024.)

    Windows below `main.count` are the main text's; then come each part's of the epoch, in order.
    """

    def __init__(self, main: AnyWindows, mixture: Mixture) -> None:
        self.main = main
        self.parts = [
            windows_of(part.stream, main.data, main.seed, main.bpe_dropout)
            for part in mixture.parts
        ]
        self.counts = [  # windows of each part in an epoch
            max(1, round(main.count * part.share / mixture.main_share)) for part in mixture.parts
        ]
        self.begins = main.count + np.cumsum([0, *self.counts])  # and where its numbers begin
        self.count = int(self.begins[-1])

    def epochs(self, part: int, windows: float) -> float:
        """Return how often a part is read in the first `windows` of a run."""
        return windows * self.counts[part] / self.count / self.parts[part].count

    def ordered(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the windows at `places` of an epoch's order, in which each occurs exactly once."""
        found = np.empty_like(places)
        left, total = np.arange(len(places)), self.count  # what is of no later part
        for part in reversed(range(len(self.parts))):
            count = self.counts[part]
            before = places * count // total  # the part's windows at earlier places
            is_other = (places + 1) * count // total == before
            found[left[~is_other]] = self.begins[part] + before[~is_other]
            left, places, total = left[is_other], (places - before)[is_other], total - count
        found[left] = self.main.ordered(epoch, places)
        return found

    def expect(self, epoch: int, place: int) -> None:
        """Tell the streams which shards are read from a place of an epoch on."""
        left, total = place, self.count
        for part in reversed(range(len(self.parts))):
            text, count = self.parts[part], self.counts[part]
            before = left * count // total  # the part's windows at earlier places
            text.expect(*divmod(epoch * count + before, text.count))
            left, total = left - before, total - count
        self.main.expect(epoch, left)

    def row(self, window: int, epoch: int) -> Row:
        """Return a window of an epoch: what it holds, and what is to be predicted."""
        if window < self.main.count:
            return self.main.row(window, epoch)
        part = self._part_of(window)
        own_epoch, windows = self._of_part(part, np.array([window]), epoch)[0]
        return self.parts[part].row(int(windows[0]), own_epoch)

    def documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the main text's documents, by index, that have tokens in an epoch's windows."""
        return self.main.documents_of(windows[windows < self.main.count], epoch)

    def documents_of_part(self, part: int, windows: np.ndarray, epoch: int) -> list[int]:
        """Return a part's documents, by index, that have tokens in an epoch's windows."""
        begin, end = self.begins[part], self.begins[part + 1]
        chosen = windows[(windows >= begin) & (windows < end)]
        found = self._of_part(part, chosen, epoch)
        return sorted({d for e, own in found for d in self.parts[part].documents_of(own, e)})

    def _part_of(self, window: int) -> int:
        return int(np.searchsorted(self.begins, window, side="right")) - 1

    def _of_part(self, part: int, windows: np.ndarray, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return windows of a part as that text's own, by its own epochs."""
        text = self.parts[part]
        running = epoch * self.counts[part] + windows - self.begins[part]  # since the run began
        epochs, places = np.divmod(running, text.count)
        return [(int(e), text.ordered(int(e), places[epochs == e])) for e in np.unique(epochs)]
