"""The parts of a text read by the workers of Ray, and taken in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from jielong.data.sources.documents import Source
from jielong.data.sources.parts import Part, PartsInOrder, split_sources
from jielong.data.sources.reading import Reading
from jielong.errors import DataError
from jielong.runtime import ray_tasks

# of a worker: what tasks share, a part, and whether its file is known to be UTF-8
PartTask = Callable[[list[Any], Part, bool], Iterator[Any]]


def parts_on_ray(
    task: PartTask, place: list[Any], sources: Sequence[Source], reading: Reading
) -> Iterator[tuple[Part, PartsInOrder, Iterable[Any]]]:
    """Call a task for each part of the sources; yield the part, the order, and what it yields.

    Args:
        task: yields results, and at last the `PartEnd` of its reader; with that, the caller ends
            the part in the order.
        place: what the tasks share.

    Raises:
        DataError: a source is standard input, which only this process can read.
        JielongError: a task failed, or was lost.
    """
    if pipes := [source.name for source in sources if source.kind == "stdin"]:
        raise DataError(f"{pipes[0]}: cannot be read by Ray's workers: save it as a file")
    order = PartsInOrder(reading)
    parts = split_sources([_anywhere(source) for source in sources], reading)
    calls = ((place, part, False) for part in parts if not order.is_vain(part))
    for (_, part, _), results in ray_tasks.in_order(task, calls):
        if order.is_vain(part):
            continue
        if part.stop is None or part.sources[0].kind == "parquet":
            yield part, order, results
            continue
        read = list(results)
        if read[-1].failed and order.is_sure:
            # what looks like another encoding is damage where the text is known to be UTF-8
            (_, again), *_ = ray_tasks.in_order(task, [(place, part, True)])
            read = list(again)
        yield part, order, read


def _anywhere(source: Source) -> Source:
    """Return the source with a path that does not depend on the folder of a process."""
    return source if source.path is None else replace(source, path=source.path.absolute())
