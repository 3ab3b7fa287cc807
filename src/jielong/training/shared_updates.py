"""Tokens that are spelled alike learn together: their embeddings share a part of each update.

A rare token is learnt from few places. But ` Come` is spelled as `come`, and what is learnt of one
holds for the other. So a token's embedding is trained as if it were its own vector plus those of
the features of its spelling, in the manner of fastText (Bojanowski et al. 2017, arXiv:1607.04606):

    E = W + A S        A (V, F): which token has which feature, S (F, H): a vector of each

Both W and S begin at their first values, and decay alike, so only their sum has to be kept: with
the gradient G of E, an update is AdamW's of W for G, plus A times AdamW's of S for AᵀG. The model
has its plain embedding E, and its files know nothing of this. Measured in docs/experiments.md.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from jielong.runtime.parts import first_row, home, is_sharded, local
from jielong.runtime.sharding import shard_group
from jielong.tokenization.spelling import Spelling


class SharedUpdates:
    """The part of the updates that rows of an embedding share.

    Attributes:
        shared: (F, H), a parameter of the optimizer, not of the model. It has the gradient of S
            before an update and the change of S after it.
    """

    def __init__(self, embedding: Tensor, spelling: Spelling) -> None:
        """Share the updates of an embedding (V, H), or of this rank's rows of it."""
        self.embedding = embedding
        own = local(embedding)
        first = first_row(embedding)
        here = (spelling.tokens >= first) & (spelling.tokens < first + len(own))
        tokens, features = spelling.tokens[here] - first, spelling.features[here]
        values = spelling.values[here]
        self._features_of = _Sums(tokens, features, values, len(own), own.device)
        self._tokens_of = _Sums(features, tokens, values, spelling.feature_count, own.device)
        size = spelling.feature_count, own.shape[1]
        self.shared = nn.Parameter(torch.zeros(size, device=own.device), requires_grad=False)

    @torch.no_grad()
    def gather(self) -> None:
        """Give `shared` its gradient, from the embedding's; ranks with parts of it add theirs."""
        self.shared.grad = None
        if self.embedding.grad is None:
            return
        gradient = self._tokens_of(local(self.embedding.grad))
        if is_sharded(self.embedding):
            whole = gradient.to(home(self.embedding))
            dist.all_reduce(whole, group=shard_group(self.embedding))
            gradient = whole.to(gradient.device)
        self.shared.grad = gradient
        self.shared.zero_()

    @torch.no_grad()
    def spread(self) -> None:
        """Add to each row of the embedding the change of its features."""
        if self.shared.grad is not None:
            local(self.embedding).add_(self._features_of(self.shared))


class _Sums:
    """A product with a sparse matrix: each row of the result is a weighted sum of rows.

    Each is added up by one thread in a fixed order, so that the bits do not depend on how many
    threads there are.
    """

    def __init__(
        self,
        rows: np.ndarray,
        columns: np.ndarray,
        values: np.ndarray,
        row_count: int,
        device: torch.device,
    ) -> None:
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], np.arange(row_count))
        self.columns = torch.from_numpy(columns[order]).to(device)
        self.values = torch.from_numpy(values[order]).to(device)
        self.starts = torch.from_numpy(starts).to(device)

    def __call__(self, table: Tensor) -> Tensor:
        """Return (rows, H), sums of the rows of a table (columns, H)."""
        return embedding_bag(
            self.columns, table, self.starts, mode="sum", per_sample_weights=self.values
        )
