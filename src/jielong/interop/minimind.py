"""Importing and exporting MiniMind's checkpoints (`pretrain_512.pth`)."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.checkpoint.weights import fill_weights
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, first_line
from jielong.interop.minimind_config import (
    ImportedArchitecture,
    read_architecture,
    read_config_file,
)
from jielong.interop.minimind_early import BUFFERS, FAMILY, as_minimind2, is_early
from jielong.interop.output import new_files, new_folder
from jielong.model.transformer import DEFAULT_CONTEXT, Transformer
from jielong.tokenization.tokenizer import Tokenizer

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # magic bytes of torch.save: since torch 1.6, and before
# where files that also contain optimizer and step, as for a resume, have the weights
STATE_KEYS = ("model", "model_state_dict", "state_dict")
WRAPPERS = ("_orig_mod.", "module.")  # name prefixes added by torch.compile and DDP


def import_minimind(
    file: str | Path,
    tokenizer: str | Path,
    out_dir: str | Path,
    config_file: str | Path | None = None,
) -> ImportedArchitecture:
    """Convert a MiniMind checkpoint to a model folder that jielong and transformers can open.

    Args:
        file: MiniMind2's or MiniMind-3's `.pth`, dense or mixture of experts, also of before May
            2025. A resume file from its `checkpoints/` works too; only the weights are used.
        tokenizer: a Hugging Face tokenizer folder, such as MiniMind's `model/`.
        out_dir: a new folder; it appears only once it is complete.
        config_file: MiniMind's config as JSON, for settings that the shapes do not determine.

    Returns:
        The architecture, and which settings were taken from the family's defaults.

    Raises:
        CheckpointError: the file is not such a checkpoint, or would run code when loaded; a weight
            is missing, unexpected or has the wrong shape; or the vocabulary sizes differ.
        ConfigError: the config is of another architecture, or contradicts the weights.
        DataError: the tokenizer cannot be loaded.
    """
    file, where = Path(file), str(file)
    given = read_config_file(Path(config_file)) if config_file is not None else {}
    state = load_state(file)
    if early := is_early(state):
        state = as_minimind2(state, given, where)
    imported = read_architecture(state, given, where, str(config_file))
    if early:
        imported = dataclasses.replace(imported, family=FAMILY)
    loaded = Tokenizer.load(tokenizer)
    if loaded.vocab_size != imported.config.vocab_size:
        raise CheckpointError(
            f"{where}: has a vocabulary of {imported.config.vocab_size} tokens, but the tokenizer "
            f"{tokenizer} has {loaded.vocab_size}: give the one it was trained with"
        )
    model = Transformer(imported.config)
    fill_weights(model, state, where)
    with new_folder(out_dir) as folder:
        write_model_folder(folder, model, loaded)
    return imported


def export_minimind(model: Transformer, tokenizer: Tokenizer, out_dir: str | Path) -> Path:
    """Write `pretrain_{hidden_size}[_moe].pth` in half precision, for MiniMind's code.

    The settings for `MiniMindConfig(**…)` are written beside it as `.json`, with the tokenizer.

    Returns:
        The path of the `.pth`.

    Raises:
        CheckpointError: MiniMind does not support the architecture, a weight does not fit in half
            precision, or a file exists already; nothing is written.
    """
    config = model.config
    if reason := unsupported_by_minimind(config):
        raise CheckpointError(f"MiniMind cannot represent this model: {reason}")
    state = {name: value.detach().cpu().half() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if not value.isfinite().all():
            raise CheckpointError(f"weight {name} does not fit in half precision (over 65504)")
    name = f"pretrain_{config.hidden_size}{'_moe' if config.use_moe else ''}"
    with new_files(out_dir) as folder:
        torch.save(state, folder / f"{name}.pth")
        record = json.dumps(minimind_settings(config, tokenizer), indent=1)
        (folder / f"{name}.json").write_text(record)
        tokenizer.save(folder)
    return Path(out_dir) / f"{name}.pth"


def load_state(file: Path) -> dict[str, Tensor]:
    """Load the weights of a `torch.save` file without running any code in it.

    Raises:
        CheckpointError: it is missing, damaged or of another format, or contains more than tensors.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    if start != ZIP and not start.startswith(PICKLE):
        raise CheckpointError(f"{file}: not a file of torch.save (a MiniMind .pth)")
    if start == ZIP:
        _check_sums(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file}: contains objects other than tensors, which could run code: refused"
        ) from None
    except Exception as error:  # torch raises many kinds on a damaged file
        first = first_line(error)
        raise CheckpointError(f"{file}: damaged, or not a MiniMind checkpoint: {first}") from None
    for key in STATE_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{file}: contains no dictionary of weights")
    state = _unwrapped(state)
    for name, value in state.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        if not isinstance(name, str) or not plain or not value.is_floating_point():
            raise CheckpointError(f"{file}: {name!r} is not a weight: not a MiniMind checkpoint")
    return state


def _unwrapped(state: dict[Any, Any]) -> dict[Any, Any]:
    """Strip the prefixes of wrappers, in whichever order, and leave out buffers."""
    while prefix := next(
        (p for p in WRAPPERS if all(str(name).startswith(p) for name in state)), None
    ):
        state = {str(name).removeprefix(prefix): value for name, value in state.items()}
    return {name: v for name, v in state.items() if not BUFFERS.fullmatch(str(name))}


def _check_sums(file: Path) -> None:
    """Compare the records of a zip file with their CRC-32, which torch.load does not check."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise CheckpointError(f"{file}: truncated or damaged; download it again") from None
    if damaged is not None:
        raise CheckpointError(f"{file}: damaged (in {damaged}); download it again")


def unsupported_by_minimind(config: ModelConfig) -> str | None:
    """Return why MiniMind's code does not support this architecture; None if it does."""
    if not config.tie_word_embeddings:
        return "its output head is tied to the embedding, but this model's is not"
    if config.use_moe and config.router_aux_loss == "bias":
        return "its router has no balancing bias (router_aux_loss = bias)"
    if config.qk_norm and config.num_shared_experts:
        return "MiniMind-3 (QK-norm) has no shared experts"
    if not config.qk_norm and config.head_size * config.num_attention_heads != config.hidden_size:
        return (
            "MiniMind2 (no QK-norm) requires a head size of hidden_size / heads, "
            f"not {config.head_size}"
        )
    return None


def minimind_settings(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the arguments of MiniMind's config class for this architecture."""
    settings: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "use_moe": config.use_moe,
        "vocab_size": config.vocab_size,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "intermediate_size": config.mlp_size,
        "max_position_embeddings": config.max_position_embeddings or DEFAULT_CONTEXT,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
    }
    if config.qk_norm:
        settings |= {"head_dim": config.head_size, "tie_word_embeddings": True}
    if not config.use_moe:
        return settings
    experts = {
        "num_experts_per_tok": config.num_experts_per_tok,
        "norm_topk_prob": config.normalizes_topk,
    }
    if config.qk_norm:
        names = {"num_experts": config.num_experts, "moe_intermediate_size": config.expert_size}
    else:
        names = {
            "n_routed_experts": config.num_experts,
            "n_shared_experts": config.num_shared_experts,
            "intermediate_size": config.expert_size,
        }
    return settings | experts | names
