"""Settings that follow from model size and budget, so that nobody needs to know them.

The constants were measured on small models (docs/experiments.md); all can be set by hand.
"""

from __future__ import annotations

import dataclasses
import math

from jielong.config.settings import Config
from jielong.data.batches import Stream

LEAST_STEPS = 50  # fewer updates than that learn little, however good each gradient is
FIRST_BATCHES = 5.0  # tokens of a batch over the root of the tokens before it
MICRO_BATCH_TOKENS = 2**15  # more at once needs memory and gains no speed


def default_learning_rate(config: Config) -> float:
    """Peak rate from width: wide layers need smaller steps."""
    scale = 0.07 if config.training.optimizer == "muon" else 0.03
    return float(f"{scale * config.model.hidden_size**-0.5:.2g}")


def default_tokens_per_step(total_tokens: float, hidden_size: int) -> float:
    """Tokens of a global batch, growing as the root of the budget.

    Early on gradients agree and small batches learn more a token; the longer a run, the more noise
    there is to average out (McCandlish et al. 2018). An update of Muon costs as much as training on
    about 4 tokens for each unit of width, which sets a least size.
    """
    tokens = max(2 * math.sqrt(total_tokens), 12 * hidden_size)
    return min(tokens, total_tokens / LEAST_STEPS)


def first_batches(config: Config) -> list[int]:
    """Windows in each of the first steps of a run, growing until the full batch is reached.

    By the reasoning of `default_tokens_per_step`, applied to each moment of a run instead of its
    end: what is learnt first needs little averaging, and more updates learn it sooner.
    """
    t, window = config.training, config.data.max_seq_len
    if not t.batch_warmup:
        return []
    assert t.batch_size is not None, "with_batch_size fills it in"
    sizes: list[int] = []
    seen = 0
    while True:
        tokens = max(FIRST_BATCHES * math.sqrt(seen), 4 * config.model.hidden_size)
        size = max(1, round(tokens / window))
        if size >= t.batch_size * t.accumulation_steps:
            return sizes
        sizes.append(size)
        seen += size * window


def with_batch_size(config: Config, train: Stream) -> Config:
    """The config with the batch size, and how it begins, filled in where they were left open.

    Args:
        train: the training split, whose length is the budget of an epoch.
    """
    t, window = config.training, config.data.max_seq_len
    batch_size, accumulation = t.batch_size, t.accumulation_steps
    if batch_size is None:
        if t.steps is not None:  # tokens = steps · batch, put into batch = 2 · √tokens
            wanted = max(4.0 * t.steps, 12 * config.model.hidden_size)
        else:
            rows = len(train.documents) * window if config.data.packing == "pad" else len(train)
            total = t.tokens if t.tokens is not None else t.epochs * rows
            wanted = default_tokens_per_step(total, config.model.hidden_size)
        windows = max(1, round(wanted / window))
        if accumulation == 1:
            accumulation = -(-windows * window // MICRO_BATCH_TOKENS)
        batch_size = -(-windows // accumulation)
    training = dataclasses.replace(
        t,
        batch_size=batch_size,
        accumulation_steps=accumulation,
        batch_warmup=t.batch_size is None if t.batch_warmup is None else t.batch_warmup,
    )
    return dataclasses.replace(config, training=training)
