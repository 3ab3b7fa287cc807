"""Writing and reading `config.json` of a Hugging Face model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch

from jielong.config.model import ModelConfig
from jielong.config.sampling import Sampling
from jielong.errors import CheckpointError, ConfigError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    # mixtures of experts without a class in transformers: it refuses this name, but would load
    # them under a similar name and compute something else
    "jielong_moe": "JielongMoeForCausalLM",
}


class SpecialTokens(Protocol):
    """The special tokens that a model config records."""

    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def pad_id(self) -> int | None: ...


def model_type_of(config: ModelConfig) -> str:
    """Return the `model_type` of an architecture.

    A mixture of experts is a `qwen3_moe` only if it has QK-norm, no shared experts, and no router
    bias. Qwen3-MoE has no such bias, and without it tokens would be routed differently than in
    training.
    """
    if not config.use_moe:
        return "qwen3" if config.qk_norm else "llama"
    plain = config.qk_norm and not config.num_shared_experts and config.router_aux_loss != "bias"
    return "qwen3_moe" if plain else "jielong_moe"


def write_model_config(
    folder: Path, config: ModelConfig, tokenizer: SpecialTokens, dtype: torch.dtype | None = None
) -> None:
    """Write config.json and generation_config.json for transformers.

    Args:
        dtype: precision of the weights in the folder; None means float32.
    """
    model_type = model_type_of(config)
    special = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    record: dict[str, Any] = {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,  # read by transformers before 5
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": str(dtype or torch.float32).removeprefix("torch."),
        **special,
    }
    if model_type == "llama":
        record["mlp_bias"] = False
    if config.use_moe:
        record |= _expert_record(config, model_type)
    (folder / "config.json").write_text(json.dumps(record, indent=1))
    sampling = Sampling()  # so that transformers samples as we do
    generation = {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        **special,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1))


def read_model_config(folder: Path) -> ModelConfig:
    """Read the architecture of a model folder.

    Raises:
        CheckpointError: config.json is missing or damaged, or has an unsupported value. The message
            names the field; ignoring it would give a similar model that silently writes wrong text.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        model_type = record["model_type"]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; {folder} is not a model folder") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: damaged, or has no model_type") from None
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: model_type {model_type!r} is not one of {', '.join(ARCHITECTURES)}"
        )
    _refuse_variants(path, record)
    rope = record.get("rope_parameters") or {}
    try:
        return ModelConfig(
            vocab_size=int(record["vocab_size"]),
            hidden_size=int(record["hidden_size"]),
            num_hidden_layers=int(record["num_hidden_layers"]),
            num_attention_heads=int(record["num_attention_heads"]),
            num_key_value_heads=int(
                record.get("num_key_value_heads") or record["num_attention_heads"]
            ),
            head_dim=record.get("head_dim"),
            intermediate_size=int(record["intermediate_size"]),
            max_position_embeddings=int(record["max_position_embeddings"]),
            rope_theta=float(rope.get("rope_theta") or record.get("rope_theta") or 10000.0),
            rms_norm_eps=float(record.get("rms_norm_eps", 1e-6)),
            qk_norm=record["qk_norm"] if model_type == "jielong_moe" else model_type != "llama",
            tie_word_embeddings=bool(record.get("tie_word_embeddings", False)),
            **(_expert_fields(record) if model_type.endswith("_moe") else {}),
        ).validated()
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _refuse_variants(path: Path, record: dict[str, Any]) -> None:
    rope = record.get("rope_parameters") or record.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{path}: rope_parameters or rope_scaling is no object: {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"{path}: rope_type {kind!r} is not supported, only 'default'")
    if record.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{path}: hidden_act {record['hidden_act']!r} is not supported")
    for flag in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if record.get(flag):
            raise CheckpointError(f"{path}: {flag} = true is not supported")
    if record.get("decoder_sparse_step", 1) != 1 or record.get("mlp_only_layers"):
        raise CheckpointError(
            f"{path}: dense layers between layers with experts (decoder_sparse_step, "
            "mlp_only_layers) are not supported"
        )


def _expert_record(config: ModelConfig, model_type: str) -> dict[str, Any]:
    """Return Qwen3-MoE's fields, and further ones that only jielong reads."""
    balances = config.router_aux_loss in ("batch", "sequence")
    record: dict[str, Any] = {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.expert_size,
        "norm_topk_prob": config.normalizes_topk,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "output_router_logits": False,
        "router_aux_loss_coef": config.aux_coef if balances else 0.0,
        "router_aux_loss": config.router_aux_loss,
        "router_z_loss_coef": config.router_z_loss_coef,
    }
    if model_type == "jielong_moe":
        record |= {"qk_norm": config.qk_norm, "num_shared_experts": config.num_shared_experts}
    if config.router_aux_loss == "bias":
        record["router_bias_rate"] = config.bias_rate
    return record


def _expert_fields(record: dict[str, Any]) -> dict[str, Any]:
    balancing = record.get("router_aux_loss", "batch")
    fields = {
        "use_moe": True,
        # transformers 5 also uses num_local_experts
        "num_experts": int(record.get("num_experts") or record["num_local_experts"]),
        "num_experts_per_tok": int(record["num_experts_per_tok"]),
        "num_shared_experts": int(record.get("num_shared_experts", 0)),
        "moe_intermediate_size": int(record["moe_intermediate_size"]),
        "norm_topk_prob": bool(record.get("norm_topk_prob", False)),
        "router_aux_loss": balancing,
        "router_z_loss_coef": float(record.get("router_z_loss_coef", 0.0)),
    }
    if balancing in ("batch", "sequence"):
        fields["router_aux_loss_coef"] = float(record.get("router_aux_loss_coef", 0.001))
    if balancing == "bias":
        fields["router_bias_rate"] = float(record["router_bias_rate"])
    return fields
