"""The sample that a tokenizer is trained on, read by the workers of Ray.

Which pieces of text are in it depends on their numbers. So the workers count the pieces of each
part of the text first, and then read again the parts that have some of the sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jielong.config.engine import Engine
from jielong.data.sources.documents import DocumentTexts, Source
from jielong.data.sources.items import BadLine, Document, Remark
from jielong.data.sources.losses import Losses
from jielong.data.sources.parts import Part, PartEnd, PartReader
from jielong.data.sources.parts_on_ray import parts_on_ray
from jielong.data.sources.reading import Reading
from jielong.errors import DataError
from jielong.runtime import ray_tasks
from jielong.tokenization.text_pieces import KEYS, even_pieces, sample_key, sample_numbered

COUNTED_ITEMS = 2**14  # of which a worker tells at a time


@dataclass(frozen=True)
class _Work:
    """What all tasks share."""

    reading: Reading
    alone: bool


@dataclass
class _Counted:
    """What was counted in items that follow each other.

    Attributes:
        found: what was left out, and remarks, each with the bytes of the documents before it.
        read_bytes: bytes of the documents after the last of them.
        pieces, text_bytes: of the documents.
    """

    found: list[tuple[int, BadLine | Remark]]
    read_bytes: int = 0
    pieces: int = 0
    text_bytes: int = 0
    error: DataError | None = None


@dataclass(frozen=True)
class _Place:
    """A part of the text, and the numbers of its pieces."""

    part: Part
    is_sure: bool
    first: int
    pieces: int


def sample_on_ray(engine: Engine, texts: DocumentTexts, sample_bytes: int) -> list[str]:
    """Return the pieces that `sample` would choose from the texts, and account for them.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
        DataError: a source cannot be read, or much too much of the text would be left out.
    """
    sources, reading, losses = texts.read_elsewhere()
    with ray_tasks.connected(engine.address):
        work = ray_tasks.share(_Work(reading, len(sources) == 1))
        places, text_bytes = _count(work, sources, reading, losses)
        bound = KEYS
        while bound > 1 and 2 * sample_bytes * KEYS < text_bytes * bound:
            bound //= 2  # so that about two to four times the sample is below it
        while True:
            calls = ((work, place, bound) for place in places)
            lists = (picks for _, picks in ray_tasks.in_order(_pick_part, calls))
            picked = itertools.chain.from_iterable(itertools.chain.from_iterable(lists))
            pieces, last = sample_numbered(picked, sample_bytes, bound)
            if last < bound or bound == KEYS:
                return pieces
            bound *= 2


def _count(
    work: list[Any], sources: Sequence[Source], reading: Reading, losses: Losses
) -> tuple[list[_Place], int]:
    """Count the pieces of all parts; return where they are, and the bytes of all."""
    places: list[_Place] = []
    number = text_bytes = 0
    for part, order, results in parts_on_ray(_count_part, work, sources, reading):
        first, is_sure = number, order.is_sure
        for result in results:
            if isinstance(result, PartEnd):
                found = _Counted([(0, remark) for remark in order.end(part, result)])
            else:
                found = result
            placed = ((size, order.placed(item)) for size, item in found.found)
            losses.replay(placed, lambda bad: None)
            losses.read_bytes += found.read_bytes
            if found.error is not None:
                raise found.error
            number += found.pieces
            text_bytes += found.text_bytes
        places.append(_Place(part, is_sure, first, number - first))
    return places, text_bytes


def _count_part(work: list[Any], part: Part, is_sure: bool) -> Iterator[_Counted | PartEnd]:
    """Count the pieces of a part: the first task of a worker."""
    shared: _Work = ray_tasks.shared(work)
    reader = PartReader(part, shared.reading, shared.alone, is_sure)
    counted = _Counted([])
    try:
        for number, item in enumerate(reader.items(), 1):
            if isinstance(item, Document):
                size = len(item.text.encode())
                counted.read_bytes += item.size or size
                counted.text_bytes += size
                counted.pieces += sum(1 for _ in even_pieces(item.text))
            else:
                counted.found.append((counted.read_bytes, item))
                counted.read_bytes = 0
            if number % COUNTED_ITEMS == 0:
                yield counted
                counted = _Counted([])
    except DataError as error:
        counted.error = DataError(str(error))
    yield counted
    yield reader.end


def _pick_part(work: list[Any], place: _Place, bound: int) -> Iterator[list[tuple[int, str]]]:
    """Yield the pieces of a part whose keys are below a bound: the second task of a worker."""
    numbers = range(place.first, place.first + place.pieces)
    wanted = {number for number in numbers if sample_key(number) < bound}
    if not wanted:
        return
    shared: _Work = ray_tasks.shared(work)
    reader = PartReader(place.part, shared.reading, shared.alone, place.is_sure)
    documents = (item for item in reader.items() if isinstance(item, Document))
    pieces = (piece for document in documents for piece in even_pieces(document.text))
    yield [(number, piece) for number, piece in enumerate(pieces, place.first) if number in wanted]
