"""Text as it is read → what the filters that look at one text alone leave of it, with its marks.

On Ray, a task does this with a part of the sources (`data/sources/parts.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jielong.cleaning.marks import Marker, Marks
from jielong.cleaning.outcome import Change, Drop, TextFilter
from jielong.cleaning.staging import BATCH_BYTES, BATCH_TEXTS, Place, Places, Texts
from jielong.data.sources.documents import Source
from jielong.data.sources.items import BadLine, Document, Item, Remark
from jielong.data.sources.parts import Part, PartEnd, PartReader, PartsInOrder
from jielong.data.sources.parts_on_ray import parts_on_ray
from jielong.data.sources.reading import Reading
from jielong.errors import DataError
from jielong.runtime import ray_tasks


@dataclass(frozen=True)
class Work:
    """How texts are judged.

    Attributes:
        filters: that look at one text alone, by name, in order.
        marker: makes what the texts that are left are compared by.
    """

    filters: Mapping[str, TextFilter]
    marker: Marker


@dataclass(frozen=True)
class Judgement:
    """What a filter said of a text; and the text, if it is dropped."""

    name: str
    outcome: Drop | Change
    place: Place
    text: str = ""


@dataclass
class Judged:
    """What is left of texts that follow each other.

    Attributes:
        count, size: texts read, and their bytes in UTF-8.
        texts, places, marks: of those that are left.
        judgements: what filters said, in order.
        found: what was left out, and remarks, each with the bytes of the texts before it.
        read_bytes: bytes of the texts after the last of them, in their source.
        error: that ended the reading.
        done: share of all text that has been read; None: not known.
    """

    texts: Texts
    places: Places
    marks: Marks
    count: int = 0
    size: int = 0
    judgements: list[Judgement] = field(default_factory=list)
    found: list[tuple[int, BadLine | Remark]] = field(default_factory=list)
    read_bytes: int = 0
    error: DataError | None = None
    done: float | None = None


def judged_on_ray(sources: Sequence[Source], reading: Reading, work: Work) -> Iterator[Judged]:
    """Yield what is left of the texts of sources, as `judged` does, by the workers of Ray."""
    place = ray_tasks.share((work, reading, len(sources) == 1))
    total, done = sum(source.size or 0 for source in sources), 0
    for part, order, results in parts_on_ray(_judge_part, place, sources, reading):
        done += part.size
        for result in results:
            if isinstance(result, PartEnd):
                some = _Batch(work).finished()
                some.found = [(0, remark) for remark in order.end(part, result)]
            else:
                some = _placed(result, order)
            some.done = done / total if total else None
            yield some


def _judge_part(place: list[Any], part: Part, is_sure: bool) -> Iterator[Judged | PartEnd]:
    """Judge the texts of a part: the task of a worker."""
    work, reading, alone = ray_tasks.shared(place)
    reader = PartReader(part, reading, alone, is_sure)
    for some in judged(reader.items(), work):
        if some.error is not None:
            some.error = DataError(str(some.error))  # its own kind may not be sent
        yield some
    yield reader.end


def _placed(judged: Judged, order: PartsInOrder) -> Judged:
    """Return what comes of a part of a file with lines counted from the first of the file."""
    if judged.found:
        judged.found = [(size, order.placed(item)) for size, item in judged.found]
    if before := order.lines_before:
        places = judged.places
        judged.places = dataclasses.replace(places, lines=places.lines + before)
        for number, said in enumerate(judged.judgements):
            place = Place(said.place.source, said.place.line + before)
            judged.judgements[number] = dataclasses.replace(said, place=place)
    return judged


def judged(items: Iterable[Item], work: Work) -> Iterator[Judged]:
    """Yield what is left of the texts among items, some texts at a time."""
    batch = _Batch(work)
    try:
        for item in items:
            batch.take(item)
            if batch.is_full:
                yield batch.finished()
                batch = _Batch(work)
    except DataError as error:
        batch.error = error
    yield batch.finished()


class _Batch:
    """Texts that are judged together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._texts: list[bytes] = []
        self._places: list[Place] = []
        self._judgements: list[Judgement] = []
        self._found: list[tuple[int, BadLine | Remark]] = []
        self._items = self._count = self._size = self._read_bytes = 0
        self.error: DataError | None = None

    @property
    def is_full(self) -> bool:
        return self._size >= BATCH_BYTES or self._items >= BATCH_TEXTS

    def take(self, item: Item) -> None:
        """Judge a text, or note what was left out."""
        self._items += 1
        if not isinstance(item, Document):
            self._found.append((self._read_bytes, item))
            self._read_bytes = 0
            return
        size = len(item.text.encode())
        self._count += 1
        self._size += size
        self._read_bytes += item.size or size
        place = Place(item.source, item.line)
        text = item.text
        for name, judge in self._work.filters.items():
            outcome = judge(text)
            if isinstance(outcome, Drop):
                self._judgements.append(Judgement(name, outcome, place, text))
                return
            if isinstance(outcome, Change):
                # the text that it becomes is not sent twice
                said = dataclasses.replace(outcome, text="")
                self._judgements.append(Judgement(name, said, place))
                text = outcome.text
        self._texts.append(text.encode())
        self._places.append(place)

    def finished(self) -> Judged:
        """Return what is left, with its marks."""
        texts = Texts.of(self._texts)
        return Judged(
            texts,
            Places.of(self._places),
            self._work.marker.marks(texts),
            self._count,
            self._size,
            self._judgements,
            self._found,
            self._read_bytes,
            self.error,
        )
