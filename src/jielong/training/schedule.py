"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jielong.config.settings import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """Warm-up, plateau and decay over `total_steps`, as factors of the peak learning rate."""

    kind: str  # wsd, cosine, linear or constant
    total_steps: int
    warmup_steps: int
    decay_steps: int  # of wsd: the steps at the end in which it falls
    floor: float  # last learning rate as a share of the peak

    @classmethod
    def of(cls, config: TrainingConfig, total_steps: int) -> Schedule:
        warmup = config.warmup_steps
        if warmup is None:
            warmup = round(config.warmup_ratio * total_steps)
        warmup = min(warmup, total_steps)
        decay = min(round(config.decay_ratio * total_steps), total_steps - warmup)
        return cls(config.schedule, total_steps, warmup, decay, config.min_lr_ratio)

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate at `step`, counted from 0; never 0 within the run."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        length = self.decay_steps if self.kind == "wsd" else self.total_steps - self.warmup_steps
        done = step - (self.total_steps - length)  # steps of the decay already taken
        if done <= 0:
            return 1.0
        progress = min(1.0, done / length)
        if self.kind == "cosine":  # Loshchilov & Hutter 2017
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.floor + (1 - self.floor) * (1 - progress)
