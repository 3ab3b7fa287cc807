"""MiniMind's checkpoints of before May 2025: other names, and rotary pairs that are adjacent.

Its class `MiniMindLM` followed Meta's Llama: dimensions 2i and 2i + 1 of a head rotate together.
Since then, as in Hugging Face's models, i rotates with i + head_dim / 2.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from jielong.errors import CheckpointError

EMBEDDING = "tok_embeddings.weight"  # by which such a checkpoint is known
FAMILY = "MiniMind2 (before May 2025)"
HEADS = 8  # unless its config says otherwise
BUFFERS = re.compile(r"(.*\.)?(mask|pos_cis|freqs_cis)")  # some versions stored them too
NAMES = {  # its names → those since May 2025; a layer's are without `layers.N.`
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate",
}
PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
LAYER = re.compile(r"layers\.(\d+)\.(.+)\.weight")
FEED_FORWARD = re.compile(r"feed_forward\.(?:(experts\.\d+|shared_experts(?:\.\d+)?)\.)?(w[123])")
SETTINGS = {  # names of its config → ours
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "max_seq_len": "max_position_embeddings",
}


def is_early(state: dict[str, Tensor]) -> bool:
    """Return whether the weights are of a MiniMind of before May 2025."""
    return EMBEDDING in state


def as_minimind2(state: dict[str, Tensor], given: dict[str, Any], where: str) -> dict[str, Tensor]:
    """Return the weights under the names, and in the layout, of MiniMind2 since May 2025.

    Args:
        given: settings by our names; `num_attention_heads` decides which rows rotate together.

    Raises:
        CheckpointError: a weight has no such name, or does not consist of whole heads.
    """
    heads = given.get("num_attention_heads", HEADS)
    head_dim = max(1, state[EMBEDDING].shape[-1] // heads)
    renamed = {}
    for name, value in state.items():
        new = _new_name(name, where)
        if new.endswith(("q_proj.weight", "k_proj.weight")):
            value = _as_halves(value, head_dim, name, where)
        renamed[new] = value
    return renamed


def _new_name(name: str, where: str) -> str:
    layer = LAYER.fullmatch(name)
    stem = layer[2] if layer else name.removesuffix(".weight")
    if match := FEED_FORWARD.fullmatch(stem):
        part = "shared_experts.0" if match[1] == "shared_experts" else match[1]
        new = f"mlp.{part + '.' if part else ''}{PROJECTIONS[match[2]]}"
    elif stem in NAMES:
        new = NAMES[stem]
    else:
        raise CheckpointError(f"{where}: weight {name} is unexpected in a {FAMILY}")
    return f"model.layers.{layer[1]}.{new}.weight" if layer else f"{new}.weight"


def _as_halves(weight: Tensor, head_dim: int, name: str, where: str) -> Tensor:
    """Reorder the rows of q or k: of each head first the even ones, then the odd ones."""
    if weight.ndim != 2 or head_dim % 2 or weight.shape[0] % head_dim:
        raise CheckpointError(
            f"{where}: weight {name} of shape {tuple(weight.shape)} does not consist of heads of "
            f"{head_dim}; give the right n_heads by --config FILE.json"
        )
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))  # (heads, pairs, 2, columns)
    return pairs.transpose(1, 2).reshape(weight.shape)
