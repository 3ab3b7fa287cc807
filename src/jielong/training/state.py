"""What a run is built of, and how that is saved and restored."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.weights import load_tensors
from jielong.config.settings import Config
from jielong.data.batches import Batches
from jielong.data.shards import Dataset
from jielong.errors import CheckpointError
from jielong.model.transformer import Transformer
from jielong.runtime.distributed import World, data_parallel
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.averaging import WeightAverage
from jielong.training.inputs import StartingPoint, ensure_tokenizer, load_dataset, with_architecture
from jielong.training.optimizer import Optimizer
from jielong.training.plan import RunPlan, resolve, saved_plan
from jielong.training.scaling import first_batches
from jielong.training.schedule import Schedule

STATE_FORMAT = 2  # of training_state.json; 1, without a number, shuffled the text in another way
PROMPT_TOKENS = 12  # of a held-out text's opening, for the samples drawn in training


@dataclass
class Parts:
    """Everything a run works with."""

    config: Config  # the settings, with the architecture and the global batch filled in
    plan: RunPlan
    run: RunFolder
    world: World
    dtype: torch.dtype
    tokenizer: Tokenizer
    dataset: Dataset
    model: Transformer
    forward: nn.Module  # the model as training calls it: wrapped where there are several ranks
    optimizer: Optimizer
    average: WeightAverage | None  # of the weights, if the settings want it
    scaler: torch.amp.GradScaler
    batches: Batches
    schedule: Schedule
    prompts: list[str]

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Within, the model has the weights that are measured, sampled and kept."""
        return self.average.in_place() if self.average else contextlib.nullcontext()


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
    validation: dict[str, Any] | None = None  # the latest


def build(
    config: Config,
    run: RunFolder,
    start: StartingPoint,
    world: World,
    device: torch.device,
    dtype: torch.dtype,
) -> Parts:
    """Model, optimizer and data of a run at step 0: the same on every rank.

    Raises:
        JielongError: the tokenizer or dataset is missing, damaged or does not fit.
    """
    tokenizer = ensure_tokenizer(config, run, start, lambda line: None)
    dataset = load_dataset(config, tokenizer, run)
    config = with_architecture(config, tokenizer, start)
    plan = resolve(config, dataset.train, device, world.world_size, _plan_of(start.checkpoint))
    training = dataclasses.replace(
        config.training,
        global_batch_size=plan.global_batch_size,
        batch_warmup=plan.batch_warmup,
    )
    config = dataclasses.replace(config, training=training)
    sizes = first_batches(config, plan.global_batch_size) if plan.batch_warmup else ()
    torch.manual_seed(config.training.seed)
    model = Transformer(config.model)
    if start.init_from is not None:
        ckpt.load_weights(model, start.init_from)
    model.to(device)
    return Parts(
        config=config,
        plan=plan,
        run=run,
        world=world,
        dtype=dtype,
        tokenizer=tokenizer,
        dataset=dataset,
        model=model,
        forward=data_parallel(model, world),
        optimizer=Optimizer(model, config.training, plan.learning_rate),
        average=WeightAverage(model) if config.training.average_weights else None,
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        batches=Batches(dataset.train, config.data, config.training, sizes),
        schedule=Schedule.of(config.training, plan.total_steps),
        prompts=list(config.run.sample_prompts) or openings(dataset, tokenizer),
    )


def _plan_of(checkpoint: Path | None) -> Mapping[str, Any] | None:
    """The plan that a checkpoint was trained by; none where it has none to keep."""
    if checkpoint is None:
        return None
    try:
        return saved_plan(ckpt.load_training_state(checkpoint).values)
    except (CheckpointError, KeyError, TypeError):
        return None  # damaged: `restore` says so


def openings(dataset: Dataset, tokenizer: Tokenizer, count: int = 2) -> list[str]:
    """How the first held-out texts begin."""
    stream = dataset.validation or dataset.train
    starts = [int(start) for start in stream.documents[:count]]
    ids = [stream.read(start, min(start + PROMPT_TOKENS, len(stream))) for start in starts]
    return [tokenizer.decode(row.tolist(), skip_special=True) for row in ids]


def save(parts: Parts, progress: Progress) -> None:
    """Writes a checkpoint of this moment; drops old ones. Every rank calls it, rank 0 writes."""
    rng = parts.world.all_gather(base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode())
    if not parts.world.is_main:
        return
    values = {
        "format": STATE_FORMAT,
        "progress": dataclasses.asdict(progress) | {"step": None},
        "plan": parts.plan.to_json(),
        "total_steps": parts.schedule.total_steps,
        "peak_learning_rate": parts.optimizer.peak,
        "dataset": parts.dataset.fingerprint,
        "tokenizer": parts.tokenizer.fingerprint,
        "config": parts.config.to_tables(),
        "scaler": parts.scaler.state_dict(),
        "torch": torch.__version__,
        "rng": rng,
    }
    state = ckpt.TrainingState(progress.step, values)
    latest = ckpt.named_weights(parts.model) if parts.average else None
    optimizer = parts.optimizer.state_tensors()
    with parts.averaged_weights():
        ckpt.save_checkpoint(
            parts.run.checkpoints, parts.model, parts.tokenizer, optimizer, state, latest
        )
    keep = parts.config.run.keep_checkpoints
    ckpt.prune(parts.run.checkpoints, keep, progress.best_step, progress.step)


def restore(parts: Parts, start: StartingPoint) -> tuple[Progress, list[str]]:
    """Loads the checkpoint that the run goes on from, if there is any.

    Returns:
        How far the run had come, and what to tell the user.

    Raises:
        CheckpointError: the checkpoint is of other data or another version, or does not fit the
            model.
    """
    notes = [f"passed over: {problem}" for problem in start.problems]
    if start.checkpoint is None:
        if start.problems:
            notes.append("no checkpoint of this run is sound: it begins again from step 0")
        return Progress(), notes
    state = ckpt.load_training_state(start.checkpoint)
    version = state.values.get("format", 1)
    if not isinstance(version, int) or version > STATE_FORMAT:
        raise CheckpointError(
            f"{start.checkpoint}/training_state.json: format {version!r} is of a newer version of "
            f"jielong than this one, which knows {STATE_FORMAT}: update jielong"
        )
    try:
        progress = _restore_state(parts, start.checkpoint, state)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{start.checkpoint}/training_state.json: not as this version of jielong writes it "
            f"({type(error).__name__}: {error}); its weights can start a new run with "
            f"--init-from {start.checkpoint}"
        ) from None
    notes.append(f"resuming from {start.checkpoint}")
    if version < STATE_FORMAT:
        notes.append(
            "it was saved by an earlier version, which shuffled the text in another way: until "
            "this epoch ends, some of the text may come twice and some not at all"
        )
    return progress, notes


def _restore_state(parts: Parts, found: Path, state: ckpt.TrainingState) -> Progress:
    if state.values["dataset"] != parts.dataset.fingerprint:
        raise CheckpointError(
            f"{found} was trained on another dataset than the one in {parts.run.data}: "
            "the text, tokenizer or split has changed; use another --out-dir"
        )
    ckpt.load_weights(parts.model, found)
    if parts.average:
        parts.average.restart()
    ckpt.load_training_weights(parts.model, found)
    parts.optimizer.load_state_tensors(load_tensors(found / "optimizer.safetensors"))
    parts.scaler.load_state_dict(state.values["scaler"])
    rng = state.values["rng"]
    if parts.world.rank < len(rng):  # a rank that the saved run had not needs none: training draws
        state_bytes = bytearray(base64.b64decode(rng[parts.world.rank]))  # nothing from it
        torch.set_rng_state(torch.frombuffer(state_bytes, dtype=torch.uint8))
    known = {f.name for f in dataclasses.fields(Progress)}
    saved = state.values["progress"]
    if odd := saved.keys() - known - {"pieces"}:  # what format 1 had in place of micro_batch_size
        raise KeyError(min(odd))
    kept = {name: value for name, value in saved.items() if name in known}
    progress = Progress(**(kept | {"step": state.step}))
    if state.values.get("plan", {}).get("micro_batch_size") != parts.plan.micro_batch_size:
        progress.micro_batch_size = None  # the settings ask for another one now
    return progress
