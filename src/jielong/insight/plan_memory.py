"""The memory of a run by kind, before it runs."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from jielong.config.model import ModelConfig
from jielong.insight.arithmetic import Part
from jielong.model.loss import CHUNK_TOKENS
from jielong.training.memory import kept_values

FLOAT, HALF = 4, 2  # bytes
PROCESS = 350 * 2**20  # of Python, torch and the text in hand, where it cannot be measured
CUDA_CONTEXT = 600 * 2**20
# what two runs held beyond all that is counted (checkpoints, samples, free blocks): 40 and 87 MiB
RUNNING = 64 * 2**20
KERNELS = 1.25  # what a pass on a CPU takes beyond what its layers keep (docs/experiments.md)


@dataclass(frozen=True)
class Training:
    """What decides a run's memory beside its model."""

    micro_batch: int  # windows of a pass
    window: int
    masked: int  # keys that a mask has for each token; 0 without a mask
    muon: bool
    average: bool  # a running average of the weights is kept
    on_gpu: bool
    recompute_every: int = 0  # `Decoder.recompute_every`


@dataclass(frozen=True)
class MemoryByKind:
    """Bytes at the peak of a step."""

    process: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    logits: int
    data: int

    @property
    def total(self) -> int:
        return (
            self.process
            + self.weights
            + self.gradients
            + self.optimizer
            + self.average
            + self.activations
            + self.logits
            + self.data
        )


def memory_of(model: ModelConfig, parts: list[Part], t: Training) -> MemoryByKind:
    """Estimate the memory of an update."""
    parameters = sum(part.parameters for part in parts)
    hidden = [p for p in parts if p.name.startswith("N.") and len(p.shape) == 2 and t.muon]
    hidden = [p for p in hidden if not p.name.endswith("mlp.gate")]
    momenta = sum(p.parameters for p in hidden)
    # Muon stacks all matrices of one shape, and orthogonalises some copies of the stack
    stack = max((p.parameters for p in hidden), default=0)
    tokens = t.micro_batch * t.window
    kept = kept_values(model, t.masked, t.recompute_every) * tokens
    chunk = min(CHUNK_TOKENS, tokens)
    wide = model.vocab_size * chunk * FLOAT * 2
    head = model.vocab_size * model.hidden_size * FLOAT  # its gradient, before it is added
    return MemoryByKind(
        process=CUDA_CONTEXT if t.on_gpu else _process() + RUNNING,
        weights=parameters * (FLOAT + (HALF if t.on_gpu else 0)),  # with autocast's copies
        gradients=parameters * FLOAT,
        optimizer=FLOAT * (2 * (parameters - momenta) + momenta + 3 * stack),
        average=parameters * FLOAT if t.average else 0,
        activations=round(kept * (HALF if t.on_gpu else FLOAT * KERNELS)),
        logits=wide + head + tokens * model.hidden_size * FLOAT,
        data=tokens * 8 * 3,
    )


def largest_micro_batch(
    model: ModelConfig, parts: list[Part], t: Training, available: int
) -> tuple[int, MemoryByKind]:
    """Halve the micro-batch until it fits, as training does; 0 if a single window does not."""
    size = t.micro_batch
    while True:
        tried = dataclasses.replace(t, micro_batch=size)
        memory = memory_of(model, parts, tried)
        if memory.total <= available:
            return size, memory
        if size == 1:
            return 0, memory
        size = math.ceil(size / 2)


def _process() -> int:
    """Return the bytes that this process holds, with torch loaded as a run would have it."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return PROCESS
