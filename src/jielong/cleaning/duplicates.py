"""Texts that are there already, exactly or nearly: of each, the first one stays.

Candidates are the texts that have the same marks (`marks.py`). Whether one is dropped is then
decided by the texts themselves; of near ones by the share of their shingles that they have in
common (Jaccard). So none is dropped by chance, and each that is dropped is that similar to one that
stays, which is named.

Texts that no chain of candidates joins have no say in each other. So the near ones are decided
group by group, and whoever does it comes to the same end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jielong.cleaning.columns import CHUNK, LISTED, filled
from jielong.cleaning.groups import groups
from jielong.cleaning.marks import COMPARED, TOO_LONG, MarkFiles
from jielong.cleaning.pairs import Pairs, both, of_numbers, share_keys
from jielong.cleaning.shingles import jaccard, shingles
from jielong.cleaning.staging import BATCH_BYTES, BATCH_TEXTS, Stage, Texts
from jielong.runtime.tasks import Tasks

COMPARISONS = 32  # most texts that one is compared with
HOPS = 4  # in a band: the one before it, the one before that, …
CACHED = 64  # texts whose shingles are kept, with at most CACHED_SHINGLES
CACHED_SHINGLES = 2**20
SENT_BYTES = 2**25  # of a group of texts; a larger one is decided where the texts are

Found = Callable[[int, int, float], None]  # (number, of the one that stays, similarity)
Decision = tuple[int, int, float]


def drop_exact(stage: Stage, marks: MarkFiles, tasks: Tasks, folder: Path, found: Found) -> None:
    """Drop the texts that are the same as an earlier one, but for white space around them.

    Args:
        folder: a new one for files while it works.
        found: called with each that is dropped, in order.
    """
    folder.mkdir()
    pairs = Pairs(folder / "pairs", len(stage))
    share_keys(tasks, marks.exact(), lambda chunk: stage.kept[chunk], pairs, folder, True)
    for number, first in _each(pairs.finish()):
        if stage.text(number).strip() == stage.text(first).strip():  # else two have one hash
            stage.drop(number)
            found(number, first, 1.0)


def drop_near(
    stage: Stage,
    marks: MarkFiles,
    similarity: float,
    tasks: Tasks,
    folder: Path,
    found: Found,
    progress: Callable[[int], None],
) -> int:
    """Drop the texts of which an earlier one that stays has a large share of the shingles.

    Args:
        similarity: least share that two have in common.
        folder: a new one for files while it works.
        found: called with each that is dropped, in order.
        progress: called with how many texts have been compared.

    Returns:
        How many texts were too long to be compared, and stay.
    """
    folder.mkdir()
    states, kept = marks.states(), stage.kept

    def is_compared(chunk: slice) -> np.ndarray:
        found: np.ndarray = kept[chunk] & (states[chunk] == COMPARED)
        return found

    pairs = Pairs(folder / "pairs", len(stage))
    for number in range(marks.bands):
        share_keys(tasks, marks.take_band(number), is_compared, pairs, folder, False)
    links = pairs.finish()
    if len(links):
        decided = filled(folder / "decided", len(stage), [("other", "<i8"), ("share", "<f8")])
        compared = 0
        cases = _cases(stage, links, groups(links, len(stage), folder), similarity, decided)
        for count, decisions in tasks.each(_decide, similarity, cases):
            _enter(decisions, decided)
            compared += count
            progress(compared)
        for begin in range(0, len(stage), LISTED):
            for number in (
                np.flatnonzero(decided["other"][begin : begin + LISTED]) + begin
            ).tolist():
                stage.drop(number)
                other, share = decided[number].tolist()
                found(number, other - 1, share)
    return sum(
        int((kept[begin : begin + CHUNK] & (states[begin : begin + CHUNK] == TOO_LONG)).sum())
        for begin in range(0, len(stage), CHUNK)
    )


def _each(pairs: np.ndarray) -> Iterator[tuple[int, int]]:
    for begin in range(0, len(pairs), LISTED):
        upper, lower = both(pairs[begin : begin + LISTED])
        yield from zip(upper.tolist(), lower.tolist(), strict=True)


def _enter(decisions: list[Decision], decided: np.ndarray) -> None:
    for number, other, share in decisions:
        decided[number] = other + 1, share  # 0: it stays


@dataclass(frozen=True)
class _Case:
    """Some groups of texts, to be decided.

    Attributes:
        numbers: of the texts, ascending within a group, (texts,) int64.
        links: the candidates among them, sorted.
        texts: the texts themselves.
    """

    numbers: np.ndarray
    links: np.ndarray
    texts: Texts


def _cases(
    stage: Stage,
    links: np.ndarray,
    all_groups: Iterator[np.ndarray],
    similarity: float,
    decided: np.ndarray,
) -> Iterator[_Case]:
    """Yield the groups several at a time; decide those that are too large to be sent."""
    some: list[np.ndarray] = []
    count = size = 0
    for group in all_groups:
        its_size = int(stage.sizes(group).sum())
        if its_size > SENT_BYTES:
            _enter(_Links(_within(links, group)).decided(stage.text, similarity), decided)
            continue
        some.append(group)
        count += len(group)
        size += its_size
        if size >= BATCH_BYTES or count >= BATCH_TEXTS:
            yield _case(stage, links, some)
            some, count, size = [], 0, 0
    if some:
        yield _case(stage, links, some)


def _case(stage: Stage, links: np.ndarray, some: list[np.ndarray]) -> _Case:
    numbers = np.sort(np.concatenate(some))
    texts = Texts.of([stage.data(number) for number in numbers.tolist()])
    return _Case(numbers, _within(links, numbers), texts)


def _within(links: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the links of texts; all that they are linked with are among them."""
    begins, ends = of_numbers(links, numbers)
    found = [links[b:e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True) if e > b]
    return np.concatenate(found)


def _decide(similarity: float, case: _Case) -> tuple[int, list[Decision]]:
    """Return how many texts there were, and which are dropped: the task of a worker."""
    texts = dict(zip(case.numbers.tolist(), case.texts, strict=True))
    decisions = _Links(case.links).decided(texts.__getitem__, similarity)
    return len(texts), decisions


class _Links:
    """For each text, the ones right before it in the bands that it shares with others.

    Args:
        pairs: sorted, each of a text, and of one before it.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        self._pairs = pairs
        self._later, self._before = both(pairs)

    def decided(self, text: Callable[[int], str], similarity: float) -> list[Decision]:
        """Compare each with those before it in its bands, or with what those were dropped for."""
        stays: dict[int, int] = {}  # for which text another was dropped
        decisions: list[Decision] = []
        cached = _Shingles(text)
        for number in np.unique(self._later).tolist():
            own = cached.of(number)
            for other in self._candidates(number, stays):
                theirs = cached.of(other)
                if min(len(own), len(theirs)) < similarity * max(len(own), len(theirs)):
                    continue
                shared = jaccard(own, theirs)
                if shared >= similarity:
                    stays[number] = other
                    decisions.append((number, other, shared))
                    break
        return decisions

    def _candidates(self, number: int, stays: dict[int, int]) -> Iterator[int]:
        """Yield texts that stay and may be like a text, each once; the nearest first."""
        seen = {number}
        row = [number]
        for _ in range(HOPS):
            row = [other for later in row for other in self._of(later)][:COMPARISONS]
            for other in dict.fromkeys(row):
                kept = stays.get(other, other)
                if kept not in seen and len(seen) <= COMPARISONS:
                    seen.add(kept)
                    yield kept

    def _of(self, number: int) -> list[int]:
        begin, end = np.searchsorted(self._later, [number, number + 1])
        return self._before[begin:end].tolist()


class _Shingles:
    """The shingles of the texts that were compared with last."""

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()

    def of(self, number: int) -> np.ndarray:
        """Return those of a text."""
        if number not in self._held:
            self._put(number, shingles(self._text(number)))
        self._held.move_to_end(number)
        return self._held[number]

    def _put(self, number: int, values: np.ndarray) -> None:
        self._held[number] = values
        while len(self._held) > CACHED or sum(map(len, self._held.values())) > CACHED_SHINGLES:
            if len(self._held) == 1:
                break
            self._held.popitem(last=False)
