"""Causal self-attention: grouped queries, rotary positions, optional QK-norm, key-value cache."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.model.linear import Linear
from jielong.model_config import ModelConfig

# What may be looked at: as from `attention_mask`, or from `document_lengths`.
Mask = Tensor | tuple[int, ...]
BLOCK_QUERIES = 128  # of a document at once
WORTH_A_CALL = 192  # tokens of a document above which a call of its own is faster than a mask


class KVCache:
    """Keys and values of the tokens seen so far, preallocated for `max_len` of them.

    Shapes: `keys`, `values`: (layers, batch, kv heads, max_len, head size), views of `pairs`:
    (layers, batch, 2, kv heads, max_len, head size).
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_len: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (
            config.num_hidden_layers,
            batch_size,
            2,
            config.num_key_value_heads,
            max_len,
            config.head_size,
        )
        self.pairs = torch.zeros(shape, device=device, dtype=dtype)
        self.keys, self.values = self.pairs.unbind(2)
        self.max_len = max_len
        self.length = 0  # tokens held; the model advances it after its last layer

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v (B, KV, T, D) of one layer; returns all held, (B, KV, length + T, D)."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021), in the half-split layout of Llama and Qwen."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_size: int, max_len: int, theta: float) -> None:
        super().__init__()
        powers = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        angles = torch.outer(torch.arange(max_len, dtype=torch.float64), theta**-powers)
        angles = torch.cat([angles, angles], dim=-1)  # (max_len, D)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """cos, sin (length, D) of the positions start … start + length − 1."""
        return self.cos[start : start + length], self.sin[start : start + length]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, H, T, D) turned by the angles of its positions; computed in float32."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x * cos + turned * sin).to(x.dtype)


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
        Lengths that add up to B · T; none where the documents are short, or not on a CPU: one call
        for all, with a mask, is faster there.
    """
    if document_ids.device.type != "cpu":
        return None
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = begins.flatten().nonzero().flatten().tolist()
    if len(starts) * WORTH_A_CALL > begins.numel():
        return None
    return tuple(b - a for a, b in itertools.pairwise([*starts, begins.numel()]))


def _attend_by_document(q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
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


class HeadNorm(nn.RMSNorm):
    """RMSNorm in its input's precision: torch has no fused kernel for two of them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with the parameter names of Llama and Qwen3."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = D = config.head_size
        self.q_proj = Linear(config.hidden_size, self.heads * D, bias=False)
        self.k_proj = Linear(config.hidden_size, self.kv_heads * D, bias=False)
        self.v_proj = Linear(config.hidden_size, self.kv_heads * D, bias=False)
        self.o_proj = Linear(self.heads * D, config.hidden_size, bias=False)
        self.q_norm = HeadNorm(D, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = HeadNorm(D, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Mask | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """x (B, T, hidden) → (B, T, hidden); no mask means causal."""
        B, T, _ = x.shape
        D = self.head_size
        q = self.q_norm(self.q_proj(x).view(B, T, self.heads, D)).transpose(1, 2)  # (B, H, T, D)
        k = self.k_norm(self.k_proj(x).view(B, T, self.kv_heads, D)).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.kv_heads, D).transpose(1, 2)  # (B, KV, T, D)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if isinstance(mask, tuple):
            return self.o_proj(_attend_by_document(q, k, v, mask).flatten(2))
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        past = k.shape[2] - T
        if past and T > 1:  # a chunk after a cached prefix: causal, shifted by the prefix
            mask = torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=True
        )
        return self.o_proj(out.transpose(1, 2).reshape(B, T, self.heads * D))
