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

    def of(self, rows: slice) -> Distributions:
        """Return the distributions of some of the N targets."""
        ...


@dataclass(frozen=True)
class TeacherTargets:
    """A trained model's predictions.

    Attributes:
        hidden: (N, H′) its last hidden states, where N tokens are predicted.
        weight: (V, H′) its output head, of the same dtype, in which their product is taken.
        share: of the objective.
    """

    hidden: Tensor
    weight: Tensor
    share: float

    def of(self, rows: slice) -> Distributions:
        return Dense((self.hidden[rows] @ self.weight.T).float().softmax(-1))


@dataclass(frozen=True)
class Dense:
    """Distributions (N, V) as they are."""

    probabilities: Tensor

    def mean(self, logits: Tensor) -> Tensor:
        return (self.probabilities * logits).sum(-1, keepdim=True)

    def subtract_from(self, gradient: Tensor, factor: Tensor) -> None:
        gradient.addcmul_(self.probabilities, factor, value=-1)


@dataclass(frozen=True)
class BigramTargets:
    """What follows each of some tokens in a text.

    Attributes:
        before: (N,) the token before each target.
        table: what follows each token.
        share: of the objective.
    """

    before: Tensor
    table: BigramTable
    share: float

    def of(self, rows: slice) -> Distributions:
        return self.table.after(self.before[rows])


@dataclass(frozen=True)
class BigramTable:
    """A distribution after each token: its K likeliest successors, and a common one for the rest.

    Attributes:
        successors: (V, K) tokens, from the likeliest on; any where there are fewer.
        probabilities: (V, K) theirs, beyond what the common distribution gives them; then 0.
        rest: (V, 1) the probability that is spread by the common distribution.
        common: (V,) a distribution over all tokens.
    """

    successors: Tensor
    probabilities: Tensor
    rest: Tensor
    common: Tensor

    def after(self, tokens: Tensor) -> Sparse:
        """Return the distributions after some tokens (N,)."""
        return Sparse(
            self.successors[tokens], self.probabilities[tokens], self.rest[tokens], self.common
        )


@dataclass(frozen=True)
class Sparse:
    """Distributions of N rows that differ in K tokens each.

    Attributes:
        tokens: (N, K).
        probabilities: (N, K) theirs, beyond what the common distribution gives them.
        rest: (N, 1) the probability that is spread by the common distribution.
        common: (V,).
    """

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
