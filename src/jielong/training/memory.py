"""Out-of-memory detection, and the largest micro-batch that fits."""

from __future__ import annotations

import gc
import math

import numpy as np
import torch

from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.trial import try_batch

# What the allocators of torch say; only CUDA's has an exception of its own.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")
STATE_PER_PARAMETER = 2  # floats that AdamW keeps: those are not there yet before the first step


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
    model: Transformer, batch: Batch, dtype: torch.dtype, micro_batch_size: int
) -> int:
    """The largest of `micro_batch_size`, half of it, a quarter … rows that fit in memory.

    Tries a forward and a backward pass of the first rows of `batch`, with room held for the
    optimizer's state. Halving further is left to the first step, should this not have been enough.
    """
    size = min(micro_batch_size, len(batch.tokens))
    while size > 1 and not _fits(model, batch.rows(np.arange(size)), dtype):
        free_memory()
        size = math.ceil(size / 2)
    free_memory()
    return size


def _fits(model: Transformer, batch: Batch, dtype: torch.dtype) -> bool:
    try:
        state = torch.empty(STATE_PER_PARAMETER * model.num_parameters(), device=model.device)
        try_batch(model, batch, dtype)
        del state
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
