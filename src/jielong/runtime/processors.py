"""What other programs take of the processors that a run trains on."""

from __future__ import annotations

import os
from pathlib import Path

STAT = Path("/proc/stat")  # of Linux; elsewhere nothing is known
IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
TIMES = 8  # columns that are times of their own; guests' are part of users'


class OtherPrograms:
    """The share of this process's processors that others use, from one question to the next."""

    def __init__(self) -> None:
        self.busy, self.own, self.total = _times() or (0.0, 0.0, 0.0)

    def share(self) -> float | None:
        """Return the share, 0 to 1, since the last call; None where it is not known."""
        now = _times()
        if now is None:
            return None
        busy, own, total = now[0] - self.busy, now[1] - self.own, now[2] - self.total
        if total <= 0:
            return None
        self.busy, self.own, self.total = now
        return min(1.0, max(0.0, (busy - own) / total))


def _times() -> tuple[float, float, float] | None:
    """Seconds of this process's processors so far: in use, in use by this run, and in all."""
    try:
        allowed = {f"cpu{n}" for n in os.sched_getaffinity(0)}
        rows = [line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu")]
        tick = os.sysconf("SC_CLK_TCK")
        columns = [[int(x) / tick for x in row[1 : TIMES + 1]] for row in rows if row[0] in allowed]
    except (AttributeError, OSError, ValueError):
        return None
    total = sum(map(sum, columns))
    busy = total - sum(row[i] for row in columns for i in IDLE)
    spent = os.times()
    # each process of the run does about as much
    return busy, local_processes() * (spent.user + spent.system), total


def local_processes() -> int:
    """Return how many processes of this run torchrun has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
