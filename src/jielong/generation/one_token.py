"""A text continued on a CPU: one token a step, with the weights read in half precision.

A step for a single token takes as long as reading every weight once, so the model's matrices are
packed as 16-bit floats, which halves the bytes; activations and sums stay float32. What was saved
in half precision is read as it is; a float32 weight is rounded to 11 bits, a relative error of at
most 2^-12 (in a weight below 6e-5: an absolute one of 3e-8).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import RMSNorm

from jielong.model.attention import Attention, KVCache
from jielong.model.feedforward import FeedForward
from jielong.model.moe import MixtureOfExperts
from jielong.model.transformer import DecoderLayer, Transformer

LARGEST = 65504.0  # of a 16-bit float
SMALLEST = 2.0**-12  # below it a matrix's largest weight would be rounded more coarsely than said
TINY = 1e-38  # keeps a row of zeros without an epsilon finite
Layer = Callable[[Tensor], Tensor]  # (1, in) → (1, out)


class OneTokenStep:
    """The model as a function of one more token: what `Transformer` computes, in few calls.

    The matrices are copies: a model whose weights change needs a new one.

    Args:
        model: with float32 weights on a CPU; `one_token_step` looks whether that and all else fits.
    """

    def __init__(self, model: Transformer) -> None:
        decoder = model.model
        D = model.config.head_size
        self.embedding = decoder.embed_tokens.weight.detach()
        self.cos = decoder.rotary.cos
        half = torch.ones(D)
        half[: D // 2] = -1  # of the halves that change places, the one that becomes the first
        self.signed_sin = decoder.rotary.sin * half
        self.stand = model.config.num_key_value_heads  # heads without a position, the values
        self.turned = model.config.num_attention_heads + self.stand
        self.norm = _norm(decoder.norm)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch packs on one core
            lm_head = pool.submit(_packed, model.lm_head.weight)
            self.layers = list(pool.map(_Layer, decoder.layers))
            self.lm_head = lm_head.result()

    def __call__(self, token: int, cache: KVCache) -> Tensor:
        """Logits (1, V) of what follows `token`; its keys and values are added to `cache`."""
        position = cache.length
        cos = F.pad(self.cos[position].expand(self.turned, -1), (0, 0, 0, self.stand), value=1.0)
        sin = F.pad(self.signed_sin[position].expand(self.turned, -1), (0, 0, 0, self.stand))
        x = self.embedding[token, None]  # (1, H)
        for layer, held in zip(self.layers, cache.pairs[:, 0].flatten(1, 2), strict=True):
            x = layer(x, cos, sin, held, position)
        cache.length += 1
        return self.lm_head(self.norm(x))


def one_token_step(model: Transformer) -> OneTokenStep | None:
    """The model's step, packed anew only if its weights changed.

    None where it is not to be had: weights that are not float32 on a CPU, that are out of a 16-bit
    float's range or not finite, or a torch without packed products (it has them on x86 with AVX2).
    """
    on_cpu = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in model.parameters())
    if not on_cpu or not _packs():
        return None
    checksum = model.checksum()
    if model not in _steps or _steps[model][0] != checksum:
        if not _in_range(model):
            return None
        _steps[model] = (checksum, OneTokenStep(model))
    return _steps[model][1]


_steps: weakref.WeakKeyDictionary[Transformer, tuple[int, OneTokenStep]]
_steps = weakref.WeakKeyDictionary()


@torch.no_grad()
def _in_range(model: Transformer) -> bool:
    """Whether half precision rounds each matrix as finely as said above."""
    matrices = [w for w in model.parameters() if w.ndim > 1]
    largest = torch.stack([torch.stack(w.aminmax()).abs().amax() for w in matrices])
    return bool(((largest < LARGEST) & ((largest >= SMALLEST) | (largest == 0))).all())


class _Layer:
    """One decoder layer: queries, keys and values are one product, and so are gate and up."""

    def __init__(self, layer: DecoderLayer) -> None:
        attention: Attention = layer.self_attn
        self.kv_heads, self.head_size = attention.kv_heads, attention.head_size
        self.attention_norm = _norm(layer.input_layernorm)
        self.qkv = _packed(
            attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
        )
        self.qk_norm: Tensor | None = None
        q_norm, k_norm = attention.q_norm, attention.k_norm
        if isinstance(q_norm, RMSNorm) and isinstance(k_norm, RMSNorm):
            q = q_norm.weight.detach().expand(attention.heads, -1)
            k = k_norm.weight.detach().expand(attention.kv_heads, -1)
            self.qk_norm, self.qk_eps = torch.cat([q, k]), q_norm.eps  # (heads + KV, D)
        self.o_proj = _packed(attention.o_proj.weight)
        self.mlp_norm = _norm(layer.post_attention_layernorm)
        self.mlp = (
            _mixture(layer.mlp)
            if isinstance(layer.mlp, MixtureOfExperts)
            else _feed_forward(layer.mlp)
        )

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, held: Tensor, position: int) -> Tensor:
        """One layer.

        Args:
            x: (1, H).
            cos, sin: (heads + 2 KV, D), of queries, keys and values, which are turned by nothing.
            held: (2 KV, max_len, D), keys and values, to be filled at `position`.

        Returns:
            (1, H).
        """
        D, KV = self.head_size, self.kv_heads
        heads = self.qkv(self.attention_norm(x)).view(-1, D)  # (heads + 2 KV, D)
        if self.qk_norm is not None:
            heads[:-KV] = F.rms_norm(heads[:-KV], (D,), None, self.qk_eps) * self.qk_norm
        heads = torch.addcmul(heads * cos, heads.roll(D // 2, -1), sin)
        held[:, position] = heads[-2 * KV :]
        keys, values = held[None, :, : position + 1].split(KV, 1)
        out = F.scaled_dot_product_attention(  # the queries that share a key head are its rows
            heads[: -2 * KV].view(1, KV, -1, D), keys, values
        )
        x = x + self.o_proj(out.view(1, -1))
        return x + self.mlp(self.mlp_norm(x))


def _norm(norm: RMSNorm) -> Layer:
    """RMSNorm of one row by its root in Python: torch's takes twice as long on a CPU."""
    weight, width = norm.weight.detach().clone(), len(norm.weight)
    eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps

    def forward(x: Tensor) -> Tensor:
        row = x.view(-1)
        return (x * weight).mul_(max(torch.dot(row, row).item() / width + eps, TINY) ** -0.5)

    return forward


def _feed_forward(mlp: FeedForward) -> Layer:
    return _swiglu(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)


def _swiglu(gate: Tensor, up: Tensor, down: Tensor) -> Layer:
    width = len(gate)
    both, last = _packed(gate, up), _packed(down)

    def forward(x: Tensor) -> Tensor:
        inner = both(x)
        return last(F.silu(inner[:, :width]).mul_(inner[:, width:]))

    return forward


def _mixture(moe: MixtureOfExperts) -> Layer:
    router, stacks = moe.gate, moe.experts
    experts = [
        _swiglu(*matrices)
        for matrices in zip(stacks.gate_proj, stacks.up_proj, stacks.down_proj, strict=True)
    ]
    shared = [_feed_forward(mlp) for mlp in moe.shared_experts if isinstance(mlp, FeedForward)]

    def forward(x: Tensor) -> Tensor:
        routing = router(x[None])
        weights, chosen = routing.weights.flatten().tolist(), routing.experts.flatten().tolist()
        parts = [experts[e](x).mul_(w) for e, w in zip(chosen, weights, strict=True)]
        parts += [expert(x) for expert in shared]
        return functools.reduce(torch.add, parts)

    return forward


def _packed(*matrices: Tensor) -> Layer:
    """The product with matrices (out, in) that stand below one another."""
    matrix = torch.cat([m.detach() for m in matrices])
    pack = torch.ops.quantized.linear_prepack_fp16(matrix, None)
    product = torch.ops.quantized.linear_dynamic_fp16
    return lambda x: product(x, pack)


@functools.cache
def _packs() -> bool:
    """Whether torch can multiply with packed half-precision weights here: an x86 with AVX2."""
    try:
        return bool(_packed(torch.ones(1, 1))(torch.ones(1, 1)) == 1)
    except (AttributeError, RuntimeError):
        return False
