"""Weights & Biases, TensorBoard, SwanLab, Trackio and MLflow, each by its own API."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jielong.observe.trackers import Sample, TrackedRun, Tracker

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ["step", "prompt", "text"]
MLFLOW_INTERVAL_S = 5.0  # between two requests
MLFLOW_LONGEST = 500  # characters of a setting, MLflow's own limit
MLFLOW_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class WandB:
    """Weights & Biases. Set WANDB_MODE=offline to log locally.

    wandb drops values logged at a lower step than its last. So the step is logged as a metric, and
    used as the x axis of all charts. A step that is trained again appears twice.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.folder),
            config=run.settings,
        )
        self.run.define_metric("*", step_metric="step")
        self.new_table: Callable[..., Any] = wandb.Table
        self.new_image: Callable[..., Any] = wandb.Image

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log({**values, "step": step})

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        table = self.new_table(columns=COLUMNS, data=[[step, *sample] for sample in samples])
        self.run.log({"samples": table, "step": step})

    def picture(self, step: int, name: str, png: bytes) -> None:
        self.run.log({name: self.new_image(_opened(png)), "step": step})

    def rewind(self, step: int) -> None:
        """Do nothing: lower steps are accepted."""

    def close(self, ending: str) -> None:
        self.run.finish(exit_code=int(ending == "failed"))


class SwanLab:
    """SwanLab. Set SWANLAB_MODE=offline or local to log locally.

    SwanLab accepts a key's steps in any order but never overwrites one: it silently drops a
    repeated step, and in a run resumed online every step up to the key's last. A custom x axis does
    not help, since repeated values on it are dropped too. Little is lost: up to the first omitted
    step, a step that is trained again gives the same numbers. In local mode SwanLab resumes no run:
    each start is an experiment of its own.
    """

    def __init__(self, run: TrackedRun) -> None:
        import swanlab

        # versions before 0.10 also accept experiment_name and logdir
        self.run = swanlab.init(
            project=run.project,
            experiment_name=run.name,
            id=run.id,
            resume="allow",
            logdir=str(run.folder / "swanlab"),
            config=run.settings,
        )
        self.new_text: Callable[..., Any] = swanlab.Text
        self.new_image: Callable[..., Any] = swanlab.Image

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        texts = {
            f"sample/{number}": self.new_text(prompt + text, caption=prompt)
            for number, (prompt, text) in enumerate(samples, start=1)
        }
        self.run.log(texts, step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        self.run.log({name: self.new_image(_opened(png))}, step=step)

    def rewind(self, step: int) -> None:
        """Do nothing: SwanLab cannot delete or overwrite steps."""

    def close(self, ending: str) -> None:
        self.run.finish()


class TensorBoard:
    """TensorBoard files in `RUN/tensorboard`; a new file hides later steps of earlier files."""

    def __init__(self, run: TrackedRun) -> None:
        self.folder = str(run.folder / "tensorboard")
        self._open(run.step)

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=step + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        for number, (prompt, text) in enumerate(samples, start=1):
            # TensorBoard shows Markdown: indented, a text is shown as it is
            lines = f"{prompt}▸{text}".splitlines()
            self.writer.add_text(f"sample/{number}", "\n".join(f"    {x}" for x in lines), step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        pixels = np.asarray(_opened(png))  # (height, width, 3)
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def rewind(self, step: int) -> None:
        self.writer.close()
        self._open(step)

    def close(self, ending: str) -> None:
        self.writer.close()


class Trackio:
    """Trackio: local, without a server, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says so.

    A run is known by its name, so the run's id is part of it. A step that is trained again appears
    twice.
    """

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        name = f"{run.name}-{run.id[:6]}"
        self.run = trackio.init(
            project=run.project, name=name, config=run.settings, resume="allow", embed=False
        )
        self.new_table: Callable[..., Any] = trackio.Table
        self.new_image: Callable[..., Any] = trackio.Image
        # a run that is finished by its own method is finished, and speaks, once more at exit
        self.finish: Callable[[], None] = trackio.finish

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        table = self.new_table(columns=COLUMNS, data=[[step, *sample] for sample in samples])
        self.run.log({"samples": table}, step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        self.run.log({name: self.new_image(_opened(png))}, step=step)

    def rewind(self, step: int) -> None:
        """Do nothing: steps are accepted in any order."""

    def close(self, ending: str) -> None:
        self.finish()


class MLflow:
    """MLflow, where MLFLOW_TRACKING_URI says; without it MLflow's own choice, in this folder.

    A run is found again by a tag with its id. A step that is trained again appears twice; the later
    value counts.
    """

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client, self.new_metric = MlflowClient(), Metric
        self.waiting: list[Any] = []
        self.sent = time.monotonic()
        found = self.client.get_experiment_by_name(run.project)
        project = found.experiment_id if found else self.client.create_experiment(run.project)
        tag = "jielong.run_id"
        known = self.client.search_runs([project], f"tags.`{tag}` = '{run.id}'", max_results=1)
        if known:
            self.id = known[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            return
        self.id = self.client.create_run(project, tags={tag: run.id}, run_name=run.name).info.run_id
        values = {name: str(value)[:MLFLOW_LONGEST] for name, value in run.settings.items()}
        self.client.log_batch(self.id, params=[Param(*pair) for pair in values.items()])

    def log(self, step: int, values: dict[str, float]) -> None:
        now = round(1000 * time.time())
        self.waiting += [self.new_metric(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self.sent >= MLFLOW_INTERVAL_S or len(self.waiting) > 500:
            self._send()

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        text = "\n\n".join(f"── {prompt}▸{text}" for prompt, text in samples)
        self.client.log_text(self.id, text, f"samples/step-{step:08d}.txt")

    def picture(self, step: int, name: str, png: bytes) -> None:
        self.client.log_image(self.id, _opened(png), f"{name}/step-{step:08d}.png")

    def rewind(self, step: int) -> None:
        """Do nothing: steps are accepted in any order."""

    def close(self, ending: str) -> None:
        self._send()
        self.client.set_terminated(self.id, status=MLFLOW_STATUS[ending])

    def _send(self) -> None:
        batch, self.waiting, self.sent = self.waiting, [], time.monotonic()
        if batch:
            self.client.log_batch(self.id, metrics=batch)


def _opened(png: bytes) -> Image:
    """Return a picture as trackers take it. Pillow comes with matplotlib, which has drawn it."""
    import PIL.Image

    return PIL.Image.open(io.BytesIO(png)).convert("RGB")


KINDS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "wandb": WandB,
    "tensorboard": TensorBoard,
    "swanlab": SwanLab,
    "trackio": Trackio,
    "mlflow": MLflow,
}
