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
    def rewind(self, step: int) -> None: ...  # what came after it comes again
    def close(self) -> None: ...


class Guarded:
    """A tracker whose first failure is said in one line, and which is then left alone."""

    def __init__(self, name: str, start: Callable[[], Tracker], say: Say) -> None:
        self.name, self.say = name, say
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
    name: str, project: str, folder: Path, step: int, settings: dict[str, Any], say: Say
) -> Guarded | None:
    """The tracker of a run; `none` gives none. Keys come from the tracker's own environment.

    The id of the run at the tracker is kept in `folder/tracker_id`, so that a resumed run goes on
    there too, after `step`: what it had logged of later steps comes again.
    """
    if name == "none":
        return None
    starts: dict[str, Callable[[], Tracker]] = {
        "wandb": lambda: _WandB(project, folder, settings),
        "tensorboard": lambda: _TensorBoard(folder, step),
        "swanlab": lambda: _SwanLab(project, folder, settings),
    }
    return Guarded(name, starts[name], say)


def _run_id(folder: Path) -> str:
    file = folder / "tracker_id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text()


class _WandB:
    """Weights & Biases; WANDB_MODE=offline is its own switch and is honoured.

    Its own step only ever rises, and what is logged at a lower one is dropped. So ours is a value
    like any other, and the axis of all charts; a step that comes again is there twice.
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
        """Nothing to do: lower steps are taken."""

    def close(self) -> None:
        self.run.finish()


class _SwanLab:
    """SwanLab; SWANLAB_MODE=offline or local is its own switch and is honoured.

    Steps of a key may come in any order, but none can be written over: one that comes again is
    dropped without a word and keeps its first value, and so, in a run resumed online, is any up to
    the key's last. A custom axis changes nothing, as a repeated value on it is dropped too. Little
    is lost: up to where the texts left out begin, a step that comes again has the same numbers.
    """

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

    def rewind(self, step: int) -> None:
        """Nothing to do, and nothing can be done."""

    def close(self) -> None:
        self.run.finish()


class _TensorBoard:
    """Event files in `RUN/tensorboard`; a new one hides what those before have of later steps."""

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
