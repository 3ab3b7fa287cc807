"""Token-by-token decoding of several texts at once, each of a length of its own.

`Transformer` reads batches whose rows share their positions. Texts that begin and end at different
times do not, so their steps are computed here, from the same weights: those of the model, or the
half-precision copies of an `Fp16Decoder`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.generation.fp16_decoder import Fp16Decoder, PackedLayer
from jielong.model.attention import KVCache
from jielong.model.moe import MixtureOfExperts
from jielong.model.transformer import DecoderLayer, Transformer


class CacheSlot(KVCache):
    """The part of a larger cache that holds one text.

    Args:
        pairs: (layers, 1, 2, kv heads, max_len, head size), a view that is written to.
        length: tokens of the text that are in it.
    """

    def __init__(self, pairs: Tensor, length: int) -> None:
        self.pairs = pairs
        self.keys, self.values = pairs.unbind(2)
        self.max_len = pairs.shape[4]
        self.length = length


class _Layer(Protocol):
    def heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values before the rotation: x (B, hidden) → (B, H + 2 KV, D)."""

    def output(self, attended: Tensor) -> Tensor:
        """The projection of what was attended to: (B, H · D) → (B, hidden)."""

    def mlp(self, x: Tensor) -> Tensor:
        """Norm and feed-forward: (B, hidden) → (B, hidden)."""


class BatchDecoder:
    """Computes the next logits of several texts in one pass.

    Args:
        model: in eval mode, on any device.
        packed: its half-precision copy, whose weights are then used instead.
    """

    def __init__(self, model: Transformer, packed: Fp16Decoder | None = None) -> None:
        config, rotary = model.config, model.model.rotary
        self.eps, self.head_size = config.rms_norm_eps, config.head_size
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.model, self.packed = model, packed
        self.cos, D = rotary.cos, self.head_size
        sign = torch.ones(D, device=rotary.sin.device)
        sign[: D // 2] = -1  # rotating negates the half that moves to the front
        self.signed_sin = rotary.sin * sign
        self.layers: list[_Layer] = (
            [_Exact(layer, D) for layer in model.model.layers]  # type: ignore[arg-type]
            if packed is None
            else [_Packed(layer, D, self.eps) for layer in packed.layers]
        )

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, lengths: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits (B, V), float32, after one more token of each text.

        Args:
            tokens: (B,) the last token of each text.
            lengths: (B,) the tokens of each text before it, which are in the cache.
            pairs: (layers, B, 2, kv heads, max_len, head size), the cache; the new keys and values
                are written to it.
        """
        D, KV, H = self.head_size, self.kv_heads, self.heads
        B, last = len(tokens), int(lengths.max()) + 1
        rows = torch.arange(B, device=tokens.device)
        cos, sin = self.cos[lengths, None], self.signed_sin[lengths, None]  # (B, 1, D)
        readable = torch.arange(last, device=tokens.device) <= lengths[:, None]  # (B, last)
        mask = torch.zeros(B, last, device=tokens.device, dtype=cos.dtype)
        mask = mask.masked_fill_(~readable, -torch.inf)[:, None, None]
        x = self.model.model.embed_tokens(tokens)  # (B, hidden)
        for layer, cache in zip(self.layers, pairs.unbind(), strict=True):
            heads = layer.heads(x)  # (B, H + 2 KV, D)
            qk = heads[:, : H + KV]
            qk = torch.addcmul(qk * cos, qk.roll(D // 2, -1), sin)
            new = torch.stack([qk[:, H:], heads[:, H + KV :]], 1)  # (B, 2, KV, D)
            cache[rows, :, :, lengths] = new.to(cache.dtype)
            keys, values = cache[:, :, :, :last].unbind(1)  # each (B, KV, last, D)
            # queries that share a key head are stacked as rows
            queries = qk[:, :H].reshape(B, KV, -1, D).to(cache.dtype)
            out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
            x = x + layer.output(out.reshape(B, H * D))
            x = x + layer.mlp(x)
        if self.packed is None:
            return self.model.logits(self.model.model.norm(x)).float()
        normed = F.rms_norm(x, (x.shape[-1],), self.packed.norm, self.eps)
        return _product(normed, self.packed.lm_head)


class _Exact:
    """A layer of the model."""

    def __init__(self, layer: DecoderLayer, head_size: int) -> None:
        self.layer, self.head_size = layer, head_size

    def heads(self, x: Tensor) -> Tensor:
        attention, split = self.layer.self_attn, (len(x), -1, self.head_size)
        x = self.layer.input_layernorm(x)
        q = attention.q_norm(attention.q_proj(x).view(split))
        k = attention.k_norm(attention.k_proj(x).view(split))
        return torch.cat([q, k, attention.v_proj(x).view(split)], 1)

    def output(self, attended: Tensor) -> Tensor:
        projected: Tensor = self.layer.self_attn.o_proj(attended)
        return projected

    def mlp(self, x: Tensor) -> Tensor:
        x = self.layer.post_attention_layernorm(x)
        if isinstance(self.layer.mlp, MixtureOfExperts):
            return self.layer.mlp(x[:, None])[:, 0]
        out: Tensor = self.layer.mlp(x)
        return out


class _Packed:
    """A layer of an `Fp16Decoder`. A row of a product does not depend on the rows beside it."""

    def __init__(self, layer: PackedLayer, head_size: int, eps: float) -> None:
        self.layer, self.head_size, self.eps = layer, head_size, eps

    def heads(self, x: Tensor) -> Tensor:
        D, eps, qk_norm = self.head_size, self.eps, self.layer.qk_norm
        normed = F.rms_norm(x, (x.shape[-1],), self.layer.input_norm, eps)
        heads = _product(normed, self.layer.qkv).view(len(x), -1, D)
        if qk_norm is None:
            return heads
        qk, v = heads.split([len(qk_norm), heads.shape[1] - len(qk_norm)], 1)
        return torch.cat([torch.rms_norm(qk, [D], None, eps) * qk_norm, v], 1)

    def output(self, attended: Tensor) -> Tensor:
        return _product(attended, self.layer.o_proj)

    def mlp(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x, (x.shape[-1],), self.layer.mlp_norm, self.eps)
        if not self.layer.one_row:
            return self.layer.mlp(x)
        return torch.cat([self.layer.mlp(row) for row in x.split(1)])


def _product(x: Tensor, matrix: object) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():  # as in Fp16Decoder: 20 µs less
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16.default(x, matrix)
        return out
