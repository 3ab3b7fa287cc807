"""What a run is built of, and how far it has come."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.settings import Config
from jielong.data.batches import Batch, Batches, prefetch
from jielong.data.shards import Dataset
from jielong.model.transformer import Transformer
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile
from jielong.runtime.device import choose_dtype
from jielong.runtime.distributed import World
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.spelling import spelling_of
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.averaging import WeightAverage
from jielong.training.background import BackgroundSave
from jielong.training.bigrams import count_bigrams, share_at, stretches
from jielong.training.memory import RECOMPUTE_EVERY
from jielong.training.optimizer import Optimizer
from jielong.training.own_time import OwnTime
from jielong.training.parallel import make_parallel_model, saves_in_shards, whole_fits
from jielong.training.plan import RunPlan
from jielong.training.profiling import StepProfiler
from jielong.training.run_data import open_data
from jielong.training.scaling import UPDATE_TOKENS
from jielong.training.schedule import Schedule
from jielong.training.shards_ahead import caches_of, fetch_first, fetching_ahead
from jielong.training.speed import Machine
from jielong.training.starting_point import StartingPoint
from jielong.training.step import TrainStep
from jielong.training.teacher import Teacher
from jielong.training.texts import RunTexts


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
    texts: RunTexts
    model: Transformer
    train_step: TrainStep  # has the optimizer, and the sum of gradients of several ranks
    average: WeightAverage | None  # of the weights, if the settings want it
    batches: Batches
    schedule: Schedule
    console: Console
    metrics: MetricsFile
    in_shards: bool = False  # each rank writes its part of a checkpoint
    whole_fits: bool = True  # rank 0 can hold the whole model, for samples and suites
    saving: BackgroundSave = field(default_factory=BackgroundSave)
    progress: Progress = field(default_factory=Progress)
    profiler: StepProfiler | None = None  # of rank 0
    words_per_token: float | None = None  # of the training text, once it is known
    budget_corrected: bool = False  # the run goes on with another budget, in the same start
    deadline: float | None = None  # of `time.monotonic`, by which a run of `--minutes` should end

    @property
    def dataset(self) -> Dataset:
        """The main text's."""
        return self.texts.main.dataset

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

    @property
    def update_windows(self) -> float:
        """Windows that are trained on in about the time of an update."""
        return UPDATE_TOKENS * self.config.model.hidden_size / self.config.data.max_seq_len

    def work_before(self, step: int) -> float:
        """The work of all steps before `step`, in windows: an update costs some by itself."""
        return self.batches.windows_before(step) + step * self.update_windows

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
    device = machine.device
    with world.barrier_after():
        data = open_data(config, folder, start, device, world.world_size)
        step = 0 if start.checkpoint is None else ckpt.step_of(start.checkpoint)
        if step < data.plan.total_steps:  # else nothing is read any more
            fetch_first(data.texts, data.batches, step, console.line, world.beat)
    config, plan, tokenizer = data.config, data.plan, data.tokenizer
    training = config.training
    dtype = choose_dtype(training.dtype, device, config.model.hidden_size)
    torch.manual_seed(training.seed)
    model, gradients, sharding = make_parallel_model(config, dtype, world, device)
    if start.init_from is not None:
        ckpt.load_weights(model, start.init_from)
    model.model.recompute_every = RECOMPUTE_EVERY[training.activation_checkpointing]
    teacher = None
    if training.teacher is not None:
        teacher = Teacher.load(training.teacher, tokenizer, config.model.vocab_size, device)
    bigrams = None
    if share_at(step, plan.total_steps, plan.bigram_share):
        texts = [text.dataset.train for text in data.texts.every]
        bigrams = count_bigrams(list(stretches(texts)), config.model.vocab_size, device)
    spelling = None
    if plan.share_spelling:
        spelling = spelling_of(tokenizer.texts(config.model.vocab_size))
    return TrainState(
        config=config,
        plan=plan,
        folder=folder,
        world=world,
        tokenizer=tokenizer,
        texts=data.texts,
        model=model,
        train_step=TrainStep(
            model=model,
            optimizer=Optimizer(model, training, plan.learning_rate, spelling),
            grad_clip=training.grad_clip,
            dtype=dtype,
            world=world,
            gradients=gradients,
            own_time=OwnTime(device) if gradients else None,
            scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
            dropout=plan.dropout,
            teacher=teacher,
            bigrams=bigrams,
            sharding=sharding,
        ),
        average=WeightAverage(model) if training.average_weights else None,
        batches=data.batches,
        schedule=Schedule.of(training, plan.total_steps),
        console=console,
        metrics=MetricsFile(folder.metrics_file, enabled=world.is_main),
        in_shards=saves_in_shards(config, sharding, world),
        whole_fits=whole_fits(config, sharding, world, device),
        profiler=StepProfiler(config.run.profile, folder.profile) if world.is_main else None,
    )


def read_batches(state: TrainState, steps: range) -> Generator[Batch, None, None]:
    """This rank's batches of the steps, each within a limit of time."""
    world, own_time = state.world, state.train_step.own_time
    workers = state.config.data.num_workers
    batches = prefetch(state.batches, steps, world.rank, world.world_size, workers)
    read = world.limited(own_time.each(batches) if own_time else batches, "reading a batch")
    # shards come no more before the batches end: a thread that waits for one must not hold them up
    with contextlib.closing(read), fetching_ahead(caches_of(state.texts)):
        yield from read
