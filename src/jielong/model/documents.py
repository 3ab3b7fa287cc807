"""Attention that stays within the documents of a packed window: three ways to the same result.

A mask works everywhere; on a CPU, one document after another is faster where they are long; and a
GPU has a kernel that takes all documents at once (FlashAttention-2, Dao 2023, arXiv:2307.08691).
"""

from __future__ import annotations

import functools
import itertools
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

# What may be looked at: as from `attention_mask`, `document_lengths` or `document_starts`.
Mask = Tensor | tuple[int, ...]
BLOCK_QUERIES = 128  # of a document at once
WORTH_A_CALL = 192  # tokens of a document above which a call of its own is faster than a mask
TOLERANCE = 0.02  # of two kernels in bfloat16, relative


def document_starts(document_ids: Tensor) -> Tensor:
    """Where each document of a batch begins, row after row, and where the last one ends.

    Args:
        document_ids: (B, T), equal for tokens of one document.

    Returns:
        (documents + 1,) int32, from 0 to B · T.
    """
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = begins.flatten().nonzero().flatten()
    return F.pad(starts, (0, 1), value=begins.numel()).int()


def attention_mask(document_ids: Tensor) -> Tensor:
    """Who may look at whom: earlier positions of the same document.

    Args:
        document_ids: (B, T), equal for tokens of one document.

    Returns:
        (B, 1, T, T) bool, true where query (row) may attend to key (column).
    """
    T = document_ids.shape[1]
    same = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    causal = torch.ones(T, T, dtype=torch.bool, device=document_ids.device).tril()
    return same & causal


def document_lengths(document_ids: Tensor) -> tuple[int, ...] | None:
    """Tokens of each document in a batch, row after row, where attending to each alone pays.

    Args:
        document_ids: (B, T), equal for tokens of one document.

    Returns:
        Lengths that add up to B · T; none where the documents are short: one call for all, with a
        mask, is faster there.
    """
    starts = document_starts(document_ids).tolist()
    if (len(starts) - 1) * WORTH_A_CALL > document_ids.numel():
        return None
    return tuple(b - a for a, b in itertools.pairwise(starts))


def attend_by_document(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Attention within each document: q (B, H, T, D), k, v (B, KV, T, D) → (B, T, H, D).

    Nothing is computed between documents, which a mask would only throw away, and little of what
    lies after a query: a block of queries looks at the keys up to its own end. The queries that
    share a key head stand below one another, so that keys and values need no copies.
    """
    B, H, T, D = q.shape
    KV = k.shape[1]
    G = H // KV  # queries that share a key head
    grouped = q.view(B, KV, G, T, D).permute(1, 2, 0, 3, 4).reshape(KV, G, B * T, D)
    keys, values = (x.transpose(0, 1).reshape(KV, B * T, D) for x in (k, v))
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    outs = []
    parts = (grouped.split(lengths, 2), keys.split(lengths, 1), values.split(lengths, 1))
    for q, k, v in zip(*parts, strict=True):
        size = -(-q.shape[2] // max(1, round(q.shape[2] / BLOCK_QUERIES)))
        for start, block in zip(range(0, q.shape[2], size), q.split(size, 2), strict=True):
            rows, end = block.shape[2], start + block.shape[2]
            mask = causal[start:end, :end].repeat(G, 1)
            out = F.scaled_dot_product_attention(
                block.reshape(1, KV, G * rows, D), k[None, :, :end], v[None, :, :end], mask
            )
            outs.append(out.view(KV, G, rows, D))
    return torch.cat(outs, 2).view(H, B, T, D).permute(1, 2, 0, 3)


def is_packed(mask: Mask | None) -> TypeGuard[Tensor]:
    """Whether it comes from `document_starts`."""
    return isinstance(mask, Tensor) and mask.ndim == 1


def attend_packed(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    """Attention within each document: q (B, H, T, D), k, v (B, KV, T, D) → (B, T, H, D).

    Args:
        q, k, v: bfloat16 or float16 on a GPU.
        starts: as from `document_starts`, on the same device.
    """
    from torch.nn.attention import varlen  # loads custom operators, which only a GPU needs

    B, H, T, D = q.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    causal = (-1, 0)
    out = varlen.varlen_attn(q, k, v, starts, starts, T, T, window_size=causal, enable_gqa=True)
    assert isinstance(out, Tensor)
    return out.view(B, T, H, D)


@functools.cache
def packs(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, D: int) -> bool:
    """Whether `attend_packed` gives what a mask gives on this device, and the same gradients.

    Tried rather than looked up: it depends on the GPU, the width of a head and torch's version.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return _agrees_with_mask(device, dtype, heads, kv_heads, D)


@torch.inference_mode(False)
@torch.enable_grad()
def _agrees_with_mask(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, D: int
) -> bool:
    ids = torch.tensor([[0] * 5 + [1] * 90 + [2], [0] * 64 + [1] * 32], device=device)
    generator = torch.Generator(device).manual_seed(0)  # torch's own stream stays where it is
    q, k, v, grad = (
        torch.randn(2, n, 96, D, device=device, generator=generator).to(dtype)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    inputs = q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    with torch.autocast(device.type, enabled=False):
        exact = [x.float() for x in inputs]
        q32, k32, v32 = (x.repeat_interleave(heads // x.shape[1], 1) for x in exact)
        want = F.scaled_dot_product_attention(q32, k32, v32, attention_mask(ids))
        wanted = torch.autograd.grad(want, exact, grad.float())
        try:
            got = attend_packed(q, k, v, document_starts(ids)).transpose(1, 2)
            gotten = torch.autograd.grad(got, inputs, grad)
        except Exception:  # whatever a kernel that does not run here raises
            return False
    pairs = zip((got.detach(), *gotten), (want.detach(), *wanted), strict=True)
    return all(bool((a - b).norm() <= TOLERANCE * b.norm()) for a, b in pairs)
