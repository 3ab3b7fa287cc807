"""Durations and times of day, as a run writes them."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """Format a duration, e.g. `1h 02m`, `3m 20s`, `12s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m {seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


def clock(at: float) -> str:
    """Format a time of day in Unix seconds, with the date unless it is today's."""
    then, today = time.localtime(at), time.localtime()
    same = then[:3] == today[:3]
    return time.strftime("%H:%M" if same else "%a %d %b %H:%M", then)
