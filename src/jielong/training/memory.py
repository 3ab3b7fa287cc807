"""Out-of-memory detection, and the largest micro-batch that fits.

A GPU says when its memory is used up; there a trial tells what fits. On a CPU the kernel kills the
process without a word, so what fits is estimated.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass

import numpy as np
import torch

from jielong.config.model import ModelConfig
from jielong.data.batches import Batch
from jielong.errors import TrainingError
from jielong.model.transformer import Transformer
from jielong.runtime.device import available_memory
from jielong.training.teacher import Teacher
from jielong.training.trial import try_batch

# What the allocators of torch say; only CUDA's has an exception of its own.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")
# of --activation-checkpointing: which layers are computed again
RECOMPUTE_EVERY = {"none": 0, "selective": 2, "full": 1}
STATE_PER_PARAMETER = 2  # floats that AdamW keeps: those are not there yet before the first step


@dataclass(frozen=True)
class Sharding:
    """How a model is divided among ranks.

    Attributes:
        degree: ranks that share one copy.
        waiting: whether gradients wait, whole, for the end of an update.
    """

    degree: int
    waiting: bool

    def parameters(self, config: ModelConfig, states: int) -> int:
        """Count the values that a rank keeps of `states` for each parameter."""
        embeddings = config.embedding_count
        # one layer is gathered while the next one is in use
        layers = 2 * (config.parameter_count - embeddings) // config.num_hidden_layers
        whole = config.parameter_count if self.waiting else embeddings + layers
        return states * config.parameter_count // self.degree + whole


class DoesNotFitError(Exception):
    """A forward or backward pass did not fit; nothing of the model or optimizer has changed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the host, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error) for s in _SAYINGS)


def free_memory() -> None:
    """Give back what a failed pass held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def micro_batch_that_fits(
    model: Transformer,
    batch: Batch,
    dtype: torch.dtype,
    micro_batch_size: int,
    teacher: Teacher | None = None,
) -> int:
    """The largest of `micro_batch_size`, half of it, a quarter … rows that fit in memory.

    Tries a forward and a backward pass of the first rows of `batch`, with room held for the
    optimizer's state. Halving further is left to the first step, should this not have been enough.
    """
    size = min(micro_batch_size, len(batch.tokens))
    while size > 1 and not _fits(model, batch.rows(np.arange(size)), dtype, teacher):
        free_memory()
        size = math.ceil(size / 2)
    free_memory()
    return size


def _fits(model: Transformer, batch: Batch, dtype: torch.dtype, teacher: Teacher | None) -> bool:
    try:
        state = torch.empty(STATE_PER_PARAMETER * model.num_parameters(), device=model.device)
        try_batch(model, batch, dtype, teacher)
        del state
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False


def least_bytes(
    config: ModelConfig,
    rows: int,
    window: int,
    masked: int,
    recompute_every: int = 0,
    teacher: ModelConfig | None = None,
    sharding: Sharding | None = None,
) -> int:
    """Estimate, from below, the memory that a pass and an update of float32 take on a CPU.

    Counted are weights, gradients, the average and the optimizer's state; what each layer keeps for
    its backward pass; and its masks, which attention turns into floats. A teacher has its weights
    and its last hidden states: what its layers take is free again before the pass. Passes of
    windows of 512 to 8192 tokens took 1.2 to 1.5 times as much (torch 2.13).

    Args:
        masked: keys that a mask has for each token, on average; 0 without a mask.
        recompute_every: `Decoder.recompute_every`.
        teacher: the model whose predictions are learnt, if any.
        sharding: of the model among ranks, if it is divided.
    """
    each = 2 + 1 + STATE_PER_PARAMETER
    states = sharding.parameters(config, each) if sharding else each * config.parameter_count
    floats = kept_values(config, masked, recompute_every)
    if teacher is not None:
        states += teacher.parameter_count
        floats += teacher.hidden_size
    return 4 * (states + floats * rows * window)


def checkpoint_bytes(config: ModelConfig, muon: bool, average: bool) -> int:
    """Count the bytes of a checkpoint's tensors: weights, their average, and optimizer state."""
    matrices = config.parameter_count - config.embedding_count
    momenta = matrices if muon else 0  # Muon has one, AdamW two moments
    weights = config.parameter_count * (2 if average else 1)
    # what tokens of one spelling share has two more, of about as many features as there are tokens
    shared = 2 * config.embedding_count if muon else 0
    return 4 * (weights + 2 * config.parameter_count - momenta + shared)


def kept_values(config: ModelConfig, masked: int, recompute_every: int = 0) -> int:
    """Count the values of a token that all layers together keep for the backward pass.

    Args:
        masked: keys that a mask has for each token, on average; 0 without a mask.
        recompute_every: `Decoder.recompute_every`.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    attention = (3 * heads + 4 * kv_heads) * config.head_size  # q, k, v, rotated, and the output
    mlp = config.mlp_size
    if config.use_moe:
        mlp = config.num_experts_per_tok * config.expert_size
    kept = 5 * config.hidden_size + attention + 3 * mlp + masked  # of a layer
    layers = config.num_hidden_layers
    if not recompute_every:
        return layers * kept
    again = math.ceil(layers / recompute_every)  # of these the input is kept, and all of one
    return (layers - again + 1) * kept + again * config.hidden_size


def rows_that_fit(
    config: ModelConfig,
    rows: int,
    window: int,
    masked: int,
    recompute_every: int = 0,
    teacher: ModelConfig | None = None,
    sharding: Sharding | None = None,
    available: int | None = None,
) -> int:
    """Halve `rows` until a pass of them fits by `least_bytes`.

    Args:
        available: bytes; default what the host has free.

    Raises:
        TrainingError: a single row does not.
    """
    available = available_memory() if available is None else available
    if available is None:
        return rows

    def needs(rows: int) -> int:
        return least_bytes(config, rows, window, masked, recompute_every, teacher, sharding)

    while rows > 1 and needs(rows) > available:
        rows = math.ceil(rows / 2)
    if needs(rows) > available:
        raise TrainingError(
            f"a single window of {window:,} tokens needs {needs(rows) / 2**30:,.1f} GiB of memory "
            f"or more with this model{' and its teacher' if teacher else ''}, and "
            f"{available / 2**30:,.1f} GiB are free: use a shorter --max-seq-len, a smaller model, "
            "or --activation-checkpointing full"
        )
    return rows
