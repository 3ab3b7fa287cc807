"""Trackers beside metrics.jsonl: started, resumed, and never able to stop training."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jielong.errors import ConfigError, first_line

MODULES = {
    "wandb": "wandb",
    "tensorboard": "torch.utils.tensorboard",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "mlflow": "mlflow",
}
Sample = tuple[str, str]  # a prompt and its continuation


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run at its start.

    Attributes:
        id: the same at each start of the run, so that a tracker goes on where it was.
        step: the run goes on after it, and later steps will be logged again.
        settings: by name.
    """

    project: str
    folder: Path
    id: str
    step: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


class Tracker(Protocol):
    """A destination for metrics besides metrics.jsonl."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def samples(self, step: int, samples: Sequence[Sample]) -> None: ...
    def picture(self, step: int, name: str, png: bytes) -> None: ...
    def rewind(self, step: int) -> None: ...  # later steps will be logged again
    def close(self, ending: str) -> None: ...  # the run is finished, stopped or failed


class SafeTracker:
    """Wraps a tracker: its first failure is reported in one line, and switches it off.

    What it prints goes to standard error: `--json` prints one object and nothing else.
    """

    def __init__(
        self, name: str, start: Callable[[], Tracker], report: Callable[[str], None]
    ) -> None:
        self.name, self.report = name, report
        self.tracker: Tracker | None = None
        with self._reported():
            self.tracker = start()

    def log(self, step: int, values: dict[str, float]) -> None:
        if values:  # SwanLab calls an empty one an error
            self._call(lambda tracker: tracker.log(step, values))

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        if samples:
            self._call(lambda tracker: tracker.samples(step, samples))

    def picture(self, step: int, name: str, png: bytes) -> None:
        self._call(lambda tracker: tracker.picture(step, name, png))

    def rewind(self, step: int) -> None:
        self._call(lambda tracker: tracker.rewind(step))

    def close(self, ending: str) -> None:
        self._call(lambda tracker: tracker.close(ending))

    def _call(self, method: Callable[[Tracker], None]) -> None:
        """Call a method of the tracker, unless it is off."""
        if self.tracker is not None:
            with self._reported():
                method(self.tracker)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Within, an error is reported, and switches the tracker off."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except (Exception, SystemExit) as error:
            self.tracker = None
            why = first_line(error)
            self.report(f"{self.name} failed and is now off ({why}); metrics.jsonl continues")


class Trackers:
    """Several trackers; one that fails leaves the others alone."""

    def __init__(self, trackers: Sequence[SafeTracker]) -> None:
        self.trackers = list(trackers)

    @property
    def on(self) -> bool:
        """Whether there is one that has not failed."""
        return any(tracker.tracker is not None for tracker in self.trackers)

    def log(self, step: int, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, values)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        for tracker in self.trackers:
            tracker.samples(step, samples)

    def picture(self, step: int, name: str, png: bytes) -> None:
        for tracker in self.trackers:
            tracker.picture(step, name, png)

    def rewind(self, step: int) -> None:
        for tracker in self.trackers:
            tracker.rewind(step)

    def close(self, ending: str) -> None:
        for tracker in self.trackers:
            tracker.close(ending)


def check_trackers(names: Sequence[str]) -> None:
    """Import the trackers' packages early, so that a missing one is reported at once.

    Raises:
        ConfigError: a package is not installed.
    """
    for name in wanted(names):
        try:
            importlib.import_module(MODULES[name])
        except ImportError:
            raise ConfigError(
                f"run.tracker={name} needs a package that is not installed: pip install {name}"
            ) from None
        if name == "swanlab" and os.environ.get("SWANLAB_MODE") == "local":
            _check_swanboard()


def _check_swanboard() -> None:
    """Without it, SwanLab's local mode writes files that its page never shows."""
    try:
        importlib.import_module("swanboard")
    except ImportError:
        raise ConfigError(
            "SWANLAB_MODE=local needs a package that is not installed: "
            "pip install 'swanlab[dashboard]'; or set SWANLAB_MODE=offline"
        ) from None


def wanted(names: Sequence[str]) -> list[str]:
    """The trackers that are asked for, each once; `none` is none."""
    return [name for name in dict.fromkeys(names) if name != "none"]


def start_trackers(
    names: Sequence[str],
    project: str,
    folder: Path,
    step: int,
    settings: dict[str, Any],
    log: Callable[[str], None],
) -> Trackers:
    """Start the trackers `names`.

    API keys, addresses and offline modes come from each tracker's own environment variables. The
    run's id is stored in `folder/tracker_id`, so a resumed run continues there too: it logs the
    steps after `step` again.
    """
    from jielong.observe.tracker_kinds import KINDS

    asked = wanted(names)
    if not asked:
        return Trackers(())
    run = TrackedRun(project, folder, _run_id(folder), step, settings)

    def starter(name: str) -> Callable[[], Tracker]:
        return lambda: KINDS[name](run)

    return Trackers([SafeTracker(name, starter(name), log) for name in asked])


def _run_id(folder: Path) -> str:
    file = folder / "tracker_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text().strip()
