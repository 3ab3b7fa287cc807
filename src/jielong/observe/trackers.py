"""Records sent on to Weights & Biases, TensorBoard or SwanLab. A tracker never stops training."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from jielong.errors import ConfigError, first_line

MODULES = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard", "swanlab": "swanlab"}

Say = Callable[[str], None]


class Tracker(Protocol):
    """Where numbers go beside metrics.jsonl."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Guarded:
    """A tracker whose first failure is said in one line, and which is then left alone."""

    def __init__(self, name: str, start: Callable[[], Tracker], say: Say) -> None:
        self.name, self.say = name, say
        self.tracker: Tracker | None = None
        self._try(lambda: setattr(self, "tracker", start()))

    def log(self, step: int, values: dict[str, float]) -> None:
        if self.tracker is not None:
            tracker = self.tracker
            self._try(lambda: tracker.log(step, values))

    def close(self) -> None:
        if self.tracker is not None:
            self._try(self.tracker.close)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            why = first_line(error)
            self.say(f"{self.name} failed and is off from here ({why}); metrics.jsonl goes on")
            self.tracker = None


def check_tracker(name: str) -> None:
    """Tries the tracker's package, before hours go into preparing.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        if name != "none":
            importlib.import_module(MODULES[name])
    except ImportError:
        raise ConfigError(
            f"run.tracker={name} needs a package that is not here: pip install {name}"
        ) from None


def start_tracker(
    name: str, project: str, folder: Path, settings: dict[str, Any], say: Say
) -> Guarded | None:
    """The tracker of a run; `none` gives none. Keys come from the tracker's own environment.

    The id of the run at the tracker is kept in `folder/tracker_id`, so that a resumed run goes on
    there too.
    """
    if name == "none":
        return None
    starts: dict[str, Callable[[str, Path, dict[str, Any]], Tracker]] = {
        "wandb": _WandB,
        "tensorboard": _TensorBoard,
        "swanlab": _SwanLab,
    }
    return Guarded(name, lambda: starts[name](project, folder, settings), say)


def _run_id(folder: Path) -> str:
    file = folder / "tracker_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text()


class _WandB:
    """Weights & Biases; WANDB_MODE=offline is its own switch and is honoured."""

    def __init__(self, project: str, folder: Path, settings: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=project,
            name=folder.name,
            id=_run_id(folder),
            resume="allow",
            dir=str(folder),
            config=settings,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class _SwanLab:
    """SwanLab; SWANLAB_MODE=offline or local is its own switch and is honoured."""

    def __init__(self, project: str, folder: Path, settings: dict[str, Any]) -> None:
        import swanlab

        # experiment_name and logdir are what versions before 0.10 know too
        self.run = swanlab.init(
            project=project,
            experiment_name=folder.name,
            id=_run_id(folder),
            resume="allow",
            logdir=str(folder / "swanlab"),
            config=settings,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class _TensorBoard:
    """Event files in `RUN/tensorboard`."""

    def __init__(self, project: str, folder: Path, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()
