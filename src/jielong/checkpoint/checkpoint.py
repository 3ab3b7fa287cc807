"""Checkpoints: Hugging Face model folders plus the state that an exact resume needs.

A checkpoint is written atomically: under a temporary name, with each file fsynced and the manifest
of SHA-256 checksums last, then renamed. Nothing is pickled. See docs/formats.md.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from jielong.checkpoint.folder import read_model_config, write_model_config
from jielong.checkpoint.manifest import MANIFEST, listed_files, verify_file, write_manifest
from jielong.checkpoint.opening import TRAINING_WEIGHTS, Stored, check_room
from jielong.checkpoint.weights import (
    fill_weights,
    model_from_tensors,
    named_weights,
    save_tensors,
)
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, ConfigError
from jielong.model.transformer import Transformer
from jielong.runtime.atomic import atomic_folder, write_file
from jielong.runtime.files import sync
from jielong.runtime.parts import Readable
from jielong.tokenization.tokenizer import Tokenizer

BEST = "best.json"  # beside the checkpoints; names the best one
STEP_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class SavedState:
    """The state of a run, except weights, optimizer and tokenizer; stored as JSON."""

    step: int  # optimizer steps done
    values: dict[str, Any]  # config, fingerprints, best loss, RNG states, …


def save_checkpoint(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    optimizer: dict[str, Tensor],
    state: SavedState,
    training_weights: dict[str, Tensor] | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write `folder/step-NNNNNNNN` atomically.

    Args:
        training_weights: the weights to resume from, as from `named_weights`, if they differ from
            those of the folder's model.
        weights: of the folder's model, as from `named_weights`, in place of the model's own.

    Raises:
        CheckpointError: the disk is full or the folder is not writable; no partial files remain.
    """
    target = folder / step_name(state.step)
    clear_leftovers(folder)
    with atomic_folder(target, CheckpointError, replace=True) as new:
        write_model_folder(new, model, tokenizer, weights=weights)
        save_tensors(optimizer, new / "optimizer.safetensors")
        if training_weights is not None:
            save_tensors(training_weights, new / TRAINING_WEIGHTS)
        write_training_state(new, state)
        write_manifest(new)
    return target


def clear_leftovers(folder: Path) -> None:
    """Remove what a process left that was killed during a save."""
    for leftover in folder.glob(".step-*"):
        if leftover.is_symlink():
            leftover.unlink()
        shutil.rmtree(leftover, ignore_errors=True)


def write_training_state(folder: Path, state: SavedState) -> None:
    """Write `training_state.json` into a checkpoint that is being made."""
    record = {"step": state.step, **state.values}
    (folder / "training_state.json").write_text(json.dumps(record, indent=1))


def write_model_folder(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write config, float32 weights and tokenizer in transformers' format into a folder.

    Args:
        weights: by name, in place of the model's own.
    """
    write_model_config(folder, model.config, tokenizer)
    weights = named_weights(model) if weights is None else weights
    save_tensors(weights, folder / "model.safetensors")
    tokenizer.save(folder)


def open_model(folder: Path) -> tuple[ModelConfig, Tokenizer, Mapping[str, Readable]]:
    """Return a model folder's architecture, tokenizer, and weights by name, to be read one by one.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    config = read_model_config(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, "
            f"the model's vocabulary only {config.vocab_size}"
        )
    return config, tokenizer, Stored(folder).weights()


def load_model(folder: Path) -> tuple[Transformer, Tokenizer]:
    """Load a model (float32, on the CPU, in eval mode) and its tokenizer from a model folder.

    Raises:
        CheckpointError: a file or tensor is missing, unexpected or damaged, or has the wrong shape;
            or a model in shards does not fit in memory.
    """
    config, tokenizer, tensors = open_model(folder)
    check_room(tensors, folder)
    return model_from_tensors(config, tensors, str(folder)).eval(), tokenizer


def load_weights(model: Transformer, folder: Path) -> None:
    """Load a folder's weights into the model; all names and shapes must match.

    Raises:
        CheckpointError: as `load_model`; the model is then unchanged.
    """
    fill_weights(model, Stored(folder).weights(), str(folder))


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, ordered by step."""
    found = [path for path in folder.glob("step-*") if STEP_NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def latest_valid_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest valid checkpoint, and why newer ones were skipped."""
    problems = []
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def hide_checkpoints_after(folder: Path, after: int) -> None:
    """Rename checkpoints of steps later than `after`, so that no run resumes from them."""
    for path in checkpoints(folder):
        if step_of(path) > after:
            path.rename(folder / f".{path.name}.{os.getpid()}.replaced")
    sync(folder)


def verify(checkpoint: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        CheckpointError: a file is missing, unexpected, changed or a link, or there is no manifest.
    """
    for name, expected in listed_files(checkpoint).items():
        verify_file(checkpoint / name, expected)


def load_training_state(checkpoint: Path) -> SavedState:
    """Load the state that is stored beside the weights.

    Raises:
        CheckpointError: the folder contains only a model, or the file is damaged.
    """
    path = checkpoint / "training_state.json"
    try:
        values = json.loads(path.read_text())
        step = values.pop("step")
        if not isinstance(step, int) or not isinstance(values, dict):
            raise TypeError("no step")
        return SavedState(step, values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: missing or damaged; training cannot resume here") from None


def prune(
    folder: Path, keep: int, best: int | None, step: int, keep_interval: int | None = None
) -> None:
    """Remove old checkpoints; keep the newest `keep` up to `step`, and that of step `best`.

    Checkpoints after `step` were skipped as damaged when the run resumed, so they do not count.

    Args:
        keep_interval: those at its multiples, in steps, are kept as well; None: no more.
    """
    known = [path for path in checkpoints(folder) if step_of(path) <= step]
    for path in known[:-keep]:
        is_best = best is not None and path.name == step_name(best)
        if not (is_best or is_kept_for_good(step_of(path), keep_interval)):
            shutil.rmtree(path, ignore_errors=True)


def is_kept_for_good(step: int, keep_interval: int | None) -> bool:
    """Whether the checkpoint of a step is at a multiple of `--keep-interval`."""
    return keep_interval is not None and step % keep_interval == 0


def record_best(checkpoint: Path, loss: float, bits_per_byte: float) -> None:
    """Write `best.json` beside a checkpoint, which names it the run's best by held-out loss.

    Raises:
        CheckpointError: the disk refuses.
    """
    values = {
        "step": step_of(checkpoint),
        "checkpoint": checkpoint.name,
        "loss": loss,
        "bits_per_byte": bits_per_byte,
    }
    file = checkpoint.parent / BEST
    try:
        write_file(file, (json.dumps(values, indent=1) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be written: {error.strerror or error}") from error


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that `best.json` names, if it is there and valid."""
    try:
        best = folder / step_name(json.loads((folder / BEST).read_text())["step"])
        verify(best)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CheckpointError):
        return None
    return best


def find_model_folder(path: str | Path, which: str = "best") -> Path:
    """Return `path` if it is a model folder, otherwise a checkpoint of the run at `path`.

    Args:
        which: best (by held-out loss; the last where none was measured), last, or a step.

    Raises:
        CheckpointError: there is no folder, no model in it, or no checkpoint of that step.
        ConfigError: `which` is none of these.
    """
    path = Path(path)
    if which not in ("best", "last") and not which.isdecimal():
        raise ConfigError(f"checkpoint={which!r}: use best, last or a step")
    if not path.is_dir():
        raise CheckpointError(f"{path}: {_no_folder(path)}")
    if (path / "config.json").is_file():
        if (path / MANIFEST).exists():
            verify(path)
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if which.isdecimal():
        chosen = folder / step_name(int(which))
        if not chosen.is_dir():
            there = ", ".join(str(step_of(found)) for found in checkpoints(folder)) or "none"
            raise CheckpointError(f"{path}: no checkpoint of step {which}; there are: {there}")
        verify(chosen)
        return chosen
    if which == "best" and (best := best_checkpoint(folder)):
        return best
    newest, problems = latest_valid_checkpoint(folder)
    if newest is None:
        why = problems[0] if problems else "no config.json and no checkpoints/step-* in it"
        raise CheckpointError(f"{path}: contains no model ({why})")
    return newest


def _no_folder(path: Path) -> str:
    """Say why there is no folder at a path, and which one may be meant."""
    give = "give the folder of a run, a checkpoint or a model"
    if path.exists():
        return f"is a file: {give}; of a MiniMind .pth, `jielong import` makes one"
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    close = difflib.get_close_matches(path.name, [p.name for p in beside if p.is_dir()], n=1)
    if close:
        return f"no such folder; did you mean {path.parent / close[0]}?"
    return f"no such folder: {give}"
