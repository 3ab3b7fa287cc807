"""Loss spikes, found by a robust z-score over the latest losses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

WINDOW = 64  # losses remembered
LEAST = 16  # with fewer there is no judging
LIMIT = 10.0  # deviations above the median
_NORMAL = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


def score(losses: Sequence[float], loss: float) -> float:
    """How many deviations `loss` lies above the median of the losses before it.

    The deviation is the median absolute one, which a few outliers do not move, but at least a
    fiftieth of the median: a run whose loss hardly varies is not alarmed by noise. So nothing below
    1.2 times the median is a spike.
    """
    if len(losses) < LEAST:
        return 0.0
    median = statistics.median(losses)
    spread = _NORMAL * statistics.median(abs(value - median) for value in losses)
    return (loss - median) / max(spread, 0.02 * median, 1e-3)


def remember(losses: list[float], loss: float) -> None:
    """Add a loss; the oldest beyond the window is forgotten."""
    losses.append(loss)
    del losses[:-WINDOW]
