"""A text continued on a CPU: one token a step, with the weights read in half precision.

A step for a single token takes as long as reading every weight once, so the model's matrices are
packed as 16-bit floats, which halves the bytes; activations and sums stay float32. What was saved
in half precision is read as it is; a float32 weight is rounded to 11 bits, a relative error of at
most 2^-12 (in a weight below 6e-5: an absolute one of 3e-8).

Then most of what is left is time spent in Python between the products, so the step is recorded
once and replayed without it; of a mixture of experts, its parts.
"""

from __future__ import annotations

import copy
import functools
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.model.attention import KVCache
from jielong.model.feedforward import FeedForward
from jielong.model.moe import MixtureOfExperts
from jielong.model.transformer import DecoderLayer, Transformer

LARGEST = 65504.0  # of a 16-bit float
SMALLEST = 2.0**-12  # below it a matrix's largest weight would be rounded more coarsely than said


class OneTokenStep:
    """The model as a function of one more token: what `Transformer` computes, in few calls.

    All but the embedding are copies: a model whose weights change needs a new one.

    Args:
        model: with float32 weights on a CPU; `one_token_step` looks whether that and all else fits.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer) -> None:
        config, rotary = model.config, model.model.rotary
        D, KV = config.head_size, config.num_key_value_heads
        self.embedding = model.model.embed_tokens.weight.detach()
        self.cos = rotary.cos
        half = torch.ones(D)
        half[: D // 2] = -1  # of the halves that change places, the one that becomes the first
        self.signed_sin = rotary.sin * half
        self.turned, self.values = config.num_attention_heads + KV, KV  # values are not turned
        x, turn = torch.zeros(1, config.hidden_size), torch.zeros(self.turned + KV, D)
        held = torch.zeros(config.num_hidden_layers, 2, KV, 1, D)
        decoder = _Decoder(model)
        self.decoder: nn.Module = decoder
        if config.use_moe:  # which experts run is for the router to say each time
            decoder.record_parts(x, turn, held)
        else:
            self.decoder = _recorded(decoder, x, turn, turn, held)

    def __call__(self, token: int, cache: KVCache) -> Tensor:
        """Logits (1, V) of what follows `token`; its keys and values are added to `cache`."""
        stand = (0, 0, 0, self.values)
        cos = F.pad(self.cos[cache.length].expand(self.turned, -1), stand, value=1.0)
        sin = F.pad(self.signed_sin[cache.length].expand(self.turned, -1), stand)
        cache.length += 1
        held = cache.pairs[:, 0, :, :, : cache.length]
        logits: Tensor = self.decoder(self.embedding[token, None], cos, sin, held)
        return logits


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
    """Whether half precision rounds each matrix, and each of a stack, as finely as said above."""
    matrices = [w for w in model.parameters() if w.ndim > 1]
    norms = [torch.linalg.vector_norm(w, torch.inf, (-2, -1)) for w in matrices]
    largest = torch.cat([norm.flatten() for norm in norms])
    return bool(((largest < LARGEST) & ((largest >= SMALLEST) | (largest == 0))).all())


class _Decoder(nn.Module):
    """From a token's embedding to the logits of the next."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # torch packs on one core
            lm_head = pool.submit(_Product, model.lm_head.weight)
            self.layers = nn.ModuleList(pool.map(_Layer, model.model.layers))
            self.lm_head = lm_head.result()
        self.norm = _copied(model.model.norm)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, held: Tensor) -> Tensor:
        """All layers.

        Args:
            x: (1, H).
            cos, sin: (heads + 2 KV, D), of queries, keys and values, which are turned by nothing.
            held: (layers, 2, KV, n, D), keys and values; those of the token are filled in.

        Returns:
            (1, V).
        """
        for layer, pair in zip(self.layers, held.unbind(), strict=True):
            x = layer(x, cos, sin, pair)
        out: Tensor = self.lm_head(self.norm(x))
        return out

    def record_parts(self, x: Tensor, turn: Tensor, held: Tensor) -> None:
        """Records each layer's attention and each expert by itself."""
        for layer in self.layers:
            assert isinstance(layer, _Layer) and isinstance(layer.mlp, _Mixture)
            layer.attention = _recorded(layer.attention, x, turn, turn, held[0])
            layer.mlp.experts = nn.ModuleList(_recorded(e, x) for e in layer.mlp.experts)


class _Layer(nn.Module):
    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        mlp = layer.mlp
        self.attention: nn.Module = _Attention(layer)
        self.mlp = _Mixture(mlp) if isinstance(mlp, MixtureOfExperts) else _swiglu(mlp)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, held: Tensor) -> Tensor:
        x, hidden = self.attention(x, cos, sin, held)
        out: Tensor = x + self.mlp(hidden)
        return out


class _Attention(nn.Module):
    """The first half of a decoder layer and the norm of the second."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads, self.kv_heads = attention.heads, attention.kv_heads
        self.head_size = attention.head_size
        self.norm, self.mlp_norm = map(
            _copied, (layer.input_layernorm, layer.post_attention_layernorm)
        )
        self.q_norm, self.k_norm = map(_copied, (attention.q_norm, attention.k_norm))
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        self.qkv = _Product(*(part.weight for part in parts))
        self.o_proj = _Product(attention.o_proj.weight)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """x and what the feed-forward layer reads of it, each (1, H)."""
        D, KV = self.head_size, self.kv_heads
        heads = self.qkv(self.norm(x)).view(-1, D)  # (heads + 2 KV, D)
        q, k, v = heads.split([self.heads, KV, KV])
        heads = torch.cat([self.q_norm(q), self.k_norm(k), v])
        heads = torch.addcmul(heads * cos, heads.roll(D // 2, -1), sin)
        held[:, :, -1] = heads[-2 * KV :].view(2, KV, D)
        queries = heads[: -2 * KV].view(1, KV, -1, D)  # those that share a key head are its rows
        out = F.scaled_dot_product_attention(queries, held[None, 0], held[None, 1])
        x = x + self.o_proj(out.view(1, -1))
        return x, self.mlp_norm(x)


class _SwiGLU(nn.Module):
    def __init__(self, gate: Tensor, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.width = len(gate)
        self.gate_up, self.down = _Product(gate, up), _Product(down)

    def forward(self, x: Tensor) -> Tensor:
        """x (1, H) → (1, H)."""
        gate, up = self.gate_up(x).split(self.width, -1)
        out: Tensor = self.down(F.silu(gate).mul_(up))
        return out


class _Mixture(nn.Module):
    """Experts that the router chooses, followed by the shared ones."""

    def __init__(self, moe: MixtureOfExperts) -> None:
        super().__init__()
        stacks = moe.experts
        self.router = _copied(moe.gate)
        matrices = zip(stacks.gate_proj, stacks.up_proj, stacks.down_proj, strict=True)
        self.experts = nn.ModuleList(_SwiGLU(*parts) for parts in matrices)
        self.shared = range(len(self.experts), len(self.experts) + len(moe.shared_experts))
        self.experts.extend(map(_swiglu, moe.shared_experts))

    def forward(self, x: Tensor) -> Tensor:
        """x (1, H) → (1, H)."""
        routing = self.router(x[None])
        weights, chosen = routing.weights.flatten().tolist(), routing.experts.flatten().tolist()
        outputs = [self.experts[e](x).mul_(w) for e, w in zip(chosen, weights, strict=True)]
        outputs += [self.experts[e](x) for e in self.shared]
        return functools.reduce(torch.add, outputs)


def _swiglu(mlp: nn.Module) -> _SwiGLU:
    assert isinstance(mlp, FeedForward)
    return _SwiGLU(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)


class _Product(nn.Module):
    """The product with matrices (out, in) that stand below one another, packed."""

    def __init__(self, *matrices: Tensor) -> None:
        super().__init__()
        matrix = torch.cat([m.detach() for m in matrices])
        self.packed = torch.ops.quantized.linear_prepack_fp16(matrix, None)

    def forward(self, x: Tensor) -> Tensor:
        """x (1, in) → (1, out)."""
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return out


def _copied(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


def _recorded(part: nn.Module, *examples: Tensor) -> nn.Module:
    """The part, replayed without Python, where handing over one packed matrix takes 40 µs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            recorded: nn.Module = torch.jit.trace(part, examples, check_trace=False)
        except Exception:  # torch.jit is deprecated; where it fails or is gone, Python will do
            return part
    return recorded


@functools.cache
def _packs() -> bool:
    """Whether torch can multiply with packed half-precision weights here: an x86 with AVX2."""
    try:
        return bool(_Product(torch.ones(1, 1))(torch.ones(1, 1)) == 1)
    except (AttributeError, RuntimeError):
        return False
