"""A pass that changes nothing: whether a batch fits in memory, or the model compiles."""

from __future__ import annotations

import torch

from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.runtime.device import autocast
from jielong.training.teacher import Teacher


def try_batch(
    model: Transformer, batch: Batch, dtype: torch.dtype, teacher: Teacher | None = None
) -> None:
    """A forward and a backward pass whose gradients are thrown away; raises what they raise."""
    device = model.device
    try:
        with autocast(device, dtype):
            loss = model(
                batch.tokens.to(device),
                batch.targets.to(device),
                batch.document_ids,
                soft_targets=teacher(batch, device) if teacher else None,
            ).loss
        loss.backward()
    finally:
        model.zero_grad(set_to_none=True)
