"""Sampling the next token from logits: repetition penalty, temperature, top-k, top-p, min-p.

The filters are applied in the order of Hugging Face transformers, so that the same settings give
the same distribution there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    scores = _scores(logits, previous, sampling)
    if sampling.greedy:
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    ids, weights = _candidates(scores, sampling)
    probabilities = weights / weights.sum(-1, keepdim=True)
    return (
        probabilities if ids is None else torch.zeros_like(scores).scatter_(1, ids, probabilities)
    )


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
    scores = _scores(logits, previous, sampling)
    if sampling.greedy:
        return scores.argmax(-1)
    return _draw(scores, sampling, _uniform(scores, generator))


def sample_each(
    logits: Tensor, previous: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]
) -> Tensor:
    """Draw as `sample_next` does, each row from a generator of its own, as if it were alone."""
    scores = _scores(logits, previous, sampling)
    if sampling.greedy:
        return scores.argmax(-1)
    uniform = [_uniform(scores[:1], generator) for generator in generators]
    return _draw(scores, sampling, torch.cat(uniform))


def _scores(logits: Tensor, previous: Tensor, sampling: Sampling) -> Tensor:
    """Return the penalised logits (B, V), float32, of which the largest of a row is 0."""
    scores = logits.float()
    if not bool(torch.isfinite(scores.amax(-1)).all()):  # amax passes NaN on
        raise CheckpointError(
            "the model's logits are not finite: its weights are damaged or its training diverged; "
            "use an earlier checkpoint"
        )
    if sampling.repetition_penalty != 1.0:
        scores = _penalise(scores, previous, sampling.repetition_penalty)
    return scores - scores.amax(-1, keepdim=True)  # so that a low temperature cannot overflow


def _candidates(scores: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Apply the temperature and the filters.

    Returns:
        ids: (B, n), the tokens that weights stand for; None where these are those of the whole
            vocabulary, in its order.
        weights: (B, n) or (B, V), in proportion to the probabilities; 0 where a filter drops one.
    """
    scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.size(-1):
        kth = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -math.inf)
    ids, weights = None, scores.softmax(-1)
    if sampling.top_p < 1.0:
        ids, weights = _nucleus(weights, sampling.top_p)
    if sampling.min_p > 0.0:
        least = sampling.min_p * weights.amax(-1, keepdim=True)
        weights = weights.masked_fill(weights < least, 0.0)
    return ids, weights


def _uniform(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a number from [0, 1) for each row (B, V), fine enough for the rarest of tokens."""
    numbers = scores.new_empty(len(scores), dtype=_precise(scores.device))
    return numbers.uniform_(generator=generator)


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which MPS does not have


def _draw(scores: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Take the candidate within whose part of the summed weights the number (B,) falls."""
    ids, weights = _candidates(scores, sampling)
    sums = weights.cumsum(-1, dtype=_precise(weights.device))
    place = torch.searchsorted(sums, sums[:, -1:] * uniform[:, None], right=True)
    return (place if ids is None else ids.gather(1, place)).squeeze(1)


def _penalise(scores: Tensor, previous: Tensor, penalty: float) -> Tensor:
    B, V = scores.shape
    seen = torch.zeros(B, V + 1, dtype=torch.bool, device=scores.device)  # column V: ignored ids
    seen.scatter_(1, previous.masked_fill(previous < 0, V), True)
    penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen[:, :V], penalised, scores)


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the ids (B, n) of likely tokens, the likeliest first, and what they keep."""
    for count in (min(NUCLEUS_TOKENS, probabilities.size(-1)), probabilities.size(-1)):
        likeliest, order = probabilities.topk(count)
        drop = likeliest.cumsum(-1) - likeliest >= top_p  # mass of the likelier tokens
        if bool(drop[:, -1].all()):  # the nucleus lies within `count`
            break
    drop[:, 0] = False
    return order, likeliest.masked_fill_(drop, 0.0)
