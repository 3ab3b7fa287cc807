"""The data of a run: its text as batches, and the plan that follows from settings and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.replay import replay_share
from jielong.config.settings import Config
from jielong.data.batches import Batches
from jielong.data.noise import BpeDropout, InputNoise
from jielong.data.replay import Replay
from jielong.data.shards import Dataset
from jielong.errors import CheckpointError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.datasets import load_dataset, load_replay
from jielong.training.inputs import load_tokenizer
from jielong.training.plan import RunPlan, resolve, saved_plan
from jielong.training.scaling import first_batches
from jielong.training.starting_point import StartingPoint, with_architecture


@dataclass(frozen=True)
class RunData:
    """What a run reads, and in which steps."""

    config: Config  # the settings, with the architecture and what the plan says filled in
    plan: RunPlan
    tokenizer: Tokenizer
    dataset: Dataset
    replay: Dataset | None  # the older text that is mixed in
    batches: Batches


def open_data(
    config: Config,
    folder: RunFolder,
    start: StartingPoint,
    device: torch.device,
    world_size: int = 1,
) -> RunData:
    """Open what a run trains on, prepared by `prepare_inputs`, and decide its plan.

    Raises:
        JielongError: the tokenizer or dataset is missing, damaged or does not fit.
    """
    tokenizer = load_tokenizer(config, folder, start)
    dataset = load_dataset(config, tokenizer, folder)
    replay = load_replay(config, tokenizer, folder)
    mixed_in = _mixed_in(config, replay)
    config = with_architecture(config, tokenizer, start)
    resumed = _plan_of(start.checkpoint)
    plan = resolve(config, dataset.train, device, world_size, resumed, mixed_in)
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
    batches = _batches(config, plan, dataset, tokenizer, mixed_in)
    return RunData(config, plan, tokenizer, dataset, replay, batches)


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
