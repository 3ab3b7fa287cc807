"""The page of `jielong ui`, on a thread of the test, and a run that trains meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jielong.serving.guard import Access
from jielong.serving.limits import Limits
from jielong.serving.server import Server, listen
from jielong.ui.app import create_app
from jielong.ui.players import Players, subjects_of
from live_server import wait_until


class GrowingRun:
    """A run that trains meanwhile, as its records tell it; it has no checkpoint yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("")
        self.write("start", total_steps=400, parameters=1000)

    def write(self, kind: str, **values: Any) -> None:
        record = {"kind": kind, "step": self.step, **values, "time": time.time()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def go_on(self, steps: int) -> None:
        """Record some steps, a validation and a sample."""
        for _ in range(steps):
            self.step += 10
            loss = 3 + 20 / self.step
            self.write("train", loss=loss, learning_rate=0.01, grad_norm=1.0, tokens=self.step * 8,
                       tokens_per_second=1000.0)  # fmt: skip
        self.write("validation", loss=loss, bits_per_byte=loss / 2)
        self.write("sample", prompt="Tale", text=f" <b>of</b> {self.step} nights")


@contextlib.contextmanager
def serving(folders: list[Path], access: Access | None = None) -> Iterator[tuple[str, Players]]:
    """Serve the page; end when the test has."""
    players = Players(subjects_of(folders), "cpu", Limits(slots=4, queue=16, max_tokens=1000))
    server = Server(create_app(players, access or Access()), players, players.limits)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_on, args=(listener,))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", players
    finally:
        server.should_exit = True
        thread.join()
