"""Parameters and arithmetic of a model, part by part.

Counted are the products of matrices: one multiply-add is 2 FLOPs. Norms, activations, the rotary
embedding and the softmax are left out, as in Kaplan et al. 2020 (arXiv:2001.08361) and Hoffmann et
al. 2022: together they are some percent. A forward and a backward pass take 3 times a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jielong.config.model import ModelConfig

TRAINING = 3  # forward passes that a forward and a backward pass take


@dataclass(frozen=True)
class Part:
    """A part of a model; a layer's stands for that of all layers.

    Attributes:
        name: of its weight, of layer N; or what is computed without weights.
        shape: of the weight (output, input); empty if there is none.
        copies: how many there are: layers, or layers times experts.
        parameters: of all copies; 0 if it shares another part's.
        flops: of a forward pass of one token, of all copies that it passes.
    """

    name: str
    kind: str  # embedding, attention, feed-forward, norms or head
    shape: tuple[int, ...]
    copies: int
    parameters: int
    flops: float


def parts_of(c: ModelConfig, window: int, document: float | None = None) -> list[Part]:
    """Return the parts of a model in the order in which a token passes them.

    Args:
        window: tokens of a window.
        document: mean tokens of a document if attention stays within it; a token attends to itself
            and to those before, on average to half of the document.
    """
    H, L, V = c.hidden_size, c.num_hidden_layers, c.vocab_size
    parts = [Part("embed_tokens", "embedding", (V, H), 1, V * H, 0.0)]
    parts.append(_norm("input_layernorm", H, L))
    parts += _attention_parts(c, min(float(window), document or float(window)))
    parts.append(_norm("post_attention_layernorm", H, L))
    parts += _feed_forward_parts(c)
    parts.append(Part("norm", "norms", (H,), 1, H, 0.0))
    own = 0 if c.tie_word_embeddings else V * H
    parts.append(Part("lm_head", "head", (V, H), 1, own, 2.0 * V * H))
    return parts


def _norm(name: str, width: int, layers: int) -> Part:
    return Part(f"N.{name}", "norms", (width,), layers, width * layers, 0.0)


def _matrix(
    name: str, kind: str, shape: tuple[int, int], copies: int, passed: int | None = None
) -> Part:
    """A matrix of which there are `copies`; a token passes as many, or fewer."""
    size = shape[0] * shape[1]
    flops = 2.0 * size * (copies if passed is None else passed)
    return Part(f"N.{name}", kind, shape, copies, size * copies, flops)


def _attention_parts(c: ModelConfig, attended: float) -> Iterator[Part]:
    H, L, D = c.hidden_size, c.num_hidden_layers, c.head_size
    heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
    for name, out in (("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)):
        yield _matrix(f"self_attn.{name}", "attention", (out * D, H), L)
    if c.qk_norm:
        yield _norm("self_attn.q_norm", D, L)
        yield _norm("self_attn.k_norm", D, L)
    keys = (attended + 1) / 2  # of a token, on average: itself and those before it
    flops = 2 * 2.0 * keys * heads * D * L  # queries times keys, and weights times values
    yield Part("softmax(q·kᵀ)·v", "attention", (), L, 0, flops)
    yield _matrix("self_attn.o_proj", "attention", (H, heads * D), L)


def _feed_forward_parts(c: ModelConfig) -> Iterator[Part]:
    H, L, kind = c.hidden_size, c.num_hidden_layers, "feed-forward"
    shapes = (("gate_proj", False), ("up_proj", False), ("down_proj", True))
    width = c.expert_size if c.use_moe else c.mlp_size
    if not c.use_moe:
        for name, down in shapes:
            yield _matrix(f"mlp.{name}", kind, (H, width) if down else (width, H), L)
        return
    yield _matrix("mlp.gate", kind, (c.num_experts, H), L)
    for name, down in shapes:
        shape = (H, width) if down else (width, H)
        chosen = L * c.num_experts_per_tok
        yield _matrix(f"mlp.experts.E.{name}", kind, shape, L * c.num_experts, chosen)
        if c.num_shared_experts:
            shared = L * c.num_shared_experts
            yield _matrix(f"mlp.shared_experts.E.{name}", kind, shape, shared)


def forward_flops(parts: list[Part]) -> float:
    """Return the FLOPs of a forward pass of one token."""
    return sum(part.flops for part in parts)


def training_flops(parts: list[Part]) -> float:
    """Return the FLOPs of a forward and a backward pass of one token."""
    return TRAINING * forward_flops(parts)
