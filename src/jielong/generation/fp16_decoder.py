"""Token-by-token decoding on a CPU, with the weights in half precision.

A decoding step for one token takes as long as reading every weight once. The matrices are therefore
packed as 16-bit floats, which halves the bytes; activations and sums stay float32. Weights that
were saved in float16 are unchanged; a float32 weight is rounded to 11 bits, with a relative error
of at most 2^-12 (below 6e-5, with an absolute error of at most 3e-8).

Most of the remaining time is spent in Python between the products, so a step makes few calls.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.model.attention import KVCache
from jielong.model.feedforward import FeedForward
from jielong.model.moe import MixtureOfExperts
from jielong.model.transformer import DecoderLayer, Transformer

FP16_MAX = 65504.0
# A matrix whose largest weight is smaller would be rounded more coarsely than stated above.
MIN_LARGEST_WEIGHT = 2.0**-12
# Allowed difference from the model's logits, relative to their standard deviation. Rounding gives
# 6e-4 at most, for random and for trained weights; a wrong product gives about 1.
TOLERANCE = 0.05
CHECK_TOKENS = 3

PackedMatrix = Any  # an opaque torch object
MLP = Callable[[Tensor], Tensor]


def fp16_decoder(model: Transformer) -> Fp16Decoder | None:
    """Pack a copy of the model.

    Returns:
        The packed copy, or None if it cannot replace the model: its weights are not float32 on a
        CPU, exceed the float16 range or are not finite; this torch has no packed products (it has
        them on x86 with AVX2), or computes them wrongly.
    """
    on_cpu = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in model.parameters())
    if not on_cpu or not fp16_products_available() or not _in_range(model):
        return None
    decoder = Fp16Decoder(model)
    return decoder if _logits_agree(decoder, model) else None


class Fp16Decoder:
    """Decodes one token per call, like `Transformer` but with few operations.

    All weights but the embedding are copied, so a model whose weights change needs a new decoder.
    It holds no state of a text, so one decoder can continue several texts.

    Args:
        model: has float32 weights on a CPU; `fp16_decoder` checks this and the other conditions.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer) -> None:
        config, rotary = model.config, model.model.rotary
        self.head_size, self.kv_heads = config.head_size, config.num_key_value_heads
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        self.embedding = model.model.embed_tokens.weight.detach()
        self.cos = rotary.cos
        sign = torch.ones(self.head_size)
        sign[: self.head_size // 2] = -1  # rotating negates the half that moves to the front
        self.signed_sin = rotary.sin * sign
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch packs on one core
            lm_head = pool.submit(_pack, model.lm_head.weight)
            self.layers = list(pool.map(_pack_layer, model.model.layers))
            self.lm_head = lm_head.result()
        self.norm = model.model.norm.weight.detach().clone()

    @torch.no_grad()
    def __call__(self, token: int, cache: KVCache) -> Tensor:
        """Return the logits (1, V) after `token`; append its keys and values to `cache`."""
        # there are no Tensor subclasses here, and checking for them takes 20 µs per product
        with torch._C.DisableTorchFunctionSubclass():
            return self._step(token, cache)

    def _step(self, token: int, cache: KVCache) -> Tensor:
        D, KV, H, eps = self.head_size, self.kv_heads, self.heads, self.eps
        product, addcmul = torch.ops.quantized.linear_dynamic_fp16.default, torch.addcmul
        sizes, query_shape, half = [H + KV, KV], (1, KV, -1, D), D // 2
        position = cache.length
        cache.length = position + 1
        # value heads get cos = 1 and sin = 0: no rotation
        cos = F.pad(self.cos[position].expand(H + KV, D), (0, 0, 0, KV), value=1.0)
        sin = F.pad(self.signed_sin[position].expand(H + KV, D), (0, 0, 0, KV))
        cached = cache.pairs[:, 0, :, None, :, : position + 1]  # (layers, 2, 1, KV, n, D)
        new = cache.pairs[:, 0, :, :, position]  # (layers, 2, KV, D)
        x = self.embedding[token, None]  # (1, hidden)
        layers = zip(self.layers, cached.unbind(), new.unbind(), strict=True)
        for (input_norm, qkv, qk_norm, o_proj, mlp_norm, mlp, _), cached_kv, new_kv in layers:
            heads = product(_rms_norm(x, input_norm, eps), qkv).view(-1, D)  # (H + 2 KV, D)
            if qk_norm is not None:
                qk, v = heads.split(sizes)
                heads = torch.cat([torch.rms_norm(qk, [D], None, eps) * qk_norm, v])
            heads = addcmul(heads * cos, heads.roll(half, -1), sin)
            new_kv.copy_(heads[H:].view(2, KV, D))
            keys, values = cached_kv.unbind()  # each (1, KV, n, D)
            # queries that share a key head are stacked as rows
            out = F.scaled_dot_product_attention(heads[:H].view(query_shape), keys, values)
            x = x + product(out.view(1, -1), o_proj)
            x = x + mlp(_rms_norm(x, mlp_norm, eps))
        logits: Tensor = product(_rms_norm(x, self.norm, eps), self.lm_head)
        return logits


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute RMSNorm of a single row x (1, hidden), in half the time of torch's."""
    row = x[0]
    mean_square = float(torch.dot(row, row)) / len(row)
    return (x * weight).div_((mean_square + eps) ** 0.5)


class PackedLayer(NamedTuple):
    """One decoder layer: norms (hidden,), `qk_norm` (heads + kv heads, D) or None, and matrices."""

    input_norm: Tensor
    qkv: PackedMatrix
    qk_norm: Tensor | None
    o_proj: PackedMatrix
    mlp_norm: Tensor
    mlp: MLP
    one_row: bool  # whether `mlp` takes a single row only


def _pack_layer(layer: DecoderLayer) -> PackedLayer:
    attention, mlp = layer.self_attn, layer.mlp
    qk_norm = None
    if isinstance(attention.q_norm, nn.RMSNorm) and isinstance(attention.k_norm, nn.RMSNorm):
        q, k = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        qk_norm = torch.cat([q.expand(attention.heads, -1), k.expand(attention.kv_heads, -1)])
    return PackedLayer(
        layer.input_layernorm.weight.detach().clone(),
        _pack(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
        qk_norm,
        _pack(attention.o_proj.weight),
        layer.post_attention_layernorm.weight.detach().clone(),
        _mixture(mlp) if isinstance(mlp, MixtureOfExperts) else _feedforward(mlp),
        isinstance(mlp, MixtureOfExperts),
    )


def _swiglu(gate: Tensor, up: Tensor, down: Tensor) -> MLP:
    product = torch.ops.quantized.linear_dynamic_fp16.default
    gate_up, packed_down = _pack(gate, up), _pack(down)

    def mlp(x: Tensor) -> Tensor:
        """Apply the layer: x (B, hidden) → (B, hidden)."""
        g, u = product(x, gate_up).chunk(2, -1)
        out: Tensor = product(F.silu(g).mul_(u), packed_down)
        return out

    return mlp


def _feedforward(mlp: nn.Module) -> MLP:
    assert isinstance(mlp, FeedForward)
    return _swiglu(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)


def _mixture(moe: MixtureOfExperts) -> MLP:
    """Run the experts that the router chooses, and the shared ones."""
    stacks, router = moe.experts, copy.deepcopy(moe.gate)
    matrices = zip(stacks.gate_proj, stacks.up_proj, stacks.down_proj, strict=True)
    experts = [_swiglu(*expert) for expert in matrices]
    shared = [_feedforward(expert) for expert in moe.shared_experts]

    def mlp(x: Tensor) -> Tensor:
        """Apply the layer: x (1, hidden) → (1, hidden)."""
        routing = router(x[None])
        weights, chosen = routing.weights.flatten().tolist(), routing.experts.flatten().tolist()
        outputs = [experts[e](x).mul_(w) for e, w in zip(chosen, weights, strict=True)]
        outputs += [expert(x) for expert in shared]
        return functools.reduce(torch.add, outputs)

    return mlp


def _pack(*matrices: Tensor) -> PackedMatrix:
    """Stack matrices (out, in) and pack them as float16, in the order in which they are read."""
    matrix = torch.cat([m.detach() for m in matrices])
    return torch.ops.quantized.linear_prepack_fp16(matrix, None)


@functools.cache
def fp16_products_available() -> bool:
    """Return whether torch has products with packed float16 weights here: on x86 with AVX2."""
    try:
        one = torch.ones(1, 1)
        with torch._C.DisableTorchFunctionSubclass():  # as in a step
            return bool(torch.ops.quantized.linear_dynamic_fp16(one, _pack(one)) == 1)
    except (AttributeError, RuntimeError):
        return False


@torch.no_grad()
def _in_range(model: Transformer) -> bool:
    """Return whether float16 rounds each matrix, stacked ones too, as finely as stated above."""
    matrices = [w for w in model.parameters() if w.ndim > 1]
    norms = [torch.linalg.vector_norm(w, torch.inf, (-2, -1)) for w in matrices]
    largest = torch.cat([norm.flatten() for norm in norms])
    return bool(((largest < FP16_MAX) & ((largest >= MIN_LARGEST_WEIGHT) | (largest == 0))).all())


@torch.inference_mode()
def _logits_agree(decoder: Fp16Decoder, model: Transformer) -> bool:
    """Compare the decoder's logits and KV cache with the model's, on a few tokens.

    The packed products are rarely used operators, so a torch that gets them wrong must be detected.
    """
    length = min(CHECK_TOKENS, model.model.rotary.cos.shape[0])
    tokens = torch.arange(1, length + 1) * 7919 % model.config.vocab_size
    cache, expected_cache = (KVCache(model.config, 1, length) for _ in range(2))
    logits = torch.cat([decoder(int(token), cache) for token in tokens])
    hidden = model.hidden_states(tokens[None], cache=expected_cache)
    expected = model.logits(hidden)[0].float()
    cache_error = (cache.pairs - expected_cache.pairs).norm()
    logits_error = (logits - expected).norm()
    return bool(
        (cache_error <= TOLERANCE * expected_cache.pairs.norm())
        & (logits_error <= TOLERANCE * (expected - expected.mean()).norm())
    )
