"""How fast this machine trains a model: measured in some seconds, not assumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.runtime.device import choose_dtype, fast_products
from jielong.training.optimizer import Optimizer
from jielong.training.scaling import (
    CPU_TOKENS,
    MICRO_BATCH_TOKENS,
    default_learning_rate,
    default_regularisation,
)
from jielong.training.step import TrainStep

LEAST_REPEATS, LEAST_S = 3, 1.0  # work is repeated so often, and for so long, to be timed


@dataclass(frozen=True)
class Machine:
    """Where a run trains."""

    device: torch.device
    processes: int = 1


@dataclass(frozen=True)
class Speed:
    """What training costs on this machine, in seconds."""

    token: float  # forward and backward
    update: float  # of the optimizer

    def of_run(self, tokens: float, tokens_per_step: float) -> float:
        """Seconds that training on `tokens` takes."""
        return tokens * self.token + tokens / tokens_per_step * self.update


def measure_speed(config: Config, machine: Machine, epochs: float = 1.0) -> Speed:
    """Time passes and updates of a model on random tokens; takes some seconds.

    Args:
        epochs: where a text is read more than once, passes have dropout.
    """
    device = machine.device
    state = torch.get_rng_state()
    model = Transformer(config.model).to(device)
    torch.set_rng_state(state)
    window = config.data.max_seq_len
    at_once = CPU_TOKENS if device.type == "cpu" else MICRO_BATCH_TOKENS
    rows = max(1, at_once // window)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.model.vocab_size, (rows, window + 1), generator=generator)
    seeds = torch.arange(rows)
    documents = None
    if config.data.document_mask and config.data.packing == "pack":
        # a border in each window: attention within documents costs more than without
        documents = (torch.arange(window) >= window // 2).int().expand(rows, window)
    batch = Batch(ids[:, :-1], ids[:, 1:], documents, seeds.numpy(), seeds)
    training = config.with_values(weight_decay=0.1).training
    optimizer = Optimizer(model, training, default_learning_rate(config))
    parameters = config.model.parameter_count
    dropout = default_regularisation(epochs, parameters, parameters).dropout
    dtype = choose_dtype(training.dtype, device, config.model.hidden_size)
    step = TrainStep(model, optimizer, grad_clip=1.0, dtype=dtype, dropout=dropout)
    with fast_products():
        whole = _seconds(lambda: step([batch], 0.0), device)
        update = _seconds(lambda: optimizer.step(0.0), device)
    token = max(1e-9, whole - update) / (rows * window * machine.processes)
    return Speed(token, update)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The median time of some repetitions, after a first one.

    Not the shortest: what slows some of them down will slow the run down as well.
    """
    times: list[float] = []
    while len(times) <= LEAST_REPEATS or sum(times[1:]) < LEAST_S:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
