"""How likely texts are to a model, token by token, in efficient batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from jielong.model.attention import KVCache
from jielong.model.transformer import Transformer, context_length

LOGIT_ROWS = 512  # tokens whose logits are in memory at once
# From so many tokens on, reading a prefix once saves more than two passes of their own cost.
SHARED_TOKENS = 128


@dataclass(frozen=True)
class Row:
    """Token ids of which those from `first` on are predicted, from all before them.

    Attributes:
        ids: (n,) int64.
        first: 1 or more; from n on, nothing is predicted.
    """

    ids: np.ndarray
    first: int


@dataclass(frozen=True)
class Scored:
    """What a model says about the k = n − first tokens that it predicts in a row.

    Attributes:
        nats: (k,) float64, −ln of the probability of each.
        right: (k,) bool, whether each was the likeliest.
    """

    nats: np.ndarray
    right: np.ndarray


class Scorer(Protocol):
    """A language model, in any form."""

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Return what the model says about each row, in their order."""
        ...


class ModelScorer:
    """A transformer as a scorer.

    Rows are sorted by length and padded at the end, where no token attends to it; where several
    rows in sequence have the same beginning, it is read once. So the results are those of one row
    at a time, but for rounding.

    Args:
        model: in eval mode, on any device.
        batch_tokens: most tokens in a pass, padding included; at least one row.
    """

    def __init__(self, model: Transformer, batch_tokens: int = 8192) -> None:
        self.model, self.batch_tokens = model, batch_tokens
        self.context = context_length(model.config)

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Return what the model says about each row, in their order.

        A row that is longer than the context loses its beginning; if what is predicted is longer
        too, it is cut into windows.
        """
        windows = [(i, window) for i, row in enumerate(rows) for window in self._windows(row)]
        found: list[Scored | None] = [None] * len(windows)
        single: list[int] = []
        with torch.inference_mode():
            for group in _groups([window for _, window in windows]):
                first = windows[group[0]][1].first
                if (len(group) - 1) * first < SHARED_TOKENS:
                    single += group
                    continue
                scored = self._with_shared_prefix([windows[g][1] for g in group])
                for g, result in zip(group, scored, strict=True):
                    found[g] = result
            single.sort(key=lambda g: len(windows[g][1].ids), reverse=True)
            while single:
                count = max(1, self.batch_tokens // len(windows[single[0]][1].ids))
                batch, single = single[:count], single[count:]
                scored = self._padded([windows[g][1] for g in batch])
                for g, result in zip(batch, scored, strict=True):
                    found[g] = result
        parts: list[list[Scored]] = [[] for _ in rows]
        for (i, _), scored_window in zip(windows, found, strict=True):
            assert scored_window is not None
            parts[i].append(scored_window)
        return [_joined(part) for part in parts]

    def _windows(self, row: Row) -> Iterator[Row]:
        n, predicted = len(row.ids), len(row.ids) - row.first
        if predicted < 1:
            return
        if n - 1 <= self.context:
            yield row
        elif predicted <= self.context:
            left_out = n - 1 - self.context
            yield Row(row.ids[left_out:], row.first - left_out)
        else:
            for start in range(row.first - 1, n - 1, self.context):
                yield Row(row.ids[start : start + self.context + 1], 1)

    def _padded(self, rows: list[Row]) -> list[Scored]:
        tokens = self._pad([row.ids[:-1] for row in rows])
        hidden = self.model.hidden_states(tokens)  # (B, T, H)
        spans = [(row.first - 1, len(row.ids) - 1) for row in rows]
        picked = torch.cat([hidden[i, a:b] for i, (a, b) in enumerate(spans)])
        return self._compared(picked, [row.ids[row.first :] for row in rows])

    def _with_shared_prefix(self, rows: list[Row]) -> list[Scored]:
        """Score rows that begin alike, up to their equal `first`."""
        first, model = rows[0].first, self.model
        longest = max(len(row.ids) for row in rows) - 1
        dtype = model.lm_head.weight.dtype
        prefix = KVCache(model.config, 1, first, model.device, dtype)
        beginning = self._pad([rows[0].ids[:first]])
        last = model.hidden_states(beginning, cache=prefix)[:, -1:]  # (1, 1, H)
        found = []
        count = max(1, self.batch_tokens // longest)
        for start in range(0, len(rows), count):
            batch = rows[start : start + count]
            cache = KVCache(model.config, len(batch), longest, model.device, dtype)
            cache.pairs[..., :first, :] = prefix.pairs
            cache.length = first
            rest = [row.ids[first:-1] for row in batch]
            hidden = last.expand(len(batch), 1, -1)
            if any(map(len, rest)):
                after = model.hidden_states(self._pad(rest), cache=cache)
                hidden = torch.cat([hidden, after], dim=1)
            picked = torch.cat([hidden[i, : len(ids) + 1] for i, ids in enumerate(rest)])
            found += self._compared(picked, [row.ids[first:] for row in batch])
        return found

    def _pad(self, rows: list[np.ndarray]) -> Tensor:
        """Return ids (B, T) on the model's device, zeros at the ends."""
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for i, ids in enumerate(rows):
            tokens[i, : len(ids)] = torch.from_numpy(ids)
        return tokens.to(self.model.device)

    def _compared(self, hidden: Tensor, targets: list[np.ndarray]) -> list[Scored]:
        """Compare the predictions of `hidden` (N, H) with the targets, N in all."""
        flat = torch.from_numpy(np.concatenate(targets)).to(hidden.device)
        nats, right = [], []
        for start in range(0, len(flat), LOGIT_ROWS):
            logits = self.model.logits(hidden[start : start + LOGIT_ROWS]).float()
            target = flat[start : start + LOGIT_ROWS, None]
            chosen = logits.gather(1, target)[:, 0]
            nats.append((logits.logsumexp(-1) - chosen).double().cpu().numpy())
            right.append((logits.argmax(-1) == target[:, 0]).cpu().numpy())
        cuts = np.cumsum([len(target) for target in targets])[:-1]
        pieces = zip(
            np.split(np.concatenate(nats), cuts), np.split(np.concatenate(right), cuts), strict=True
        )
        return [Scored(n, r) for n, r in pieces]


def _groups(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Yield the indices of rows in sequence that have the same tokens before `first`."""
    group: list[int] = []
    for i, row in enumerate(rows):
        if group:
            head = rows[group[0]]
            same = head.first == row.first and np.array_equal(
                head.ids[: head.first], row.ids[: row.first]
            )
            if not same:
                yield group
                group = []
        group.append(i)
    if group:
        yield group


def _joined(parts: list[Scored]) -> Scored:
    return Scored(
        np.concatenate([np.empty(0), *(part.nats for part in parts)]),
        np.concatenate([np.empty(0, bool), *(part.right for part in parts)]),
    )
