"""Questions to the store where the ranks met, for a thread that must never wait for long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from torch._C._distributed_c10d import Store

STORE_S = 2.0  # in which the store answers, unless it cannot be reached
SOON_S = 0.5  # where an earlier question has had no answer
T = TypeVar("T")


class UnreachableError(RuntimeError):
    """The store does not answer: its process has ended or hangs, or the network is cut."""


class Questions:
    """Asks the store in a thread of its own: a store behind a cut network answers nothing, ever."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: queue.SimpleQueue[tuple[Callable[[Store], Any], queue.SimpleQueue[Any]]]
        self.asked = queue.SimpleQueue()
        self.waiting = 0
        threading.Thread(target=self._answer, name="watchdog's store", daemon=True).start()

    def ask(self, question: Callable[[Store], T]) -> T:
        """Return what `question` gives for the store.

        Raises:
            UnreachableError: it does not answer in time.
        """
        answer: queue.SimpleQueue[tuple[T | None, RuntimeError | None]] = queue.SimpleQueue()
        behind = self.waiting > 0  # an earlier one has had no answer
        self.waiting += 1
        self.asked.put((question, answer))
        try:
            value, problem = answer.get(timeout=SOON_S if behind else STORE_S)
        except queue.Empty:
            raise UnreachableError from None
        if problem is not None:
            raise UnreachableError from problem
        return value  # type: ignore[return-value]

    def _answer(self) -> None:
        while True:
            question, answer = self.asked.get()
            try:
                answer.put((question(self.store), None))
            except RuntimeError as problem:
                answer.put((None, problem))
            self.waiting -= 1
