"""What a run's folder says of the run: its records, settings, text and checkpoints.

Nothing here trusts the folder. A run may be killed at any moment, and its folder copied in part, so
what is damaged or missing is left out, and named in `RunHistory.problems`.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from jielong.errors import DataError
from jielong.runtime.run_folder import RunFolder

Record = dict[str, Any]
EVENTS = ("spike", "skipped", "omitted")


@dataclass
class RunHistory:
    """A run as its folder tells it; records are those of metrics.jsonl (docs/formats.md).

    Attributes:
        records: by kind, in the order of writing.
        seconds: of training up to each record of `train`; the time between a stop and the next
            start does not count.
        settings: config.toml, with what `--minutes` chose, by bare name.
        dataset: dataset.json of its text; empty if there is none.
        problems: what could not be read.
    """

    folder: Path
    records: dict[str, list[Record]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def train(self) -> list[Record]:
        return self.records.get("train", [])

    @property
    def validations(self) -> list[Record]:
        """The validations whose result is a number."""
        return [r for r in self.records.get("validation", []) if number(r.get("bits_per_byte"))]

    @property
    def best(self) -> Record | None:
        """The validation with the lowest held-out loss: that of the run's model."""
        return min(self.validations, key=lambda r: r["bits_per_byte"], default=None)

    @property
    def start(self) -> Record:
        """The latest record of `start`; empty in a run of an earlier version."""
        return (self.records.get("start") or [{}])[-1]

    @property
    def end(self) -> Record | None:
        """How the run ended, unless it was killed or has begun again since."""
        ends = self.records.get("end")
        if not ends or ends[-1].get("time", 0) < self.start.get("time", 0):
            return None
        return ends[-1]

    @property
    def step(self) -> int:
        return max((r["step"] for kind in self.records.values() for r in kind), default=0)

    @property
    def total_steps(self) -> int | None:
        total = self.start.get("total_steps")
        if total is None and (state := _training_state(self.folder)):
            total = state.get("total_steps")
        return total if isinstance(total, int) and total > 0 else None

    @property
    def changed(self) -> float:
        """When something was last recorded, in Unix seconds; else the folder's own time."""
        times = [r[-1]["time"] for r in self.records.values() if number(r[-1].get("time"))]
        return max(times) if times else self.folder.stat().st_mtime

    @property
    def bytes_per_token(self) -> float | None:
        """Of the training text."""
        split = self.dataset.get("splits", {}).get("train", {})
        tokens, text_bytes = split.get("tokens"), split.get("text_bytes")
        return text_bytes / tokens if number(tokens) and number(text_bytes) and tokens else None


def number(value: Any) -> TypeGuard[float]:
    """Whether a value of a record is a number; what is not finite is written as null."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run's, however damaged."""
    run = RunFolder(folder)
    return run.metrics_file.is_file() or (run.config_file.is_file() and folder.is_dir())


def read_history(folder: str | Path) -> RunHistory:
    """Read a run's folder.

    Raises:
        DataError: the folder does not exist, or has neither settings nor records of a run.
    """
    run = RunFolder(folder)
    if not run.path.is_dir():
        raise DataError(f"{folder}: no such folder: give the folder of a run, its --out-dir")
    if not is_run(run.path):
        raise DataError(
            f"{folder}: not a run: it has neither {run.metrics_file.name} nor "
            f"{run.config_file.name}; give the --out-dir of a `jielong pretrain`"
        )
    history = RunHistory(run.path)
    _read_records(run.metrics_file, history)
    for name in (run.config_file.name, run.chosen_file.name):
        history.settings |= _settings(run.path / name, history.problems)
    history.dataset = _dataset(history)
    return history


def _read_records(path: Path, history: RunHistory) -> None:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:  # nothing has been trained yet
        return
    except OSError as error:
        history.problems.append(f"{path.name}: {error.strerror}")
        return
    seconds, last, bad = 0.0, None, 0
    for line in lines:
        try:
            record = orjson.loads(line)
            kind, step, time = record["kind"], record["step"], record["time"]
            if not (isinstance(kind, str) and isinstance(step, int) and number(time)):
                raise ValueError(line)
        except (ValueError, KeyError, TypeError):
            bad += 1
            continue
        if last is not None and kind != "start":
            seconds += max(0.0, time - last)
        last = time
        history.records.setdefault(kind, []).append(record)
        if kind == "train":
            history.seconds.append(seconds)
    if bad > 1 or (bad and not history.records):  # one may be half written at this moment
        history.problems.append(f"{path.name}: {bad} of {len(lines)} lines are damaged")


def _settings(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: {error}")
        return {}
    flat: dict[str, Any] = {}
    for name, table in tables.items():
        flat |= table if isinstance(table, dict) else {name: table}
    return flat


def _dataset(history: RunHistory) -> dict[str, Any]:
    """The manifest of the run's own dataset, or of the prepared one that it was given."""
    given = history.settings.get("data_path")
    folder = RunFolder(history.folder)
    places = [folder.data / "dataset.json", folder.remote_dataset]
    if isinstance(given, list) and len(given) == 1:
        places.append(Path(str(given[0])) / "dataset.json")
    for place in places:
        found = _json(place)
        if found and all(isinstance(found.get(k, {}), dict) for k in ("splits", "counts")):
            return found
    return {}


def _training_state(folder: Path) -> dict[str, Any]:
    """The state saved with the latest checkpoint."""
    paths = sorted(RunFolder(folder).checkpoints.glob("step-*/training_state.json"))
    return _json(paths[-1]) if paths else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder; a file that vanishes meanwhile counts nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
