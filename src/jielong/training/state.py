"""What a run is built of, and how that is saved and restored."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.weights import load_tensors
from jielong.config.settings import Config
from jielong.data.batches import Batch, Batches
from jielong.data.noise import InputNoise
from jielong.data.shards import Dataset
from jielong.errors import CheckpointError
from jielong.model.transformer import Transformer
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile
from jielong.runtime.distributed import World, data_parallel
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.averaging import WeightAverage
from jielong.training.inputs import load_dataset, load_tokenizer
from jielong.training.minutes import Machine
from jielong.training.optimizer import Optimizer
from jielong.training.plan import RunPlan, resolve, saved_plan
from jielong.training.scaling import UPDATE_TOKENS, first_batches
from jielong.training.schedule import Schedule
from jielong.training.starting_point import StartingPoint, with_architecture
from jielong.training.step import TrainStep

# of training_state.json; 1, without a number, shuffled the text in another way; 2 cut each epoch's
# windows in the same places
STATE_FORMAT = 3


@dataclass
class Progress:
    """How far a run has come; saved with each checkpoint."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # targets trained on
    skipped: int = 0  # updates refused in a row
    micro_batch_size: int | None = None  # windows in a pass, over all ranks; none: not chosen yet
    losses: list[float] = field(default_factory=list)  # the latest, to tell a spike by
    spiking: bool = False  # the latest loss stood out
    expert_load: list[list[int]] | None = None  # (layers, experts) of the latest update, if any
    omitted: list[int] = field(default_factory=list)  # steps left out after a spike
    rewinds: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    best_validation: dict[str, Any] | None = None  # of the best step
    worse: int = 0  # validations in a row that were clearly worse than the best
    validation: dict[str, Any] | None = None  # the latest


@dataclass
class TrainState:
    """Everything a run works with, and how far it has come."""

    config: Config  # the settings, with the architecture and the global batch filled in
    plan: RunPlan
    folder: RunFolder
    world: World
    tokenizer: Tokenizer
    dataset: Dataset
    model: Transformer
    train_step: TrainStep  # has the optimizer, and the model wrapped where there are several ranks
    average: WeightAverage | None  # of the weights, if the settings want it
    batches: Batches
    schedule: Schedule
    console: Console
    metrics: MetricsFile
    progress: Progress = field(default_factory=Progress)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Give the model, within, the weights that are evaluated, sampled and saved."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def best_checkpoint(self) -> Path | None:
        """The folder of the best checkpoint, once it has been saved."""
        step = self.progress.best_step
        folder = None if step is None else self.folder.checkpoints / ckpt.step_name(step)
        return folder if folder is not None and folder.is_dir() else None

    @property
    def micro_batch_size(self) -> int:
        """Windows in a forward pass, over all ranks: what is known to fit, else the plan's."""
        return self.progress.micro_batch_size or self.plan.micro_batch_size

    def work_before(self, step: int) -> float:
        """The work of all steps before `step`, in windows: an update costs some by itself."""
        update = UPDATE_TOKENS * self.config.model.hidden_size / self.config.data.max_seq_len
        return self.batches.windows_before(step) + step * update

    def micro_batches(self, batch: Batch, step: int) -> list[Batch]:
        """This rank's batch of a step, split into as many forward passes as it needs."""
        windows = self.batches.span(step).count  # of all ranks
        return batch.split(math.ceil(windows / self.micro_batch_size))


def build(
    config: Config,
    folder: RunFolder,
    start: StartingPoint,
    console: Console,
    world: World,
    machine: Machine,
) -> TrainState:
    """Model, optimizer and data of a run at step 0: the same on every rank.

    Raises:
        JielongError: the tokenizer or dataset is missing, damaged or does not fit.
    """
    device, dtype = machine.device, machine.dtype
    tokenizer = load_tokenizer(config, folder, start)
    dataset = load_dataset(config, tokenizer, folder)
    config = with_architecture(config, tokenizer, start)
    plan = resolve(config, dataset.train, device, world.world_size, _plan_of(start.checkpoint))
    training = dataclasses.replace(
        config.training,
        global_batch_size=plan.global_batch_size,
        batch_warmup=plan.batch_warmup,
        weight_decay=plan.weight_decay,
        dropout=plan.dropout,
        input_noise=plan.input_noise,
    )
    config = dataclasses.replace(config, training=training)
    sizes = first_batches(config, plan.global_batch_size) if plan.batch_warmup else ()
    torch.manual_seed(training.seed)
    model = Transformer(config.model)
    if start.init_from is not None:
        ckpt.load_weights(model, start.init_from)
    model.to(device)
    return TrainState(
        config=config,
        plan=plan,
        folder=folder,
        world=world,
        tokenizer=tokenizer,
        dataset=dataset,
        model=model,
        train_step=TrainStep(
            model=data_parallel(model, world),
            optimizer=Optimizer(model, training, plan.learning_rate),
            grad_clip=training.grad_clip,
            dtype=dtype,
            world=world,
            scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
            dropout=plan.dropout,
        ),
        average=WeightAverage(model) if training.average_weights else None,
        batches=Batches(dataset.train, config.data, training, sizes, _noise(plan, tokenizer)),
        schedule=Schedule.of(training, plan.total_steps),
        console=console,
        metrics=MetricsFile(folder.metrics_file, enabled=world.is_main),
    )


def _noise(plan: RunPlan, tokenizer: Tokenizer) -> InputNoise | None:
    """The noise on the input tokens, if the plan has any."""
    if not plan.input_noise:
        return None
    ids = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_tokens))
    return InputNoise(plan.input_noise, ids)


def _plan_of(checkpoint: Path | None) -> Mapping[str, Any] | None:
    """The plan that a checkpoint was trained by; none where it has none to keep."""
    if checkpoint is None:
        return None
    try:
        return saved_plan(ckpt.load_training_state(checkpoint).values)
    except (CheckpointError, KeyError, TypeError):
        return None  # damaged: `restore` says so


def save(state: TrainState) -> None:
    """Write a checkpoint of this moment and drop old ones; every rank calls it, rank 0 writes."""
    rng = state.world.all_gather(base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode())
    if not state.world.is_main:
        return
    progress, train_step = state.progress, state.train_step
    values = {
        "format": STATE_FORMAT,
        "progress": dataclasses.asdict(progress) | {"step": None},
        "plan": state.plan.to_json(),
        "total_steps": state.schedule.total_steps,
        "peak_learning_rate": train_step.optimizer.peak,
        "dataset": state.dataset.fingerprint,
        "tokenizer": state.tokenizer.fingerprint,
        "config": state.config.to_tables(),
        "scaler": train_step.scaler.state_dict(),
        "torch": torch.__version__,
        "rng": rng,
    }
    saved = ckpt.SavedState(progress.step, values)
    latest = ckpt.named_weights(state.model) if state.average else None
    optimizer = train_step.optimizer.state_tensors()
    folder = state.folder.checkpoints
    with state.averaged_weights():
        ckpt.save_checkpoint(folder, state.model, state.tokenizer, optimizer, saved, latest)
    ckpt.prune(folder, state.config.run.keep_checkpoints, progress.best_step, progress.step)
    record_best(state)


def record_best(state: TrainState) -> None:
    """Name the best checkpoint in `best.json`, once it has been saved; rank 0 alone does so."""
    best, found = state.best_checkpoint(), state.progress.best_validation
    if state.world.is_main and best is not None and found is not None:
        ckpt.record_best(best, found["loss"], found["bits_per_byte"])


def restore(state: TrainState, start: StartingPoint) -> list[str]:
    """Load the checkpoint that the run goes on from, if there is any.

    Returns:
        What to tell the user.

    Raises:
        CheckpointError: the checkpoint is of other data or another version, or does not fit the
            model.
    """
    notes = [f"passed over: {problem}" for problem in start.problems]
    if start.checkpoint is None:
        if start.problems:
            notes.append("no checkpoint of this run is sound: it begins again from step 0")
        return notes
    saved = ckpt.load_training_state(start.checkpoint)
    version = saved.values.get("format", 1)
    if not isinstance(version, int) or version > STATE_FORMAT:
        raise CheckpointError(
            f"{start.checkpoint}/training_state.json: format {version!r} is of a newer version of "
            f"jielong than this one, which knows {STATE_FORMAT}: update jielong"
        )
    try:
        _restore_saved(state, start.checkpoint, saved)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{start.checkpoint}/training_state.json: not as this version of jielong writes it "
            f"({type(error).__name__}: {error}); its weights can start a new run with "
            f"--init-from {start.checkpoint}"
        ) from None
    notes.append(f"resuming from {start.checkpoint}")
    if version < STATE_FORMAT:
        notes.append(
            "it was saved by an earlier version, which laid out the text in another way: until "
            "this epoch ends, some of the text may come twice and some not at all"
        )
    return notes


def _restore_saved(state: TrainState, found: Path, saved: ckpt.SavedState) -> None:
    values, train_step = saved.values, state.train_step
    if values["dataset"] != state.dataset.fingerprint:
        raise CheckpointError(
            f"{found} was trained on another dataset than the one in {state.folder.data}: "
            "the text, tokenizer or split has changed; use another --out-dir"
        )
    ckpt.load_weights(state.model, found)
    if state.average:
        state.average.restart()
    ckpt.load_training_weights(state.model, found)
    train_step.optimizer.load_state_tensors(load_tensors(found / "optimizer.safetensors"))
    train_step.scaler.load_state_dict(values["scaler"])
    rng, rank = values["rng"], state.world.rank
    if rank < len(rng):  # a rank that the saved run had not needs none: training draws nothing
        state_bytes = bytearray(base64.b64decode(rng[rank]))
        torch.set_rng_state(torch.frombuffer(state_bytes, dtype=torch.uint8))
    known = {f.name for f in dataclasses.fields(Progress)}
    progress = values["progress"]
    if odd := progress.keys() - known - {"pieces"}:  # format 1's, now micro_batch_size
        raise KeyError(min(odd))
    kept = {name: value for name, value in progress.items() if name in known}
    state.progress = Progress(**(kept | {"step": saved.step}))
    if values.get("plan", {}).get("micro_batch_size") != state.plan.micro_batch_size:
        state.progress.micro_batch_size = None  # the settings ask for another one now
