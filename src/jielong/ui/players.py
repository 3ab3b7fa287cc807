"""The models that play: of each run that was named, any of its checkpoints, loaded when asked for.

A request names a run by its number and a checkpoint by its step, never a path. Of a model in memory
nothing is read again: its checkpoint may be replaced or deleted meanwhile.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import checkpoints, find_model_folder, load_model, step_of
from jielong.errors import JielongError
from jielong.model.transformer import context_length
from jielong.reports.history import is_run
from jielong.runtime.device import choose_device
from jielong.runtime.run_folder import RunFolder
from jielong.serving.engine import Engine
from jielong.serving.errors import RequestError
from jielong.serving.limits import Limits
from jielong.ui.bars import Reader

IN_MEMORY = 4  # models at once


@dataclass(frozen=True)
class Subject:
    """A folder that was named at the start: of a run, or of a model alone."""

    number: int
    name: str
    folder: Path

    @property
    def is_run(self) -> bool:
        return is_run(self.folder)

    def steps(self) -> list[int]:
        """The steps of its checkpoints."""
        folder = RunFolder(self.folder).checkpoints
        return [step_of(found) for found in checkpoints(folder)]


def subjects_of(folders: Sequence[str | Path]) -> list[Subject]:
    """Name the folders, and check that each is a run or a model.

    Raises:
        CheckpointError: one of them is neither.
    """
    found: list[Subject] = []
    for folder in map(Path, folders):
        if not is_run(folder):
            find_model_folder(folder)  # says why it is none
        name = folder.resolve().name
        if any(subject.name == name for subject in found):
            name = f"{folder.resolve().parent.name}/{name}"
        found.append(Subject(len(found), name, folder))
    return found


@dataclass(frozen=True)
class Player:
    """A model in memory.

    Attributes:
        label: of its checkpoint: `step 1000`, or nothing for a model alone.
        engine: continues texts.
        reader: reads texts, to look at.
    """

    label: str
    engine: Engine
    reader: Reader


class Players:
    """Loads models, at most `IN_MEMORY` of them at once.

    Args:
        subjects: what was named at the start.
        device: auto, cpu, cuda or mps.
        limits: of each engine.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(self, subjects: Sequence[Subject], device: str, limits: Limits) -> None:
        self.subjects, self.limits = list(subjects), limits
        self._device = choose_device(device)
        self._players: OrderedDict[tuple[Any, ...], Player] = OrderedDict()
        self._latest: dict[tuple[int, str], Player] = {}  # by what was asked for
        self._lock = threading.Lock()
        self._draining = False

    def subject(self, number: object) -> Subject:
        """Return a subject by its number.

        Raises:
            RequestError: there is none.
        """
        if type(number) is not int or not 0 <= number < len(self.subjects):
            raise RequestError("there is no such run here", 404, "run")
        return self.subjects[number]

    def get(self, number: object, which: object = "best") -> Player:
        """Return a model; load it if it is not in memory.

        Args:
            number: of the run.
            which: best, last or a step.

        Raises:
            RequestError: there is no such run or checkpoint, or it cannot be loaded.
        """
        subject = self.subject(number)
        if not isinstance(which, str) or not (which in ("best", "last") or _is_step(which)):
            raise RequestError("checkpoint is not best, last or a step", field="checkpoint")
        with self._lock:
            try:
                player = self._found(subject, which)
            except (JielongError, OSError) as error:
                # what is in memory goes on, whatever became of its files
                if known := self._latest.get((subject.number, which)):
                    return known
                raise RequestError(without_path(error, subject), 404, "checkpoint") from None
            self._latest[subject.number, which] = player
            return player

    def _found(self, subject: Subject, which: str) -> Player:
        folder = find_model_folder(subject.folder, which)
        stat = (folder / "config.json").stat()
        key = (folder, stat.st_mtime_ns, stat.st_ino)  # one put in its place is another model
        if key not in self._players:
            self._make_room()
            self._players[key] = self._load(folder)
        self._players.move_to_end(key)
        return self._players[key]

    def _load(self, folder: Path) -> Player:
        if self._draining:
            raise RequestError("the server is stopping", 503, retry_after=10)
        model, tokenizer = load_model(folder)
        model.to(self._device)
        engine = Engine(model, tokenizer, self.limits)
        engine.start()
        label = f"step {step_of(folder):,}" if folder.name.startswith("step-") else ""
        return Player(label, engine, Reader(model, tokenizer))

    def _make_room(self) -> None:
        idle = [key for key, player in self._players.items() if not player.engine.jobs]
        while len(self._players) >= IN_MEMORY and idle:
            gone = self._players.pop(idle.pop(0))
            self._latest = {k: p for k, p in self._latest.items() if p is not gone}
            gone.engine.close()

    def listing(self) -> list[dict[str, Any]]:
        """What there is, for the page."""
        return [
            {
                "run": subject.number,
                "name": subject.name,
                "is_run": subject.is_run,
                "steps": subject.steps(),
            }
            for subject in self.subjects
        ]

    def about(self, player: Player) -> dict[str, Any]:
        """What the page says of a model."""
        config = player.engine.model.config
        return {
            "label": player.label,
            "parameters": player.engine.model.num_parameters(),
            "layers": config.num_hidden_layers,
            "vocabulary": config.vocab_size,
            "context": context_length(config),
            "experts": config.num_experts if config.use_moe else 0,
        }

    def drain(self) -> None:
        """Begin no more texts; those being written go on."""
        self._draining = True
        for player in list(self._players.values()):
            player.engine.drain()

    def end_soon(self) -> None:
        """End what still runs."""
        for player in list(self._players.values()):
            player.engine.end_soon()

    def close(self) -> None:
        """End, and wait for it."""
        self.drain()
        for player in list(self._players.values()):
            player.engine.close()


def _is_step(which: str) -> bool:
    return which.isascii() and which.isdigit() and len(which) < 13


def without_path(error: Exception, subject: Subject) -> str:
    """Return an error's message, in which the run is called by its name."""
    return str(error).replace(str(subject.folder), subject.name)
