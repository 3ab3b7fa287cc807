"""From the logits of the next token to a token: penalty, temperature, top-k, top-p, min-p, draw.

The filters apply in the order of Hugging Face transformers, so that the same settings mean the same
distribution there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from jielong.config.fields import nearest
from jielong.errors import CheckpointError, ConfigError

NUCLEUS = 512  # tokens that mostly hold it; to find these takes a tenth of sorting a vocabulary
GREEDY_BELOW = 1e-5  # a colder softmax is an argmax that only risks overflow
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
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token (greedy).
        top_k: draw among the k likeliest tokens (ties with the k-th stay); 0 turns it off.
        top_p: draw from the smallest set of likeliest tokens that holds this probability (nucleus
            sampling, Holtzman et al. 2020, arXiv:1904.09751); 1 turns it off.
        min_p: drop tokens below this share of the likeliest one's probability (Nguyen et al. 2024,
            arXiv:2407.01082); 0 turns it off.
        repetition_penalty: divides positive logits of tokens already in the context and multiplies
            negative ones (CTRL, Keskar et al. 2019, arXiv:1909.05858); 1 turns it off.
        seed: of the draws; None takes a fresh one from the system.

    Raises:
        ConfigError: a value is out of bounds, NaN, or no number; it names the field.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.05
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
    """Sampling of the given values.

    Raises:
        ConfigError: a name is unknown, or a value is out of bounds.
    """
    known = [f.name for f in fields(Sampling)]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown setting sampling.{name}{nearest(name, known)}")
    return Sampling(**values)


def new_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """A random stream of its own: torch's global one, which training may use, stays untouched."""
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def next_distribution(logits: Tensor, previous: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities of the next token after all filters; for greedy, 1 at the likeliest token.

    Args:
        logits: (B, V), any float type; -inf bars a token.
        previous: (B, N) ids that the repetition penalty applies to; negative ids mean none.
        sampling: the settings.

    Returns:
        (B, V) float32, rows sum to 1.

    Raises:
        CheckpointError: a row of logits is NaN, +inf, or bars every token.
    """
    scores = logits.float()
    if not bool(torch.isfinite(scores.amax(-1)).all()):  # amax passes NaN on
        raise CheckpointError(
            "the model's logits are not finite: its weights are damaged or its training diverged; "
            "use an earlier checkpoint"
        )
    if sampling.repetition_penalty != 1.0:
        scores = _penalise(scores, previous, sampling.repetition_penalty)
    scores = scores - scores.amax(-1, keepdim=True)  # so that a low temperature cannot overflow
    if sampling.greedy:
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.size(-1):
        kth = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -math.inf)
    if sampling.top_p < 1.0:
        scores = _keep_nucleus(scores, sampling.top_p)
    probabilities = scores.softmax(-1)
    if sampling.min_p > 0.0:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def sample_next(
    logits: Tensor, previous: Tensor, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """The next token of each row, drawn from `next_distribution`.

    Args:
        logits: (B, V).
        previous: (B, N) ids already in the context; negative ids mean none.
        sampling: the settings; temperature 0 draws nothing from `generator`.
        generator: on the device of `logits`.

    Returns:
        (B,) int64.

    Raises:
        CheckpointError: as `next_distribution`.
    """
    probabilities = next_distribution(logits, previous, sampling)
    if sampling.greedy:
        return probabilities.argmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def _penalise(scores: Tensor, previous: Tensor, penalty: float) -> Tensor:
    B, V = scores.shape
    seen = torch.zeros(B, V + 1, dtype=torch.bool, device=scores.device)  # column V takes "none"
    seen.scatter_(1, previous.masked_fill(previous < 0, V), True)
    penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen[:, :V], penalised, scores)


def _keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    probabilities = scores.softmax(-1)
    for count in (min(NUCLEUS, scores.size(-1)), scores.size(-1)):
        likeliest, order = probabilities.topk(count)  # (B, count), the likeliest first
        drop = likeliest.cumsum(-1) - likeliest >= top_p  # by the mass of the likelier tokens
        if bool(drop[:, -1].all()):  # and so are all that come later
            break
    drop[:, 0] = False
    return scores.masked_fill(
        torch.ones_like(scores, dtype=torch.bool).scatter_(1, order, drop), -math.inf
    )
