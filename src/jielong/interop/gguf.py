"""Export to GGUF, the format of llama.cpp, Ollama and LM Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jielong.checkpoint.folder import model_type_of
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, ConfigError
from jielong.interop.gguf_tokenizer import Vocabulary, read_vocabulary
from jielong.interop.huggingface import unsupported_by_transformers
from jielong.interop.output import new_files
from jielong.model.transformer import DEFAULT_CONTEXT, Transformer
from jielong.tokenization.tokenizer import Tokenizer

DTYPES = ("f32", "f16", "q8_0")
Q8_BLOCK = 32  # values that share a scale in q8_0
TENSORS = {  # ours (Hugging Face's) → llama.cpp's
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj")


def export_gguf(
    model: Transformer,
    tokenizer: Tokenizer,
    out_dir: str | Path,
    dtype: str = "f16",
    name: str = "jielong",
) -> Path:
    """Write `{out_dir}/model-{dtype}.gguf`, with the tokenizer and its special tokens.

    Args:
        dtype: "f32", "f16" or "q8_0" (8 bits and a scale per 32 weights). Norms and routers stay
            float32. With q8_0, matrices whose row length is not a multiple of 32 are float16.
        name: the model name shown by llama.cpp.

    Raises:
        CheckpointError: llama.cpp would compute something else than this model, or tokenize text
            differently. The message says why, and nothing is written.
        ConfigError: the gguf library is missing, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    try:
        import gguf
    except ImportError:
        raise ConfigError("the gguf library is missing: pip install 'jielong[gguf]'") from None
    if reason := unsupported_by_llama_cpp(model.config):
        raise CheckpointError(f"GGUF cannot represent this model: {reason}")
    vocabulary = read_vocabulary(tokenizer, model.config.vocab_size)
    tensors = [(key, *_encoded(key, value, dtype)) for key, value in gguf_tensors(model)]
    with new_files(out_dir) as folder:
        file = f"model-{dtype}.gguf"
        writer = gguf.GGUFWriter(folder / file, architecture(model.config))
        writer.add_name(name)
        _add_settings(writer, model.config, dtype)
        _add_vocabulary(writer, vocabulary)
        for key, values, kind in tensors:
            writer.add_tensor(key, values, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(out_dir) / file


def architecture(config: ModelConfig) -> str:
    """Return llama.cpp's name of a supported architecture."""
    return model_type_of(config).replace("_", "")


def unsupported_by_llama_cpp(config: ModelConfig) -> str | None:
    """Return why llama.cpp cannot run this architecture; None if it can."""
    if reason := unsupported_by_transformers(config):
        return reason
    if config.use_moe and not config.normalizes_topk:
        return (
            "llama.cpp always normalises the weights of a token's experts, but this model was "
            f"trained without normalisation (norm_topk_prob = false, num_experts_per_tok = "
            f"{config.num_experts_per_tok})"
        )
    return None


def gguf_tensors(model: Transformer) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the float32 weights with llama.cpp's names and layout; experts are stacked."""
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    experts: dict[str, dict[int, np.ndarray]] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp uses the embedding if there is no output matrix
        array = value.detach().float().cpu().numpy()
        stem = name.removesuffix(".weight")
        if match := EXPERT.fullmatch(stem):
            layer, expert, part = match.groups()
            experts.setdefault(f"blk.{layer}.ffn_{part}_exps.weight", {})[int(expert)] = array
        elif match := LAYER.fullmatch(stem):
            part = TENSORS[match[2]]
            if not config.qk_norm and part in heads:
                array = _interleave_rotary_pairs(array, heads[part])
            yield f"blk.{match[1]}.{part}.weight", array
        else:
            yield f"{TENSORS[stem]}.weight", array
    for name, parts in experts.items():
        yield name, np.stack([parts[i] for i in range(len(parts))])  # (experts, rows, columns)


def _interleave_rotary_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of q or k so that dimensions that rotate together are adjacent.

    llama.cpp's architecture "llama" rotates adjacent dimensions, as in Meta's files. Hugging Face
    (and jielong) rotate dimension i with dimension i + head_dim / 2.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def _encoded(name: str, values: np.ndarray, dtype: str) -> tuple[np.ndarray, Any]:
    """Return the values to store and their GGML type."""
    from gguf import GGMLQuantizationType, quants

    if dtype == "f32" or values.ndim == 1 or "ffn_gate_inp" in name:
        return values, GGMLQuantizationType.F32
    if dtype == "q8_0" and values.shape[-1] % Q8_BLOCK == 0:
        return quants.quantize(values, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckpointError(f"weight {name} does not fit in half precision: use dtype f32")
    return half, GGMLQuantizationType.F16


def _add_settings(writer: Any, config: ModelConfig, dtype: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    kinds = {
        "f32": LlamaFileType.ALL_F32,
        "f16": LlamaFileType.MOSTLY_F16,
        "q8_0": LlamaFileType.MOSTLY_Q8_0,
    }
    writer.add_file_type(kinds[dtype])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings or DEFAULT_CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.mlp_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.use_moe:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.expert_size)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.eos_id)
    if vocabulary.pad_id is not None:
        writer.add_pad_token_id(vocabulary.pad_id)
    if vocabulary.bos_id is not None:
        writer.add_bos_token_id(vocabulary.bos_id)
    # documents begin with bos in training, so prompts must too
    writer.add_add_bos_token(vocabulary.bos_id is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.model == "llama")
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
