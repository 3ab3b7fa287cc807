"""Threads of a decoding step: for a small model one is faster than several.

A step is a chain of small products. Each wakes the other threads and waits for all of them, which
takes 10 to 20 µs, and much longer where something else has their core: the part of a server that
talks to clients, or another program. That pays where a matrix takes longer to be read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from jielong.model.transformer import Transformer

# Time of a step on one of two threads, with weights in half precision and 4 layers; the shortest of
# 1,500, since other programs ran. Mean elements of a matrix: 81k 0.67, 133k 0.62, 264k 0.80,
# 461k 1.04; with 8 texts 0.61, 0.56, 0.73, 0.65.
LARGE_MATRIX = 2**18
FEW_TOKENS = 8  # of a step; more of them give several threads enough to do


def is_small(model: Transformer) -> bool:
    """Return whether steps of a few tokens are faster on one thread: by the matrices' mean size."""
    if model.device.type != "cpu":
        return False
    shapes = [weight.shape for weight in model.parameters() if weight.ndim > 1]
    matrices = sum(shape[:-2].numel() for shape in shapes)  # experts are stacked
    return sum(shape.numel() for shape in shapes) < LARGE_MATRIX * matrices


@contextlib.contextmanager
def on_one_thread(wanted: bool) -> Iterator[None]:
    """Compute on one thread meanwhile, if wanted; other threads of Python keep theirs."""
    threads = torch.get_num_threads()
    if not wanted or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
