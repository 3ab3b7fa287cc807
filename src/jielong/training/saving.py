"""A run's checkpoints: how its state is saved and restored."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.opening import Stored
from jielong.checkpoint.weights import fill_weights, named_weights
from jielong.errors import CheckpointError
from jielong.training.sharded_saving import save_shards
from jielong.training.starting_point import StartingPoint
from jielong.training.state import Progress, TrainState

# of training_state.json; 1, without a number, shuffled the text in another way; 2 cut each epoch's
# windows in the same places
STATE_FORMAT = 3


def save(state: TrainState) -> None:
    """Write a checkpoint of this moment and drop old ones; every rank calls it.

    Rank 0 writes it, unless each rank writes its part. With `background_saves` it is only copied
    here, and written while training goes on: `state.saving` says how that went. The one before must
    have been written.
    """
    rng = state.world.all_gather(base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode())
    if state.in_shards:
        save_shards(state, _saved_state(state, rng))
        return
    progress, average = state.progress, state.average
    keep = state.world.is_main
    weights = named_weights(state.model, average.weights() if average else None, keep)
    latest = named_weights(state.model, keep=keep) if average else None
    optimizer = state.train_step.optimizer.state_tensors(keep)
    if not state.world.is_main:
        return
    saved, folder = _saved_state(state, rng), state.folder.checkpoints
    run, best = state.config.run, progress.best_step

    def write() -> None:
        model, tokenizer = state.model, state.tokenizer
        ckpt.save_checkpoint(folder, model, tokenizer, optimizer, saved, latest, weights)
        ckpt.prune(folder, run.keep_checkpoints, best, saved.step, run.keep_interval)

    copies = state.saving.copies
    if state.config.run.background_saves and copies.fits(weights, optimizer, latest or {}):
        weights, optimizer = copies.of(weights, "weights/"), copies.of(optimizer, "optimizer/")
        latest = None if latest is None else copies.of(latest, "latest/")
        state.saving.run(write)
    else:
        write()
    record_best(state)


def _saved_state(state: TrainState, rng: list[str]) -> ckpt.SavedState:
    """What a checkpoint has beside tensors and tokenizer.

    Args:
        rng: states of the ranks' random generators.
    """
    progress, train_step = state.progress, state.train_step
    values = {
        "format": STATE_FORMAT,
        "progress": dataclasses.asdict(progress) | {"step": None},
        "plan": state.plan.to_json(),
        "total_steps": state.schedule.total_steps,
        "peak_learning_rate": train_step.optimizer.peak,
        "dataset": state.dataset.fingerprint,
        **_other_texts(state),
        "tokenizer": state.tokenizer.fingerprint,
        "teacher": _teacher_checksum(state),
        "config": state.config.to_tables(),
        "scaler": train_step.scaler.state_dict(),
        "torch": torch.__version__,
        "rng": rng,
    }
    return ckpt.SavedState(progress.step, values)


def _other_texts(state: TrainState) -> dict[str, Any]:
    """The fingerprints of what is mixed into the main text: of an older one, or of all sources."""
    texts = state.texts
    if texts.is_mixture:
        return {"replay": None, "mixture": {t.name: t.dataset.fingerprint for t in texts.every}}
    return {"replay": None if texts.replayed is None else texts.replayed.dataset.fingerprint}


def _teacher_checksum(state: TrainState) -> int | None:
    teacher = state.train_step.teacher
    return None if teacher is None else teacher.model.checksum()


def record_best(state: TrainState) -> None:
    """Name the best checkpoint in `best.json`, once it has been saved; rank 0 alone does so."""
    step, found = state.progress.best_step, state.progress.best_validation
    if not state.world.is_main or step is None or found is None:
        return
    best = state.folder.checkpoints / ckpt.step_name(step)

    def record() -> None:
        if best.is_dir():
            ckpt.record_best(best, found["loss"], found["bits_per_byte"])

    state.saving.run(record)


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
    """Give the run the weights, the optimizer's state and the progress of a checkpoint."""
    values, train_step = saved.values, state.train_step
    _check_same_texts(state, found, values)
    stored = Stored(found)
    fill_weights(state.model, stored.weights(), str(found))
    if state.average:
        state.average.restart()
    if (latest := stored.training_weights()) is not None:
        fill_weights(state.model, latest, str(found))
    train_step.optimizer.load_state_tensors(stored.optimizer())
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


def _check_same_texts(state: TrainState, found: Path, values: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained on other text, or by another teacher.

    Raises:
        CheckpointError: it was.
    """
    if values["dataset"] != state.dataset.fingerprint:
        raise CheckpointError(
            f"{found} was trained on another dataset than the one in {state.folder.data}: "
            "the text, tokenizer or split has changed; use another --out-dir"
        )
    if values.get("teacher") != _teacher_checksum(state):
        raise CheckpointError(
            f"{found} had another teacher, or none: its weights have changed since, or --teacher "
            "has; use another --out-dir"
        )
    others = _other_texts(state)
    if values.get("mixture") != others.get("mixture"):
        raise CheckpointError(
            f"{found} was trained on another mixture of texts than data.mixture="
            f"{list(state.config.data.mixture)}: a text, its tokenizer or its split has changed; "
            "use another --out-dir"
        )
    if values.get("replay") != others["replay"]:
        raise CheckpointError(
            f"{found} was trained with other older text than data.replay="
            f"{state.config.data.replay!r}: that text, the tokenizer or the split has changed; use "
            "another --out-dir"
        )
