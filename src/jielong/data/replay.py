"""Older text mixed into a run, so that a model that goes on with new text keeps what it knew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jielong.data.windows import Row, Stream, Windows


@dataclass(frozen=True)
class Replay:
    """The training split of the older text, and its share of a run's windows."""

    stream: Stream
    share: float  # above 0, below 1


class ReplayedWindows:
    """The windows of a new text with those of an older one between them.

    An epoch has every window of the new text, in the order that it has without the older one, and
    a fixed number of the older one's, evenly spread among them. Those go on from epoch to epoch:
    each window of the older text comes once before any comes again, in another order and cut
    anew. (Replay against forgetting: Robins 1995; in continued pretraining Ibrahim et al. 2024.)

    Windows below `new.count` are the new text's, the others the epoch's replayed ones in order.
    """

    def __init__(self, new: Windows, replay: Replay) -> None:
        self.new = new
        self.old = Windows(replay.stream, new.data, new.seed, new.bpe_dropout)
        self.replayed = max(1, round(new.count * replay.share / (1 - replay.share)))  # an epoch
        self.count = new.count + self.replayed

    def epochs(self, windows: float) -> float:
        """Return how often the older text is read in the first `windows` of a run."""
        return windows * self.replayed / self.count / self.old.count

    def ordered(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the windows at `places` of an epoch's order, in which each occurs exactly once."""
        before = places * self.replayed // self.count  # replayed windows at earlier places
        is_new = (places + 1) * self.replayed // self.count == before
        windows = self.new.count + before
        windows[is_new] = self.new.ordered(epoch, (places - before)[is_new])
        return windows

    def offset(self, epoch: int) -> int:
        """Return the token of the new text at which an epoch's first window begins."""
        return self.new.offset(epoch)

    def row(self, window: int, epoch: int) -> Row:
        """Return a window of an epoch: what it holds, and what is to be predicted."""
        if window < self.new.count:
            return self.new.row(window, epoch)
        old_epoch, windows = self._replayed(np.array([window]), epoch)[0]
        return self.old.row(int(windows[0]), old_epoch)

    def documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the new text's documents, by index, that have tokens in an epoch's windows."""
        return self.new.documents_of(windows[windows < self.new.count], epoch)

    def replayed_documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the older text's documents, by index, that have tokens in an epoch's windows."""
        parts = self._replayed(windows[windows >= self.new.count], epoch)
        return sorted({d for e, replayed in parts for d in self.old.documents_of(replayed, e)})

    def _replayed(self, windows: np.ndarray, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return replayed windows as windows of the older text, by its own epochs."""
        running = epoch * self.replayed + windows - self.new.count  # since the run began
        epochs, places = np.divmod(running, self.old.count)
        return [(int(e), self.old.ordered(int(e), places[epochs == e])) for e in np.unique(epochs)]
