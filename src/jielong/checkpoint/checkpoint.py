"""Checkpoints: Hugging Face model folders with what an exact resume needs beside them.

A checkpoint appears whole or not at all: it is written under a temporary name, each file fsynced,
the manifest of SHA-256 sums last, then renamed. No pickle anywhere. See docs/formats.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jielong.checkpoint.folder import read_model_config, write_model_config
from jielong.checkpoint.weights import (
    fill_weights,
    load_folder_tensors,
    load_tensors,
    model_of,
    save_tensors,
)
from jielong.errors import CheckpointError
from jielong.model.transformer import Transformer
from jielong.runtime.files import sha256, sync
from jielong.tokenization.tokenizer import Tokenizer

MANIFEST = "manifest.json"
TRAINING_WEIGHTS = "training_weights.safetensors"  # where the model's are an average of them
STEP_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class TrainingState:
    """Everything of a moment in a run but weights, optimizer and tokenizer; JSON."""

    step: int  # optimizer steps done
    values: dict[str, Any]  # config, fingerprints, best loss, RNG states, …


def save_checkpoint(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    optimizer: dict[str, Tensor],
    state: TrainingState,
    training_weights: dict[str, Tensor] | None = None,
) -> Path:
    """Writes `folder/step-NNNNNNNN`, atomically.

    Args:
        training_weights: as `named_weights`, to go on from, if they are others than the model's.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    target = folder / step_name(state.step)
    temporary = folder / f".{target.name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step-*"):  # of a process killed while it saved
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        write_model_folder(temporary, model, tokenizer)
        save_tensors(optimizer, temporary / "optimizer.safetensors")
        if training_weights is not None:
            save_tensors(training_weights, temporary / TRAINING_WEIGHTS)
        record = {"step": state.step, **state.values}
        (temporary / "training_state.json").write_text(json.dumps(record, indent=1))
        _write_manifest(temporary)
        if target.exists():  # written before a rewind or by a damaged run: never overwritten
            target.rename(folder / f".{target.name}.{os.getpid()}.replaced")
        temporary.rename(target)
        sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{target}: cannot be saved: {error.strerror or error}") from error
    for leftover in folder.glob(f".{target.name}.*.replaced"):
        shutil.rmtree(leftover, ignore_errors=True)
    return target


def write_model_folder(
    folder: Path, model: Transformer, tokenizer: Tokenizer, dtype: torch.dtype | None = None
) -> None:
    """Writes config, weights and tokenizer as transformers reads them, into an existing folder."""
    write_model_config(folder, model.config, tokenizer, dtype)
    weights = named_weights(model)
    if dtype:
        weights = {name: value.to(dtype) for name, value in weights.items()}
    save_tensors(weights, folder / "model.safetensors")
    tokenizer.save(folder)


def named_weights(model: Transformer) -> dict[str, Tensor]:
    """Weights by name, as a model folder has them: a tied head is not repeated."""
    weights: dict[str, Tensor] = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return weights


def load_model(folder: Path) -> tuple[Transformer, Tokenizer]:
    """Model (float32, on the CPU, in eval mode) and tokenizer of a checkpoint or model folder.

    Raises:
        CheckpointError: a file or tensor is missing, unexpected, damaged or misshapen.
    """
    config = read_model_config(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, "
            f"the model's vocabulary only {config.vocab_size}"
        )
    tensors = load_folder_tensors(folder)
    return model_of(config, tensors, str(folder)).eval(), tokenizer


def load_weights(model: Transformer, folder: Path) -> None:
    """Fills the model with the weights of a folder, strictly.

    Raises:
        CheckpointError: as `load_model`; the model is then unchanged.
    """
    fill_weights(model, load_folder_tensors(folder), str(folder))


def load_training_weights(model: Transformer, checkpoint: Path) -> None:
    """Fills the model with the weights that training goes on from, where they stand by themselves.

    Raises:
        CheckpointError: as `load_model`; the model is then unchanged.
    """
    path = checkpoint / TRAINING_WEIGHTS
    if path.exists():
        fill_weights(model, load_tensors(path), str(path))


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first by step (never by clock)."""
    found = [path for path in folder.glob("step-*") if STEP_NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over."""
    problems = []
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def set_aside(folder: Path, after: int) -> None:
    """Hides checkpoints of later steps than `after`, so that none resumes from them."""
    for path in checkpoints(folder):
        if step_of(path) > after:
            path.rename(folder / f".{path.name}.{os.getpid()}.replaced")
    sync(folder)


def verify(checkpoint: Path) -> None:
    """Compares every file with the manifest.

    Raises:
        CheckpointError: a file is missing, added, changed, or a link; or there is no manifest.
    """
    try:
        sums = json.loads((checkpoint / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{checkpoint}: {MANIFEST} is missing or damaged") from None
    if not isinstance(sums, dict) or (checkpoint / MANIFEST).is_symlink():
        raise CheckpointError(f"{checkpoint}: {MANIFEST} is damaged")
    present = {path.name for path in checkpoint.iterdir()} - {MANIFEST}
    if present != set(sums):
        odd = min(present ^ set(sums), default="?")
        raise CheckpointError(f"{checkpoint}: {odd} is missing, or not of this checkpoint")
    for name, expected in sums.items():
        path = checkpoint / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{path}: not a plain file")
        if sha256(path) != expected:
            raise CheckpointError(f"{path}: damaged (its SHA-256 is not the manifest's)")


def load_training_state(checkpoint: Path) -> TrainingState:
    """The state beside the weights.

    Raises:
        CheckpointError: the folder is only a model, or the file is damaged.
    """
    path = checkpoint / "training_state.json"
    try:
        values = json.loads(path.read_text())
        step = values.pop("step")
        if not isinstance(step, int) or not isinstance(values, dict):
            raise TypeError("no step")
        return TrainingState(step, values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: missing or damaged; training cannot resume here") from None


def prune(folder: Path, keep: int, best: int | None, step: int) -> None:
    """Removes all but the newest `keep` checkpoints up to `step`, and the one of step `best`.

    Later ones were passed over as damaged when the run resumed: they must not count as the newest.
    """
    known = [path for path in checkpoints(folder) if step_of(path) <= step]
    for path in known[:-keep]:
        if best is None or path.name != step_name(best):
            shutil.rmtree(path, ignore_errors=True)


def find_model_folder(path: str | Path) -> Path:
    """The model folder a user means: a model folder itself, or a run's newest valid checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        if (path / MANIFEST).exists():
            verify(path)
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    newest, problems = newest_valid(folder)
    if newest is None:
        why = problems[0] if problems else "no config.json and no checkpoints/step-* in it"
        raise CheckpointError(f"{path}: no model there ({why})")
    return newest


def _write_manifest(folder: Path) -> None:
    sums = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        sums[path.name] = sha256(path)
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums}, indent=1))
    sync(folder / MANIFEST)
    sync(folder)
