"""Groups of texts that chains of pairs join (union-find, Galler and Fischer 1964), on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jielong.cleaning.columns import LISTED, filled
from jielong.cleaning.pairs import LOWER, Pairs, both, pair


def groups(pairs: np.ndarray, texts: int, folder: Path) -> Iterator[np.ndarray]:
    """Yield the numbers of the texts of each group in order, (texts of the group,) int64.

    Args:
        pairs: each of a text, and of one with a lower number.
        texts: how many there are.
        folder: for files while it works.
    """
    # of each text, how far before it another of its group is; 0: it is the first
    steps = filled(folder / "steps", texts, np.int64).data
    for begin in range(0, len(pairs), LISTED):
        for text, other in zip(
            *(n.tolist() for n in both(pairs[begin : begin + LISTED])), strict=True
        ):
            a, b = _first(steps, text), _first(steps, other)
            if a != b:
                steps[max(a, b)] = abs(a - b)
    members = Pairs(folder / "members", texts)
    for begin in range(0, len(pairs), LISTED):
        numbers = np.unique(np.concatenate(both(pairs[begin : begin + LISTED])))
        firsts = np.array([_first(steps, number) for number in numbers.tolist()])
        members.add(pair(firsts, numbers))
    yield from _cut(members.finish())


def _first(steps: memoryview, text: int) -> int:
    """Return the first text of a group, and shorten the way to it."""
    while step := steps[text]:
        before = text - step
        further = steps[before]
        steps[text] = step + further
        text = before - further
    return text


def _cut(members: np.ndarray) -> Iterator[np.ndarray]:
    begin = 0
    while begin < len(members):
        end = int(np.searchsorted(members, members[begin] | LOWER, "right"))
        yield (members[begin:end] & LOWER).astype(np.int64)
        begin = end
