"""What a run is built of, and how far it has come."""

from __future__ import annotations

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
from jielong.config.replay import replay_share
from jielong.config.settings import Config
from jielong.data.batches import Batch, Batches
from jielong.data.noise import BpeDropout, InputNoise
from jielong.data.replay import Replay
from jielong.data.shards import Dataset
from jielong.errors import CheckpointError
from jielong.model.transformer import Transformer
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile
from jielong.runtime.distributed import World, data_parallel
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.averaging import WeightAverage
from jielong.training.datasets import load_dataset, load_replay
from jielong.training.inputs import load_tokenizer
from jielong.training.minutes import Machine
from jielong.training.optimizer import Optimizer
from jielong.training.plan import RunPlan, resolve, saved_plan
from jielong.training.profiling import StepProfiler
from jielong.training.scaling import UPDATE_TOKENS, first_batches
from jielong.training.schedule import Schedule
from jielong.training.starting_point import StartingPoint, with_architecture
from jielong.training.step import TrainStep
from jielong.training.teacher import Teacher

# of --activation-checkpointing: which layers are computed again
RECOMPUTE_EVERY = {"none": 0, "selective": 2, "full": 1}


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
    replay: Dataset | None  # the older text that is mixed in
    model: Transformer
    train_step: TrainStep  # has the optimizer, and the model wrapped where there are several ranks
    average: WeightAverage | None  # of the weights, if the settings want it
    batches: Batches
    schedule: Schedule
    console: Console
    metrics: MetricsFile
    progress: Progress = field(default_factory=Progress)
    profiler: StepProfiler | None = None  # of rank 0
    deadline: float | None = None  # of `time.monotonic`, by which a run of `--minutes` should end

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
    replay = load_replay(config, tokenizer, folder)
    mixed_in = _mixed_in(config, replay)
    config = with_architecture(config, tokenizer, start)
    resumed = _plan_of(start.checkpoint)
    plan = resolve(config, dataset.train, device, world.world_size, resumed, mixed_in)
    training = dataclasses.replace(
        config.training,
        global_batch_size=plan.global_batch_size,
        batch_warmup=plan.batch_warmup,
        weight_decay=plan.weight_decay,
        dropout=plan.dropout,
        input_noise=plan.input_noise,
        bpe_dropout=plan.bpe_dropout,
    )
    config = dataclasses.replace(config, training=training)
    torch.manual_seed(training.seed)
    model = Transformer(config.model)
    if start.init_from is not None:
        ckpt.load_weights(model, start.init_from)
    model.to(device)
    model.model.recompute_every = RECOMPUTE_EVERY[training.activation_checkpointing]
    teacher = None
    if training.teacher is not None:
        teacher = Teacher.load(training.teacher, tokenizer, config.model.vocab_size, device)
    return TrainState(
        config=config,
        plan=plan,
        folder=folder,
        world=world,
        tokenizer=tokenizer,
        dataset=dataset,
        replay=replay,
        model=model,
        train_step=TrainStep(
            model=data_parallel(model, world),
            optimizer=Optimizer(model, training, plan.learning_rate),
            grad_clip=training.grad_clip,
            dtype=dtype,
            world=world,
            scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
            dropout=plan.dropout,
            teacher=teacher,
        ),
        average=WeightAverage(model) if training.average_weights else None,
        batches=_batches(config, plan, dataset, tokenizer, mixed_in),
        schedule=Schedule.of(training, plan.total_steps),
        console=console,
        metrics=MetricsFile(folder.metrics_file, enabled=world.is_main),
        profiler=StepProfiler(config.run.profile, folder.profile) if world.is_main else None,
    )


def _mixed_in(config: Config, replay: Dataset | None) -> Replay | None:
    """The older text with its share, if the run replays any."""
    if replay is None:
        return None
    return Replay(replay.train, replay_share(config.data.replay))


def _batches(
    config: Config, plan: RunPlan, dataset: Dataset, tokenizer: Tokenizer, replay: Replay | None
) -> Batches:
    """The training batches, with what the plan says of their first sizes and of noise."""
    sizes = first_batches(config, plan.global_batch_size) if plan.batch_warmup else ()
    noise = bpe_dropout = None
    if plan.input_noise:
        ids = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_tokens))
        noise = InputNoise(plan.input_noise, ids)
    if plan.bpe_dropout:
        bpe_dropout = BpeDropout(plan.bpe_dropout, tokenizer.merged_from())
    return Batches(dataset.train, config.data, config.training, sizes, noise, bpe_dropout, replay)


def _plan_of(checkpoint: Path | None) -> Mapping[str, Any] | None:
    """The plan that a checkpoint was trained by; none where it has none to keep."""
    if checkpoint is None:
        return None
    try:
        return saved_plan(ckpt.load_training_state(checkpoint).values)
    except (CheckpointError, KeyError, TypeError):
        return None  # damaged: `restore` says so
