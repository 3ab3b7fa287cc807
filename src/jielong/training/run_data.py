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
from jielong.config.settings import Config
from jielong.data.batches import Batches
from jielong.data.mixture import Mixture
from jielong.data.noise import BpeDropout, InputNoise
from jielong.data.shards import Dataset
from jielong.data.windows import Stream
from jielong.errors import CheckpointError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.datasets import load_texts
from jielong.training.plan import RunPlan, resolve, saved_plan
from jielong.training.run_tokenizer import load_tokenizer
from jielong.training.scaling import warmup_batch_sizes
from jielong.training.starting_point import StartingPoint, with_architecture
from jielong.training.texts import RunTexts


@dataclass(frozen=True)
class RunData:
    """What a run reads, and in which steps."""

    config: Config  # the settings, with the architecture and what the plan says filled in
    plan: RunPlan
    tokenizer: Tokenizer
    texts: RunTexts
    batches: Batches

    @property
    def dataset(self) -> Dataset:
        """The main text's."""
        return self.texts.main.dataset


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
    texts = load_texts(config, tokenizer, folder)
    train, mixture = texts.main.dataset.train, texts.mixture
    config = with_architecture(config, tokenizer, start)
    resumed = _plan_of(start.checkpoint)
    plan = resolve(config, train, device, world_size, resumed, mixture)
    training = dataclasses.replace(
        config.training,
        global_batch_size=plan.global_batch_size,
        batch_warmup=plan.batch_warmup,
        weight_decay=plan.weight_decay,
        dropout=plan.dropout,
        input_noise=plan.input_noise,
        bpe_dropout=plan.bpe_dropout,
        bigram_share=plan.bigram_share,
    )
    config = dataclasses.replace(config, training=training)
    batches = _batches(config, plan, train, tokenizer, mixture)
    return RunData(config, plan, tokenizer, texts, batches)


def _batches(
    config: Config, plan: RunPlan, train: Stream, tokenizer: Tokenizer, mixture: Mixture | None
) -> Batches:
    """The training batches, with what the plan says of their first sizes and of noise."""
    sizes = warmup_batch_sizes(config, plan.global_batch_size) if plan.batch_warmup else ()
    noise = bpe_dropout = None
    if plan.input_noise:
        ids = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_tokens))
        noise = InputNoise(plan.input_noise, ids)
    if plan.bpe_dropout:
        bpe_dropout = BpeDropout(plan.bpe_dropout, tokenizer.merged_from())
    return Batches(
        train, config.data, config.training, sizes, noise, bpe_dropout, mixture, plan.noise_steps
    )


def _plan_of(checkpoint: Path | None) -> Mapping[str, Any] | None:
    """The plan that a checkpoint was trained by; none where it has none to keep."""
    if checkpoint is None:
        return None
    try:
        return saved_plan(ckpt.load_training_state(checkpoint).values)
    except (CheckpointError, KeyError, TypeError):
        return None  # damaged: `restore` says so
