"""A text continued on a CPU: one token a step, with the weights read in half precision.

A step for a single token takes as long as reading every weight once, so the model's matrices are
packed as 16-bit floats, which halves the bytes; activations and sums stay float32. What was saved
in half precision is read as it is; a float32 weight is rounded to 11 bits, a relative error of at
most 2^-12 (in a weight below 6e-5: an absolute one of 3e-8).

Most of what is left is time spent in Python between the products, so a step makes few calls.
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

LARGEST = 65504.0  # of a 16-bit float
SMALLEST = 2.0**-12  # below it a matrix's largest weight would be rounded more coarsely than said
# Logits may differ from the model's by this share of their standard deviation. Rounding the weights
# makes it 6e-4 for random weights; a wrong product makes it about 1.
TOLERANCE = 0.05
TRIED_TOKENS = 3

PackedMatrix = Any  # torch's own object
MLP = Callable[[Tensor], Tensor]


def fp16_decoder(model: Transformer) -> Fp16Decoder | None:
    """A packed copy of the model.

    Returns:
        None where it cannot stand for the model: weights that are not float32 on a CPU, that are
        out of a 16-bit float's range or not finite; a torch without packed products (it has them on
        x86 with AVX2), or one whose products are wrong.
    """
    on_cpu = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in model.parameters())
    if not on_cpu or not packs() or not _in_range(model):
        return None
    decoder = Fp16Decoder(model)
    return decoder if _agrees(decoder, model) else None


class Fp16Decoder:
    """The model as a function of one more token: what `Transformer` computes, in few calls.

    All but the embedding are copies: a model whose weights change needs a new one. It holds nothing
    of a text, so several texts may be continued with one.

    Args:
        model: with float32 weights on a CPU; `fp16_decoder` looks whether that and all else fits.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer) -> None:
        config, rotary = model.config, model.model.rotary
        self.head_size, self.kv_heads = config.head_size, config.num_key_value_heads
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        self.embedding = model.model.embed_tokens.weight.detach()
        self.cos = rotary.cos
        sign = torch.ones(self.head_size)
        sign[: self.head_size // 2] = -1  # rotate_half negates the half that moves to the front
        self.signed_sin = rotary.sin * sign
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch packs on one core
            lm_head = pool.submit(_pack, model.lm_head.weight)
            self.layers = list(pool.map(_packed_layer, model.model.layers))
            self.lm_head = lm_head.result()
        self.norm = model.model.norm.weight.detach().clone()

    @torch.no_grad()
    def __call__(self, token: int, cache: KVCache) -> Tensor:
        """Logits (1, V) of what follows `token`; its keys and values are added to `cache`."""
        # no subclass of Tensor is here, and looking for one at each product takes 20 µs
        with torch._C.DisableTorchFunctionSubclass():
            return self._step(token, cache)

    def _step(self, token: int, cache: KVCache) -> Tensor:
        D, KV, H, eps = self.head_size, self.kv_heads, self.heads, self.eps
        product, addcmul = torch.ops.quantized.linear_dynamic_fp16.default, torch.addcmul
        sizes, grouped, half = [H + KV, KV], (1, KV, -1, D), D // 2
        position = cache.length
        cache.length = position + 1
        # value heads get cos = 1 and sin = 0: no rotation
        cos = F.pad(self.cos[position].expand(H + KV, D), (0, 0, 0, KV), value=1.0)
        sin = F.pad(self.signed_sin[position].expand(H + KV, D), (0, 0, 0, KV))
        cached = cache.pairs[:, 0, :, None, :, : position + 1]  # (layers, 2, 1, KV, n, D)
        new = cache.pairs[:, 0, :, :, position]  # (layers, 2, KV, D)
        x = self.embedding[token, None]  # (1, hidden)
        layers = zip(self.layers, cached.unbind(), new.unbind(), strict=True)
        for (input_norm, qkv, qk_norm, o_proj, mlp_norm, mlp), cached_kv, new_kv in layers:
            heads = product(_rms_norm(x, input_norm, eps), qkv).view(-1, D)  # (H + 2 KV, D)
            if qk_norm is not None:
                qk, v = heads.split(sizes)
                heads = torch.cat([torch.rms_norm(qk, [D], None, eps) * qk_norm, v])
            heads = addcmul(heads * cos, heads.roll(half, -1), sin)
            new_kv.copy_(heads[H:].view(2, KV, D))
            keys, values = cached_kv.unbind()  # each (1, KV, n, D)
            # the queries that share a key head are its rows
            out = F.scaled_dot_product_attention(heads[:H].view(grouped), keys, values)
            x = x + product(out.view(1, -1), o_proj)
            x = x + mlp(_rms_norm(x, mlp_norm, eps))
        logits: Tensor = product(_rms_norm(x, self.norm, eps), self.lm_head)
        return logits


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of a single row x (1, hidden), in half the time of torch's."""
    row = x[0]
    mean_square = float(torch.dot(row, row)) / len(row)
    return (x * weight).mul_((mean_square + eps) ** -0.5)


class _Layer(NamedTuple):
    """One decoder layer: norms (hidden,), `qk_norm` (heads + kv heads, D) or none, and products."""

    input_norm: Tensor
    qkv: PackedMatrix
    qk_norm: Tensor | None
    o_proj: PackedMatrix
    mlp_norm: Tensor
    mlp: MLP


def _packed_layer(layer: DecoderLayer) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qk_norm = None
    if isinstance(attention.q_norm, nn.RMSNorm) and isinstance(attention.k_norm, nn.RMSNorm):
        q, k = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        qk_norm = torch.cat([q.expand(attention.heads, -1), k.expand(attention.kv_heads, -1)])
    return _Layer(
        layer.input_layernorm.weight.detach().clone(),
        _pack(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
        qk_norm,
        _pack(attention.o_proj.weight),
        layer.post_attention_layernorm.weight.detach().clone(),
        _mixture(mlp) if isinstance(mlp, MixtureOfExperts) else _feedforward(mlp),
    )


def _swiglu(gate: Tensor, up: Tensor, down: Tensor) -> MLP:
    product = torch.ops.quantized.linear_dynamic_fp16.default
    gate_up, packed_down = _pack(gate, up), _pack(down)

    def mlp(x: Tensor) -> Tensor:
        """x (1, hidden) → (1, hidden)."""
        g, u = product(x, gate_up).chunk(2, -1)
        out: Tensor = product(F.silu(g).mul_(u), packed_down)
        return out

    return mlp


def _feedforward(mlp: nn.Module) -> MLP:
    assert isinstance(mlp, FeedForward)
    return _swiglu(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)


def _mixture(moe: MixtureOfExperts) -> MLP:
    """The experts that the router chooses, and the shared ones."""
    stacks, router = moe.experts, copy.deepcopy(moe.gate)
    matrices = zip(stacks.gate_proj, stacks.up_proj, stacks.down_proj, strict=True)
    experts = [_swiglu(*expert) for expert in matrices]
    shared = [_feedforward(expert) for expert in moe.shared_experts]

    def mlp(x: Tensor) -> Tensor:
        """x (1, hidden) → (1, hidden)."""
        routing = router(x[None])
        weights, chosen = routing.weights.flatten().tolist(), routing.experts.flatten().tolist()
        outputs = [experts[e](x).mul_(w) for e, w in zip(chosen, weights, strict=True)]
        outputs += [expert(x) for expert in shared]
        return functools.reduce(torch.add, outputs)

    return mlp


def _pack(*matrices: Tensor) -> PackedMatrix:
    """Matrices (out, in) below one another, as 16-bit floats in the order they are read."""
    matrix = torch.cat([m.detach() for m in matrices])
    return torch.ops.quantized.linear_prepack_fp16(matrix, None)


@functools.cache
def packs() -> bool:
    """Whether torch can multiply with packed half-precision weights here: an x86 with AVX2."""
    try:
        one = torch.ones(1, 1)
        return bool(torch.ops.quantized.linear_dynamic_fp16(one, _pack(one)) == 1)
    except (AttributeError, RuntimeError):
        return False


@torch.no_grad()
def _in_range(model: Transformer) -> bool:
    """Whether half precision rounds each matrix, and each of a stack, as finely as said above."""
    matrices = [w for w in model.parameters() if w.ndim > 1]
    norms = [torch.linalg.vector_norm(w, torch.inf, (-2, -1)) for w in matrices]
    largest = torch.cat([norm.flatten() for norm in norms])
    return bool(((largest < LARGEST) & ((largest >= SMALLEST) | (largest == 0))).all())


@torch.inference_mode()
def _agrees(decoder: Fp16Decoder, model: Transformer) -> bool:
    """Whether the copy gives the model's logits, but for rounding: run once on a few tokens.

    The packed products are operators that few use: a torch that gets them wrong must be noticed.
    """
    length = min(TRIED_TOKENS, model.model.rotary.cos.shape[0])
    tokens = torch.arange(1, length + 1) * 7919 % model.config.vocab_size
    ours, theirs = (KVCache(model.config, 1, length) for _ in range(2))
    got = torch.cat([decoder(int(token), ours) for token in tokens])
    hidden = model.hidden_states(tokens[None], cache=theirs)
    want = model.logits(hidden)[0].float()
    keys = (ours.pairs - theirs.pairs).norm() <= TOLERANCE * theirs.pairs.norm()
    return bool(keys & ((got - want).norm() <= TOLERANCE * (want - want.mean()).norm()))
