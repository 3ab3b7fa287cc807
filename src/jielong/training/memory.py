"""Memory that runs out: how that is known, and how many pieces make a micro-batch fit."""

from __future__ import annotations

import gc

import torch

from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.trial import try_batch

# What the allocators of torch say; only CUDA's has an exception of its own.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")
CPU_TOKENS = 2**11  # at once: with these its caches do best
STATE_PER_PARAMETER = 2  # floats that AdamW keeps: those are not there yet before the first step


class DoesNotFitError(Exception):
    """A forward or backward pass did not fit; nothing of the model or optimizer has changed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the host, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error) for s in _SAYINGS)


def release() -> None:
    """Gives back what a failed pass held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def default_pieces(config: Config, rows: int, device: torch.device) -> int:
    """Pieces of a micro-batch of `rows` windows on this device, where nothing else is asked for.

    A CPU is fastest with about `CPU_TOKENS` at once, and more need memory.
    """
    if device.type != "cpu":
        return 1
    return min(rows, max(1, round(rows * config.data.max_seq_len / CPU_TOKENS)))


def pieces_that_fit(model: Transformer, batch: Batch, dtype: torch.dtype, least: int = 1) -> int:
    """The fewest pieces in which `batch` fits: `least`, or twice, four times … as many.

    Tries a forward and a backward pass of the largest piece, with room held for the optimizer's
    state. Halving further is left to the first step, should this not have been enough.
    """
    rows, pieces = len(batch.tokens), least
    while pieces < rows and not _fits(model, batch.split(pieces)[0], dtype):
        release()
        pieces = min(rows, 2 * pieces)
    release()
    return pieces


def _fits(model: Transformer, piece: Batch, dtype: torch.dtype) -> bool:
    try:
        state = torch.empty(STATE_PER_PARAMETER * model.num_parameters(), device=model.device)
        try_batch(model, piece, dtype)
        del state
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
