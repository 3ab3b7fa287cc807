"""Sampling the next token from logits: repetition penalty, temperature, top-k, top-p, min-p.

The filters are applied in the order of Hugging Face transformers, so that the same settings give
the same distribution there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor

from jielong.config.sampling import Sampling
from jielong.errors import CheckpointError

# The nucleus of top-p usually fits in this many tokens. Finding them takes a tenth of the time of
# sorting the vocabulary.
NUCLEUS_TOKENS = 512


def new_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """Create a generator, so that sampling leaves torch's global random state untouched."""
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def next_distribution(logits: Tensor, previous: Tensor, sampling: Sampling) -> Tensor:
    """Compute the probabilities of the next token after all filters.

    With greedy sampling the likeliest token has probability 1.

    Args:
        logits: (B, V), any float type; -inf suppresses a token.
        previous: (B, N) ids that the repetition penalty applies to; negative ids are ignored.
        sampling: the settings.

    Returns:
        (B, V) float32, rows sum to 1.

    Raises:
        CheckpointError: a row of logits contains NaN or +inf, or suppresses every token.
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
    """Draw the next token of each row from `next_distribution`.

    Args:
        logits: (B, V).
        previous: (B, N) ids already in the context; negative ids are ignored.
        sampling: the settings; temperature 0 draws nothing from `generator`.
        generator: on the device of `logits`.

    Returns:
        (B,) int64.

    Raises:
        CheckpointError: as in `next_distribution`.
    """
    probabilities = next_distribution(logits, previous, sampling)
    if sampling.greedy:
        return probabilities.argmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def draw_each(
    probabilities: Tensor, generators: Sequence[torch.Generator], pool: Executor
) -> Tensor:
    """Draw a token of each row (B, V) from a generator of its own: (B,) int64.

    Each is what `torch.multinomial` draws from that row and generator alone: the token with the
    largest ratio of its probability to exponential noise. Nearly all of the time goes into the
    noise, so the rows' are made side by side.
    """
    with torch.inference_mode(False):  # the mode belongs to a thread; others write here too
        noise = torch.empty(probabilities.shape, device=probabilities.device)
    list(pool.map(lambda row, g: row.exponential_(generator=g), noise.unbind(), generators))
    return (probabilities / noise).argmax(-1)


def _penalise(scores: Tensor, previous: Tensor, penalty: float) -> Tensor:
    B, V = scores.shape
    seen = torch.zeros(B, V + 1, dtype=torch.bool, device=scores.device)  # column V: ignored ids
    seen.scatter_(1, previous.masked_fill(previous < 0, V), True)
    penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen[:, :V], penalised, scores)


def _keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    probabilities = scores.softmax(-1)
    for count in (min(NUCLEUS_TOKENS, scores.size(-1)), scores.size(-1)):
        likeliest, order = probabilities.topk(count)  # (B, count), the likeliest first
        drop = likeliest.cumsum(-1) - likeliest >= top_p  # mass of the likelier tokens
        if bool(drop[:, -1].all()):  # the nucleus lies within `count`
            break
    drop[:, 0] = False
    return scores.masked_fill(
        torch.ones_like(scores, dtype=torch.bool).scatter_(1, order, drop), -math.inf
    )
