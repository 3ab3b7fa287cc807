"""Distributions that are learnt beside the text: a teacher's, or those of a text's bigrams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Distributions(Protocol):
    """What is predicted in place of N targets, over V tokens each."""

    def mean(self, logits: Tensor) -> Tensor:
        """Return (N, 1): the mean of logits (N, V) by each distribution."""
        ...

    def subtract_from(self, gradient: Tensor, factor: Tensor) -> None:
        """Subtract each distribution times its factor (N, 1) from a gradient (N, V), in place."""
        ...


class SoftTargets(Protocol):
    """What is learnt beside the targets (distillation, Hinton et al. 2015).

    Attributes:
        share: of the objective that is the cross-entropy with these distributions.
    """

    @property
    def share(self) -> float: ...

    def of(self, rows: slice, compute: torch.dtype) -> Distributions:
        """Return the distributions of some of the N targets; products are taken in `compute`."""
        ...


@dataclass(frozen=True)
class TeacherTargets:
    """A trained model's predictions.

    Attributes:
        hidden: (N, H′) its last hidden states, where N tokens are predicted.
        weight: (V, H′) its output head.
        share: of the objective.
    """

    hidden: Tensor
    weight: Tensor
    share: float

    def of(self, rows: slice, compute: torch.dtype) -> Distributions:
        logits = self.hidden[rows].to(compute) @ self.weight.to(compute).T
        return _Dense(logits.float().softmax(-1))


@dataclass(frozen=True)
class _Dense:
    probabilities: Tensor  # (N, V)

    def mean(self, logits: Tensor) -> Tensor:
        return (self.probabilities * logits).sum(-1, keepdim=True)

    def subtract_from(self, gradient: Tensor, factor: Tensor) -> None:
        gradient.addcmul_(self.probabilities, factor, value=-1)


@dataclass(frozen=True)
class BigramTargets:
    """What follows a token in a text: its likeliest successors, and how likely all others are.

    Attributes:
        tokens: (N, K) ids of the likeliest; those of a row differ.
        probabilities: (N, K) theirs, beyond what the common distribution gives them.
        rest: (N, 1) the probability that is spread by the common distribution.
        common: (V,) a distribution over all tokens.
        share: of the objective.
    """

    tokens: Tensor
    probabilities: Tensor
    rest: Tensor
    common: Tensor
    share: float

    def of(self, rows: slice, compute: torch.dtype) -> Distributions:
        return _Sparse(self.tokens[rows], self.probabilities[rows], self.rest[rows], self.common)


@dataclass(frozen=True)
class _Sparse:
    tokens: Tensor
    probabilities: Tensor
    rest: Tensor
    common: Tensor

    def mean(self, logits: Tensor) -> Tensor:
        likeliest = (self.probabilities * logits.gather(1, self.tokens)).sum(-1, keepdim=True)
        with torch.autocast(logits.device.type, enabled=False):  # it would round to 8 bits
            return likeliest + self.rest * torch.mv(logits, self.common)[:, None]

    def subtract_from(self, gradient: Tensor, factor: Tensor) -> None:
        gradient.addcmul_(self.rest * factor, self.common[None], value=-1)
        gradient.scatter_add_(1, self.tokens, self.probabilities * -factor)
