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
        # Held while a question has no answer, so that a slow store gets no more of them than it
        # answers; else each would wait for all before it, and a slow store seem to be gone.
        self.pending = threading.Lock()
        self.late = False
        threading.Thread(target=self._answer, name="watchdog's store", daemon=True).start()

    def ask(self, question: Callable[[Store], T]) -> T:
        """Return what `question` gives for the store.

        Raises:
            UnreachableError: it does not answer in time.
        """
        if not self.pending.acquire(timeout=SOON_S if self.late else STORE_S):
            raise UnreachableError
        answer: queue.SimpleQueue[tuple[T | None, RuntimeError | None]] = queue.SimpleQueue()
        self.asked.put((question, answer))
        try:
            value, problem = answer.get(timeout=STORE_S)
        except queue.Empty:
            self.late = self.pending.locked()
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
            self.late = False
            self.pending.release()
