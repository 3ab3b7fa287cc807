"""What is looked at: the data of a run, or of one that would be started with some settings."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jielong.config.load import load_config, with_default_budget
from jielong.config.settings import Config
from jielong.runtime.device import choose_device
from jielong.runtime.run_folder import RunFolder
from jielong.training.inputs import inputs_of_run, prepare_inputs
from jielong.training.run_data import RunData, open_data
from jielong.training.speed import Machine
from jielong.training.starting_point import find_starting_point

Subject = str | Path | Config | Mapping[str, Any]  # a run's folder, or the settings of one
Log = Callable[[str], None]


def silent(line: str) -> None:
    """Tell nothing."""


def config_of(settings: Config | Mapping[str, Any], budgeted: bool = True) -> Config:
    """Return settings as `jielong.pretrain` takes them.

    Args:
        budgeted: with its default budget, a time, where none is given.
    """
    if isinstance(settings, Config):
        return settings
    preset, file = settings.get("preset"), settings.get("file")
    given = {k: v for k, v in settings.items() if k not in ("preset", "file")}
    if not budgeted:
        return load_config(preset, file, **given)
    return load_config(preset, file, **with_default_budget(given, preset, file))


def _briefly(log: Log, temporary: str) -> Log:
    """Leave out the report on a dataset that will not stay, but for its warnings."""

    def brief(line: str) -> None:
        warns = "WARNING" in line or line.startswith("  left out")
        if warns or not (line.startswith("  ") or temporary in line):
            log(line)

    return brief


@contextlib.contextmanager
def opened(what: Subject, log: Log = silent, **changes: Any) -> Iterator[RunData]:
    """Open the data of a run as training reads them; nothing of the run changes.

    For settings, the stages that `jielong pretrain` would make (tokenizer, dataset, choices of
    `--minutes`) are made in a temporary folder.

    Args:
        what: a run's folder, or settings.
        log: takes the lines of those stages.
        **changes: settings that differ from those of the run.

    Raises:
        JielongError: there is no such run, or text and settings are of no use.
    """
    if isinstance(what, str | Path):
        folder = RunFolder(what)
        config, start = inputs_of_run(folder)
        config = config.with_values(**changes)
        yield open_data(config, folder, start, choose_device("cpu"))
        return
    config = config_of(what).with_values(**changes)
    with tempfile.TemporaryDirectory(prefix="jielong-") as temporary:
        folder = RunFolder(temporary)
        device = choose_device(config.training.device)
        machine = Machine(device)
        start = find_starting_point(config, folder)
        lines = _briefly(log, temporary)
        prepared = prepare_inputs(config, folder, machine, start, lines)
        yield open_data(prepared, folder, start, device)
