"""Attention within the documents of a packed window: three backends that give the same result.

A block-causal mask works everywhere. On a CPU one call per document is faster for long documents.
A GPU has a varlen kernel that takes all documents at once (FlashAttention-2, Dao 2023,
arXiv:2307.08691).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.errors import first_line
from jielong.runtime.device import onednn_is_faster, plain_products

QUERY_BLOCK_SIZE = 128  # queries of a document per attention call
MIN_MEAN_LENGTH = 192  # tokens per document above which per-document calls are faster than a mask
TOLERANCE = 0.02  # relative difference allowed between two kernels in half precision


@dataclass(frozen=True)
class AttentionPlan:
    """The attention backend of one forward pass: that of the field that is set.

    If none is set, attention is causal over the whole row.

    Attributes:
        block_causal_mask: (B, 1, T, T) bool, for `F.scaled_dot_product_attention`.
        document_lengths: tokens of each document, for `per_document_attention`.
        cu_seqlens: (documents + 1,) int32, for `varlen_attention`.
        kernel_options: for `varlen_attention` too. They are here, since what is compiled should
            not have to look them up.
    """

    block_causal_mask: Tensor | None = None
    document_lengths: tuple[int, ...] | None = None
    cu_seqlens: Tensor | None = None
    kernel_options: Mapping[str, Any] = field(default_factory=dict)  # with `cu_seqlens`


CAUSAL = AttentionPlan()


def cu_seqlens_of(document_ids: Tensor) -> Tensor:
    """Compute the cumulative sequence lengths of a batch's documents, row after row.

    Args:
        document_ids: (B, T), equal for tokens of one document.

    Returns:
        (documents + 1,) int32: where each document begins, then B · T.
    """
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = begins.flatten().nonzero().flatten()
    return F.pad(starts, (0, 1), value=begins.numel()).int()


def block_causal_mask(document_ids: Tensor) -> Tensor:
    """Build the mask that lets a token attend to earlier positions of its own document.

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
    """Return the length of each document if per-document attention is faster than a mask.

    Args:
        document_ids: (B, T), equal for tokens of one document.

    Returns:
        Lengths that add up to B · T, row after row. None if the documents are short: a single
        masked call is faster then.
    """
    starts = cu_seqlens_of(document_ids).tolist()
    if (len(starts) - 1) * MIN_MEAN_LENGTH > document_ids.numel():
        return None
    return tuple(b - a for a, b in itertools.pairwise(starts))


def per_document_attention(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Attend within each document, one call per block of queries.

    A mask would compute scores between documents and then discard them; this computes none. Few
    scores above the diagonal are computed either: a block of queries uses the keys up to its own
    end. Queries that share a key head are stacked as rows, so keys and values are not copied.

    Args:
        q: (B, H, T, D).
        k, v: (B, KV, T, D).
        lengths: as from `document_lengths`.

    Returns:
        (B, T, H, D).
    """
    B, H, T, D = q.shape
    KV = k.shape[1]
    G = H // KV  # queries that share a key head
    grouped = q.view(B, KV, G, T, D).permute(1, 2, 0, 3, 4).reshape(KV, G, B * T, D)
    keys, values = (x.transpose(0, 1).reshape(KV, B * T, D) for x in (k, v))
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = F.scaled_dot_product_attention
    if onednn_is_faster():
        attend, causal = _attend_plainly, torch.zeros(T, T).masked_fill(~causal, -math.inf)
    outs = []
    documents = (grouped.split(lengths, 2), keys.split(lengths, 1), values.split(lengths, 1))
    for q, k, v in zip(*documents, strict=True):
        size = -(-q.shape[2] // max(1, round(q.shape[2] / QUERY_BLOCK_SIZE)))
        for start, block in zip(range(0, q.shape[2], size), q.split(size, 2), strict=True):
            rows, end = block.shape[2], start + block.shape[2]
            mask = causal[start:end, :end].repeat(G, 1)
            out = attend(
                block.reshape(1, KV, G * rows, D), k[None, :, :end], v[None, :, :end], mask
            )
            outs.append(out.view(KV, G, rows, D))
    return torch.cat(outs, 2).view(H, B, T, D).permute(1, 2, 0, 3)


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention` by its kernel for CPUs, in float32 and without oneDNN.

    oneDNN makes code for each new shape, and documents have all lengths: with it, or in bfloat16,
    this took 2 to 4 times as long, and a run 1 to 1.5 GB more memory (docs/experiments.md).
    """
    attended: Tensor = _PlainAttention.apply(q.float(), k.float(), v.float(), bias)
    return attended.to(v.dtype)


class _PlainAttention(torch.autograd.Function):
    """Attention whose backward pass, too, runs in `plain_products`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        with plain_products():
            out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, attn_mask=bias
            )
        ctx.save_for_backward(q, k, v, out, logsumexp, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp, bias = ctx.saved_tensors
        with plain_products():
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grads[0], q, k, v, out, logsumexp, 0.0, False, attn_mask=bias
            )
        return *found, None


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    options: Mapping[str, Any],
) -> Tensor:
    """Attend within each document with torch's varlen kernel, on a GPU in half precision.

    q and k are cast to the dtype of v: the kernel takes one dtype only, and autocast does not
    cover it.

    Args:
        q: (B, H, T, D).
        k: (B, KV, T, D).
        v: (B, KV, T, D), bfloat16 or float16.
        cu_seqlens: as from `cu_seqlens_of`, on the same device.
        options: as from `varlen_options`.

    Returns:
        (B, T, H, D).
    """
    from torch.nn.attention import varlen  # loads custom operators, which only a GPU needs

    B, H, T, D = q.shape
    # heads last but one, so that rows of tokens need no copy
    q, k, v = (x.transpose(1, 2).to(v.dtype) for x in (q, k, v))
    if "enable_gqa" not in options:
        k, v = (x.repeat_interleave(H // x.shape[2], 2) for x in (k, v))
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    out = varlen.varlen_attn(q, k, v, cu_seqlens, cu_seqlens, T, T, **options)
    assert isinstance(out, Tensor)
    return out.view(B, T, H, D)


def varlen_options() -> dict[str, Any]:
    """Return the arguments for causal, grouped-query attention that this torch's kernel accepts."""
    from torch.nn.attention import varlen

    kernel: Callable[..., Any] = varlen.varlen_attn
    accepted = inspect.signature(kernel).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    return causal | ({"enable_gqa": True} if "enable_gqa" in accepted else {})  # from torch 2.12 on


def varlen_unavailable(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_size: int
) -> str | None:
    """Return why `varlen_attention` cannot be used for these sizes on this device; None if it can.

    The kernel is run once on a small input. Outputs and gradients are compared with masked
    attention: support depends on the GPU, the head size and the torch version.
    """
    if device.type != "cuda":
        return "it needs an NVIDIA GPU"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    return _compare_with_mask(device, dtype, heads, kv_heads, head_size)


@torch.inference_mode(False)
@torch.enable_grad()
def _compare_with_mask(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, D: int
) -> str | None:
    """Compare the varlen kernel with masked attention in float32; return what is wrong, if any."""
    ids = torch.tensor([[0] * 5 + [1] * 90 + [2], [0] * 64 + [1] * 32])
    mask, cu_seqlens = block_causal_mask(ids).to(device), cu_seqlens_of(ids).to(device)
    generator = torch.Generator(device).manual_seed(0)  # leaves torch's global generator untouched
    q, k, v, grad = (
        torch.randn(2, n, 96, D, device=device, generator=generator).to(dtype)
        for n in (heads, kv_heads, kv_heads, heads)
    )
    inputs = q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    with torch.autocast(device.type, enabled=False):
        exact = [x.detach().float().requires_grad_() for x in inputs]
        q32, k32, v32 = (x.repeat_interleave(heads // x.shape[1], 1) for x in exact)
        expected = F.scaled_dot_product_attention(q32, k32, v32, mask)
        expected_grads = torch.autograd.grad(expected, exact, grad.float())
        try:
            out = varlen_attention(q, k, v, cu_seqlens, varlen_options()).transpose(1, 2)
            grads = torch.autograd.grad(out, inputs, grad)
        except Exception as error:  # an unsupported kernel may raise anything
            return f"it does not run here ({type(error).__name__}: {first_line(error)})"
    pairs = zip((out.detach(), *grads), (expected.detach(), *expected_grads), strict=True)
    if all(bool((a - b).norm() <= TOLERANCE * b.norm()) for a, b in pairs):
        return None
    return "its results differ from those with a mask"
