"""What the watch asks the store: a store that answers late, or never, holds nothing up for long."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import HashStore

from jielong.runtime import questions
from jielong.runtime.questions import Questions, UnreachableError


class Slow:
    """Operations of a store; those that begin while the gate is closed wait for it."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), list[str]()

    def ask(self, what: str) -> str:
        self.begun.append(what)
        assert self.gate.wait(60)
        return what


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(questions, "STORE_S", 0.05)
    monkeypatch.setattr(questions, "SOON_S", 0.01)
    return Slow()


def test_a_store_that_does_not_answer_gets_one_question_and_then_each_new_one(slow: Slow) -> None:
    asked = Questions(HashStore())
    for what in ("first", "second", "third"):
        with pytest.raises(UnreachableError):
            asked.ask(lambda _, what=what: slow.ask(what))  # type: ignore[misc]
    assert slow.begun == ["first"]
    slow.gate.set()
    assert asked.pending.acquire(timeout=60)  # the answer has come, though nobody waits for it
    asked.pending.release()
    for what in ("fourth", "fifth"):
        assert asked.ask(lambda _, what=what: slow.ask(what)) == what  # type: ignore[misc]
    assert slow.begun == ["first", "fourth", "fifth"]


def test_what_breaks_in_the_store_is_a_store_out_of_reach_and_the_next_question_is_asked() -> None:
    asked = Questions(HashStore())

    def breaks(_: object) -> None:
        raise RuntimeError("Connection reset by peer")

    for _ in range(2):
        with pytest.raises(UnreachableError):
            asked.ask(breaks)
    asked.ask(lambda store: store.set("key", "value"))
    assert asked.ask(lambda store: store.get("key")) == b"value"


def test_several_threads_may_ask_and_each_gets_its_own_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(questions, "STORE_S", 60.0)  # however busy the machine
    asked, wrong = Questions(HashStore()), list[int]()

    def many(number: int) -> None:
        for _ in range(200):
            if asked.ask(lambda _: number) != number:
                wrong.append(number)

    threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
