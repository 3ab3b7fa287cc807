"""Settings of generation: how the next token is sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from jielong.config.hints import nearest
from jielong.errors import ConfigError

GREEDY_BELOW = 1e-5  # at a lower temperature, softmax is an argmax that may overflow
BOUNDS = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 2**31),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.1, 10.0),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token (greedy), and nothing is drawn.
        top_k: draw among the k likeliest tokens (ties with the k-th stay); 0 turns it off.
        top_p: draw from the smallest set of likeliest tokens with this total probability (nucleus
            sampling, Holtzman et al. 2020, arXiv:1904.09751); 1 turns it off.
        min_p: drop tokens below this share of the likeliest one's probability (Nguyen et al. 2024,
            arXiv:2407.01082); 0 turns it off.
        repetition_penalty: divides positive logits of tokens already in the context and multiplies
            negative ones (CTRL, Keskar et al. 2019, arXiv:1909.05858); 1 turns it off.
        seed: seed of the random draws; None takes a new one from the system.

    Raises:
        ConfigError: a value is out of bounds, NaN, or not a number; the message names the field.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            kinds = (int,) if isinstance(low, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                kind = "a whole number" if kinds == (int,) else "a number"
                raise ConfigError(f"sampling.{name}={value!r} is not {kind}")
            if math.isnan(value) or not low <= value <= high:
                raise ConfigError(f"sampling.{name}={value} is not between {low} and {high}")
        if self.top_p == 0.0:
            raise ConfigError("sampling.top_p=0 leaves no token; for greedy set temperature=0")

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


def make_sampling(**values: Any) -> Sampling:
    """Create a `Sampling` from the given values.

    Raises:
        ConfigError: a name is unknown, or a value is out of bounds.
    """
    known = [f.name for f in fields(Sampling)]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown setting sampling.{name}{nearest(name, known)}")
    return Sampling(**values)
