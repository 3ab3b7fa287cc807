"""Workers of Ray, one that is killed at its task, and what both engines write or say compared."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jielong.runtime import ray_tasks
from tiny import in_this_process

UP_S = 60


@contextlib.contextmanager
def two_workers() -> Iterator[None]:
    """Ray started here for two tasks at a time, also where there is one core."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
            stack.enter_context(ray_tasks.connected(None))
        yield


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but for what says when they were checked."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "verified.json"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def assert_told_alike(words: list[str], out: Path) -> None:
    """A command that would write `out` fails with one line, the same by both engines."""
    said = [
        in_this_process([*words, "--out-dir", str(out), "--engine", engine])
        for engine in ("local", "ray")
    ]
    assert said[0] == said[1], said
    assert said[0][0] == 2 and said[0][1].count("\n") == 1, said
    assert not out.exists()


@contextlib.contextmanager
def one_killed(task: str, sent: int = signal.SIGKILL) -> Iterator[list[int]]:
    """Kill the first worker that is still at a task after a moment, while the block runs.

    Args:
        sent: the signal that it gets.

    Yields:
        The number of the process, once it has been killed.
    """
    killed: list[int] = []
    over = threading.Event()
    title = f"ray::{task}".encode()
    watcher = threading.Thread(target=_kill_one, args=(title, sent, killed, over))
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()


def _kill_one(title: bytes, sent: int, killed: list[int], over: threading.Event) -> None:
    deadline = time.monotonic() + UP_S
    while not killed and not over.is_set() and time.monotonic() < deadline:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if place.read_bytes().startswith(title):
                    time.sleep(0.1)
                    if place.read_bytes().startswith(title):
                        killed.append(int(place.parent.name))
                        os.kill(killed[0], sent)
                        return
        time.sleep(0.01)
