"""Trackers: Weights & Biases, TensorBoard, SwanLab. A failing tracker never stops training."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from jielong.errors import ConfigError, first_line

MODULES = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard", "swanlab": "swanlab"}


class Tracker(Protocol):
    """A destination for metrics besides metrics.jsonl."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def rewind(self, step: int) -> None: ...  # later steps will be logged again
    def close(self) -> None: ...


class SafeTracker:
    """Wraps a tracker: its first failure is reported in one line, and switches it off."""

    def __init__(
        self, name: str, start: Callable[[], Tracker], report: Callable[[str], None]
    ) -> None:
        self.name, self.report = name, report
        self.tracker: Tracker | None = None
        self._try(lambda: setattr(self, "tracker", start()))

    def log(self, step: int, values: dict[str, float]) -> None:
        if self.tracker is not None and values:  # SwanLab calls an empty one an error
            tracker = self.tracker
            self._try(lambda: tracker.log(step, values))

    def rewind(self, step: int) -> None:
        if self.tracker is not None:
            tracker = self.tracker
            self._try(lambda: tracker.rewind(step))

    def close(self) -> None:
        if self.tracker is not None:
            self._try(self.tracker.close)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            why = first_line(error)
            self.report(f"{self.name} failed and is now off ({why}); metrics.jsonl continues")
            self.tracker = None


def check_tracker(name: str) -> None:
    """Import the tracker's package early, so that a missing one is reported at once.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        if name != "none":
            importlib.import_module(MODULES[name])
    except ImportError:
        raise ConfigError(
            f"run.tracker={name} needs a package that is not installed: pip install {name}"
        ) from None


def start_tracker(
    name: str,
    project: str,
    folder: Path,
    step: int,
    settings: dict[str, Any],
    log: Callable[[str], None],
) -> SafeTracker | None:
    """Start the tracker `name`; return None for `none`.

    API keys come from the tracker's own environment variables. The tracker's run id is stored in
    `folder/tracker_id`, so a resumed run continues there too: it logs the steps after `step` again.
    """
    if name == "none":
        return None
    starts: dict[str, Callable[[], Tracker]] = {
        "wandb": lambda: _WandB(project, folder, settings),
        "tensorboard": lambda: _TensorBoard(folder, step),
        "swanlab": lambda: _SwanLab(project, folder, settings),
    }
    return SafeTracker(name, starts[name], log)


def _run_id(folder: Path) -> str:
    file = folder / "tracker_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text()


class _WandB:
    """Weights & Biases. Set WANDB_MODE=offline to log locally.

    wandb drops values logged at a lower step than its last. So the step is logged as a metric, and
    used as the x axis of all charts. A step that is trained again appears twice.
    """

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
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log({**values, "step": step})

    def rewind(self, step: int) -> None:
        """Do nothing: lower steps are accepted."""

    def close(self) -> None:
        self.run.finish()


class _SwanLab:
    """SwanLab. Set SWANLAB_MODE=offline or local to log locally.

    SwanLab accepts a key's steps in any order but never overwrites one: it silently drops a
    repeated step, and in a run resumed online every step up to the key's last. A custom x axis does
    not help, since repeated values on it are dropped too. Little is lost: up to the first omitted
    step, a step that is trained again gives the same numbers.
    """

    def __init__(self, project: str, folder: Path, settings: dict[str, Any]) -> None:
        import swanlab

        # versions before 0.10 also accept experiment_name and logdir
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

    def rewind(self, step: int) -> None:
        """Do nothing: SwanLab cannot delete or overwrite steps."""

    def close(self) -> None:
        self.run.finish()


class _TensorBoard:
    """TensorBoard files in `RUN/tensorboard`; a new file hides later steps of earlier files."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = str(folder / "tensorboard")
        self._open(step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=step + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        self.writer.close()
        self._open(step)

    def close(self) -> None:
        self.writer.close()
