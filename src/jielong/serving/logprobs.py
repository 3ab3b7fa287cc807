"""Log-probabilities of tokens, as the model has them before any filter or temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jielong.model.transformer import Transformer

POSITIONS_AT_ONCE = 256  # the logits of a whole prompt could take a lot of memory
Info = tuple[float, list[tuple[int, float]]]


def token_logprob(logits: Tensor, token: int, count: int) -> Info:
    """Return the token's log-probability, and the `count` likeliest tokens with theirs.

    Args:
        logits: (V,), of the position that the token was drawn for.
    """
    return _infos(logits[None], [token], count)[0]


@torch.inference_mode()
def prompt_logprobs(
    model: Transformer, hidden: Tensor, ids: Sequence[int], count: int
) -> list[Info]:
    """Return the log-probability of each token of a prompt but the first, and the likeliest ones.

    Args:
        hidden: (1, n, H), the hidden states of `ids`.
        ids: the n tokens of the prompt.
        count: how many of the likeliest tokens to return for each.
    """
    infos: list[Info] = []
    for start in range(0, len(ids) - 1, POSITIONS_AT_ONCE):
        targets = ids[start + 1 : start + 1 + POSITIONS_AT_ONCE]
        logits = model.logits(hidden[0, start : start + len(targets)])
        infos += _infos(logits, targets, count)
    return infos


def _infos(logits: Tensor, tokens: Sequence[int], count: int) -> list[Info]:
    logprobs = logits.float().log_softmax(-1)  # (n, V)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    top = logprobs.topk(min(count, logprobs.shape[-1]))
    rows = zip(chosen.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
    return [(own, list(zip(ids, values, strict=True))) for own, ids, values in rows]
