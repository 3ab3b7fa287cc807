"""Tasks that are independent of each other, done one after another here, or by Ray's workers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from jielong.config.engine import Engine
from jielong.runtime import ray_tasks

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Tasks(Protocol):
    """Who does tasks."""

    def each(
        self, task: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield `task(shared, item)` of each item, in order.

        Args:
            task: a function of a module, which gives the same each time.
            shared: what all of them need; it is sent to each worker once.
            items: some are taken ahead of the results; at most twice as many as there are cores.

        Raises:
            JielongError: a task failed; the error is its own, or says that it was lost.
        """


class Here:
    """Does tasks in this process."""

    def each(
        self, task: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield `task(shared, item)` of each item, in order."""
        return (task(shared, item) for item in items)


class OnRay:
    """Has tasks done by the workers of Ray. Items and results lie in its shared memory."""

    def each(
        self, task: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield `task(shared, item)` of each item, in order."""
        import ray

        place = ray_tasks.share(shared)
        calls = ((place, ray.put(item)) for item in items)
        for _, results in ray_tasks.in_order(_of_worker(task), calls):
            yield from results


def _of_worker(task: Callable[[Any, Any], Any]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(task)
    def call(place: list[Any], item: Any) -> Iterator[Any]:
        yield task(ray_tasks.shared(place), item)

    return call


@contextlib.contextmanager
def tasks_of(engine: Engine) -> Iterator[Tasks]:
    """Yield who does the tasks of an engine.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
    """
    if not engine.is_ray:
        yield Here()
        return
    with ray_tasks.connected(engine.address):
        yield OnRay()
