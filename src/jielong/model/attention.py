"""Causal self-attention: grouped queries, rotary embedding, optional QK-norm, KV cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.model.attention_backends import (
    CAUSAL,
    AttentionPlan,
    per_document_attention,
    varlen_attention,
)
from jielong.model.linear import Linear
from jielong.runtime.device import without_autocast


class KVCache:
    """Keys and values of the tokens read so far, preallocated for `max_len` tokens.

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
        self.length = 0  # tokens in the cache; the decoder advances it after its last layer

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, KV, T, D) of one layer; return all cached ones, (B, KV, length + T, D)."""
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
        self.theta = theta
        for name in ("cos", "sin"):  # (max_len, D); in no file
            self.register_buffer(name, torch.empty(max_len, head_size), persistent=False)
        self.fill()

    def fill(self) -> None:
        """Compute the table, in float64."""
        max_len, D = self.cos.shape
        powers = torch.arange(0, D, 2, dtype=torch.float64, device="cpu") / D
        positions = torch.arange(max_len, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.theta**-powers)
        angles = torch.cat([angles, angles], dim=-1)
        self.cos.copy_(angles.cos())
        self.sin.copy_(angles.sin())

    def forward(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Return cos, sin (length, D) of positions start … start + length − 1."""
        return self.cos[start : start + length], self.sin[start : start + length]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding to x (B, H, T, D); computed in float32."""
    first, second = x.chunk(2, dim=-1)
    rotated_half = torch.cat([-second, first], dim=-1)
    return (x * cos + rotated_half * sin).to(x.dtype)


class HeadNorm(nn.RMSNorm):
    """RMSNorm in its input's precision, so that queries and keys keep the dtype of the values.

    Under CUDA autocast RMSNorm would return float32, which FlashAttention refuses next to
    half-precision values.
    """

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x.device):
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
        plan: AttentionPlan = CAUSAL,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Apply attention: x (B, T, hidden) → (B, T, hidden)."""
        B, T, _ = x.shape
        D = self.head_size
        q, k, v = self.project(x, rotary)
        if plan.document_lengths is not None:
            return self.o_proj(per_document_attention(q, k, v, plan.document_lengths).flatten(2))
        if plan.cu_seqlens is not None:
            out = varlen_attention(q, k, v, plan.cu_seqlens, plan.kernel_options)
            return self.o_proj(out.flatten(2))
        mask = plan.block_causal_mask
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        past = k.shape[2] - T
        if past and T > 1:  # several tokens after a cached prefix: causal, shifted by its length
            mask = torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past)
        # on a GPU only FlashAttention supports grouped queries: no mask, half precision
        supports_gqa = x.device.type == "cpu" or (mask is None and q.dtype != torch.float32)
        if not supports_gqa:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=True
        )
        return self.o_proj(out.transpose(1, 2).reshape(B, T, self.heads * D))

    def project(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), keys and values (B, KV, T, D) of x (B, T, hidden)."""
        B, T, _ = x.shape
        D = self.head_size
        q = self.q_norm(self.q_proj(x).view(B, T, self.heads, D)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(B, T, self.kv_heads, D)).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.kv_heads, D).transpose(1, 2)
        return apply_rotary(q, *rotary), apply_rotary(k, *rotary), v
