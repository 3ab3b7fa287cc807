"""Attention that stays within the documents of a packed window: three ways to the same result.

A mask works everywhere; on a CPU, one document after another is faster where they are long; and a
GPU has a kernel that takes all documents at once (FlashAttention-2, Dao 2023, arXiv:2307.08691).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.errors import first_line

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
        q, k, v: bfloat16 or float16 on a GPU. They are cast to the dtype of v: the kernel takes
            one dtype only, and autocast does not know the kernel.
        starts: as from `document_starts`, on the same device.
    """
    from torch.nn.attention import varlen  # loads custom operators, which only a GPU needs

    B, H, T, D = q.shape
    options = _kernel_options(varlen.varlen_attn)
    if "enable_gqa" not in options:
        k, v = (x.repeat_interleave(H // x.shape[1], 1) for x in (k, v))
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(v.dtype) for x in (q, k, v))
    out = varlen.varlen_attn(q, k, v, starts, starts, T, T, **options)
    assert isinstance(out, Tensor)
    return out.view(B, T, H, D)


def _kernel_options(kernel: Callable[..., Any]) -> dict[str, Any]:
    """Causal attention with shared key heads, as far as this torch's kernel knows the words."""
    known = inspect.signature(kernel).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    return causal | ({"enable_gqa": True} if "enable_gqa" in known else {})  # torch 2.12 and later


def varlen_unavailable(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_size: int
) -> str | None:
    """Why `attend_packed` cannot be used for these sizes on this device; None if it can.

    It is run once on a small input and compared with a mask, outputs and gradients: support
    depends on the GPU, the head size and the version of torch.
    """
    if device.type != "cuda":
        return "it needs an NVIDIA GPU"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    return _differs_from_mask(device, dtype, heads, kv_heads, head_size)


@torch.inference_mode(False)
@torch.enable_grad()
def _differs_from_mask(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, D: int
) -> str | None:
    ids = torch.tensor([[0] * 5 + [1] * 90 + [2], [0] * 64 + [1] * 32])
    mask, starts = attention_mask(ids).to(device), document_starts(ids).to(device)
    generator = torch.Generator(device).manual_seed(0)  # torch's own stream stays where it is
    q, k, v, grad = (
        torch.randn(2, n, 96, D, device=device, generator=generator).to(dtype)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    inputs = q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    with torch.autocast(device.type, enabled=False):
        exact = [x.detach().float().requires_grad_() for x in inputs]
        q32, k32, v32 = (x.repeat_interleave(heads // x.shape[1], 1) for x in exact)
        want = F.scaled_dot_product_attention(q32, k32, v32, mask)
        wanted = torch.autograd.grad(want, exact, grad.float())
        try:
            got = attend_packed(q, k, v, starts).transpose(1, 2)
            gotten = torch.autograd.grad(got, inputs, grad)
        except Exception as error:  # whatever a kernel that does not run here raises
            return f"it does not run here ({type(error).__name__}: {first_line(error)})"
    pairs = zip((got.detach(), *gotten), (want.detach(), *wanted), strict=True)
    if all(bool((a - b).norm() <= TOLERANCE * b.norm()) for a, b in pairs):
        return None
    return "its results differ from those with a mask"
