"""What the recipes that `own_text.py` compares with have in common, each run in its own process.

    python race.py nanogpt TASK.json OUT.json

The time is theirs for training alone: start, tokenizer, the first update (which may compile),
measures and checkpoints are not counted. The rate follows a cosine that ends with the time, by the
clock. What counts is the best measure; a run ends early once 10 of 40 have brought nothing better.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from time_to_loss import blocks_of_text, held_out
from torch import nn

from jielong.tokenization.tokenizer import Tokenizer

MEASURES, PATIENCE = 40, 10


@dataclass(frozen=True)
class Task:
    """A model, its text and its time; the folder has the texts and the tokenizer."""

    folder: str
    seconds: float
    rate: float
    batch_size: int  # windows
    window: int
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    seed: int = 1


class Race:
    """The clock of a run, its curve, and whether it is over."""

    def __init__(self, seconds: float, bits: Callable[[nn.Module], float]) -> None:
        """Wait for `start`.

        Args:
            bits: measures a model, called with tokens (B, T) for logits (B, T, V).
        """
        self.seconds, self.bits = seconds, bits
        self.begun: float | None = None
        self.pauses = 0.0
        self.tokens = 0
        self.curve: list[tuple[float, float]] = []  # seconds, bits per byte

    def start(self) -> None:
        self.begun = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds of training so far."""
        return 0.0 if self.begun is None else time.perf_counter() - self.begun - self.pauses

    def cosine(self, warmup: float) -> float:
        """The rate now, as a share of the peak."""
        share = min(1.0, self.spent / self.seconds)
        if share < warmup:
            return max(share / warmup, 0.01)
        return 0.55 + 0.45 * math.cos(math.pi * (share - warmup) / (1 - warmup))

    def trained(self, tokens: int) -> None:
        self.tokens += tokens

    @property
    def due(self) -> bool:
        """Whether it is time for a measure."""
        share = self.spent / self.seconds
        return share >= min(1.0, (len(self.curve) + 1) / MEASURES)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something that is not counted."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.pauses += time.perf_counter() - started

    def measure(self, model: nn.Module) -> float:
        """Measure the model as it is, outside the clock."""
        spent = self.spent
        with self.paused():
            was_training = model.training
            bits = self.bits(model.eval())
            model.train(was_training)
        self.curve.append((spent, bits))
        return bits

    @property
    def over(self) -> bool:
        """Whether the time is over, or nothing better has come for long."""
        found = [bits for _, bits in self.curve]
        turned = bool(found) and len(found) - 1 - found.index(min(found)) >= PATIENCE
        # the last measure is taken after the time is over
        measured = bool(self.curve) and self.curve[-1][0] >= self.seconds
        return turned or measured


def main() -> None:
    name, out = sys.argv[1], Path(sys.argv[3])
    task = Task(**json.loads(Path(sys.argv[2]).read_text()))
    folder = Path(task.folder)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    stream = blocks_of_text(folder, tokenizer, 1)[:, 0]
    race = Race(
        task.seconds, lambda model: held_out(folder, tokenizer, task.window, model).bits_per_byte
    )
    parameters = contender(name)(task, stream, race)
    result = {
        "curve": [(round(spent, 2), round(bits, 5)) for spent, bits in race.curve],
        "parameters": parameters,
        "tokens": race.tokens,
        "epochs": round(race.tokens / len(stream), 2),
    }
    out.write_text(json.dumps(result))


def contender(name: str) -> Callable[[Task, np.ndarray, Race], int]:
    """The function that trains, of a module that is imported only now."""
    if name == "nanogpt":
        from nanogpt import train
    elif name == "trainer":
        from hf_trainer import train_in_time as train
    elif name == "litgpt":
        from litgpt_pretrain import train_in_time as train
    else:
        raise SystemExit(f"{name} is no contender")
    return train


if __name__ == "__main__":
    main()
