"""Reading the architecture of a MiniMind checkpoint from its weights and config file.

MiniMind2 (2025) is a Llama, MiniMind-3 (2026) a Qwen3; both use Hugging Face's weight names.
Settings that the shapes do not determine come from the config file, or from the family's defaults.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jielong.config.model import ModelConfig
from jielong.config.settings import FIELDS
from jielong.errors import CheckpointError, ConfigError
from jielong.interop.minimind_early import EMBEDDING, SETTINGS

LAYER = re.compile(r"model\.layers\.(\d+)\.")
DEFAULTS: dict[str, dict[str, Any]] = {
    "MiniMind2": {
        "num_attention_heads": 8,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32768,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "router_aux_loss_coef": 0.1,
    },
    "MiniMind-3": {
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "num_experts_per_tok": 1,
        "norm_topk_prob": True,
        "router_aux_loss_coef": 5e-4,
    },
}
OUR_NAMES = {  # MiniMind2's name → the name used by Qwen3-MoE and jielong
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "aux_loss_alpha": "router_aux_loss_coef",
    **SETTINGS,
}
MOE_FIELDS = {
    "num_experts",
    "num_shared_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "router_aux_loss_coef",
}


@dataclass(frozen=True)
class ImportedArchitecture:
    """The architecture of an imported model.

    Attributes:
        family: "MiniMind2" or "MiniMind-3".
        config: the architecture.
        assumed: settings taken from the family's defaults: neither weights nor config give them.
    """

    family: str
    config: ModelConfig
    assumed: dict[str, Any]


def read_config_file(path: Path) -> dict[str, Any]:
    """Read MiniMind's settings, by our names, from a JSON object or its key `config`.

    Raises:
        ConfigError: the file is missing, not JSON, or contains another architecture's settings.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if isinstance(record, dict) and isinstance(record.get("config"), dict):
        record = record["config"]
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: contains no JSON object of settings")
    model_type = record.get("model_type", "minimind")
    if model_type != "minimind":
        raise ConfigError(f"{path}: model_type {model_type!r}: not a MiniMind config")
    known = {"use_moe", *MOE_FIELDS, *(name for name, f in FIELDS.items() if f.section == "model")}
    values = {OUR_NAMES.get(name, name): value for name, value in record.items()}
    if not known & values.keys():
        raise ConfigError(f"{path}: contains no MiniMind setting (such as num_attention_heads)")
    refused = {
        "hidden_act": values.get("hidden_act", "silu") != "silu",
        "scoring_func": values.get("scoring_func", "softmax") != "softmax",
        "inference_rope_scaling": bool(values.get("inference_rope_scaling")),
        "rope_scaling": bool(values.get("rope_scaling")),
    }
    for name in (name for name, wrong in refused.items() if wrong):
        raise ConfigError(f"{path}: {name} = {values[name]!r} is not supported")
    given: dict[str, Any] = {}
    for name in (name for name in values if name in known and values[name] is not None):
        try:
            given[name] = FIELDS[name].parse(values[name])
            FIELDS[name].check(given[name])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return given


def read_architecture(
    state: dict[str, Tensor], given: dict[str, Any], where: str, config_where: str
) -> ImportedArchitecture:
    """Determine the architecture of the weights, and check it against the settings `given`.

    Raises:
        CheckpointError: the weights are not MiniMind's, or their shapes are inconsistent.
        ConfigError: a setting contradicts the weights.
    """
    shapes = _Shapes(state, where)
    vocab_size, hidden_size = shapes.of("model.embed_tokens.weight")
    layers = {int(match[1]) for name in state if (match := LAYER.match(name))}
    gaps = sorted(set(range(max(len(layers), 1))) - layers)
    if gaps:
        raise CheckpointError(f"{where}: the weights of layer {gaps[0]} are missing")
    first = "model.layers.0."
    family = "MiniMind-3" if f"{first}self_attn.q_norm.weight" in state else "MiniMind2"
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": len(layers),
        "qk_norm": family == "MiniMind-3",
        "tie_word_embeddings": _is_tied(state, shapes),
        **_feed_forward(state, shapes, family, given),
    }
    is_moe = bool(values.get("use_moe"))
    defaults = {
        name: value for name, value in DEFAULTS[family].items() if is_moe or name not in MOE_FIELDS
    }
    values |= _heads(shapes, family, hidden_size, given)
    for name, value in values.items():
        if name in given and given[name] != value and (is_moe or name not in MOE_FIELDS):
            raise ConfigError(
                f"{config_where}: {name}={given[name]!r}, but the weights say {value}"
            )
    if given.get("use_moe", is_moe) != is_moe:
        raise ConfigError(
            f"{config_where}: use_moe={given['use_moe']}, but the weights say {is_moe}"
        )
    assumed = {name: value for name, value in defaults.items() if name not in given}
    undetermined = {name: given.get(name, value) for name, value in defaults.items()}
    try:
        config = ModelConfig(**undetermined | values).validated()
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return ImportedArchitecture(family, config, assumed)


class _Shapes:
    """Shapes of weight matrices by name; raises if one is missing or not a matrix."""

    def __init__(self, state: dict[str, Tensor], where: str) -> None:
        self.state, self.where = state, where

    def of(self, name: str) -> tuple[int, int]:
        """Return (rows, columns)."""
        if name not in self.state:
            raise CheckpointError(
                f"{self.where}: weight {name} is missing: neither of MiniMind2 or 3, nor of a "
                f"MiniMind before May 2025 ({EMBEDDING}); the first weight is "
                f"{next(iter(self.state), 'none')}"
            )
        shape = self.state[name].shape
        if len(shape) != 2 or not self.state[name].numel():
            raise CheckpointError(f"{self.where}: weight {name} has shape {tuple(shape)}")
        return shape[0], shape[1]


def _is_tied(state: dict[str, Tensor], shapes: _Shapes) -> bool:
    shapes.of("lm_head.weight")
    return torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])


def _feed_forward(
    state: dict[str, Tensor], shapes: _Shapes, family: str, given: dict[str, Any]
) -> dict[str, Any]:
    mlp = "model.layers.0.mlp."
    if f"{mlp}gate.weight" not in state:
        return {"intermediate_size": shapes.of(f"{mlp}gate_proj.weight")[0]}
    width = shapes.of(f"{mlp}experts.0.gate_proj.weight")[0]
    values = {
        "use_moe": True,
        "num_experts": shapes.of(f"{mlp}gate.weight")[0],
        "moe_intermediate_size": width,
    }
    if family == "MiniMind-3":
        dense_width = given.get("intermediate_size", width)  # used by no layer, but in the config
        return values | {"intermediate_size": dense_width, "router_aux_loss": "batch"}
    shared = re.compile(re.escape(mlp) + r"shared_experts\.(\d+)\.gate_proj\.weight")
    return values | {
        "intermediate_size": width,  # MiniMind2 has one width for all
        "num_shared_experts": sum(1 for name in state if shared.fullmatch(name)),
        "router_aux_loss": "sequence",
    }


def _heads(shapes: _Shapes, family: str, hidden_size: int, given: dict[str, Any]) -> dict[str, int]:
    attention = "model.layers.0.self_attn."
    q_rows = shapes.of(f"{attention}q_proj.weight")[0]
    kv_rows = shapes.of(f"{attention}k_proj.weight")[0]
    if family == "MiniMind-3":
        head_dim = shapes.state[f"{attention}q_norm.weight"].numel()
    else:
        head_dim = hidden_size // given.get("num_attention_heads", 8) or 1
    if q_rows % head_dim or kv_rows % head_dim:
        raise CheckpointError(
            f"{shapes.where}: {q_rows} query and {kv_rows} key rows are not whole heads of "
            f"{head_dim}; give the right num_attention_heads by --config"
        )
    if family == "MiniMind2" and "num_attention_heads" not in given and kv_rows // head_dim != 2:
        # another number of heads fits the same shapes, but would silently give wrong text
        raise CheckpointError(
            f"{shapes.where}: the shapes are not those of MiniMind2's 8 heads and 2 key-value "
            "heads; give num_attention_heads by --config FILE.json"
        )
    return {
        "num_attention_heads": q_rows // head_dim,
        "num_key_value_heads": kv_rows // head_dim,
        "head_dim": head_dim,
    }
