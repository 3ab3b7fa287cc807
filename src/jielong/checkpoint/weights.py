"""Saving weights to safetensors files, and loading them into a model with strict checks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError
from jielong.model.attention import Rotary
from jielong.model.moe import expert_names, split_stacks
from jielong.model.transformer import Transformer, context_length
from jielong.runtime.parts import Readable, first_row, gathered, has_shards, local, part_of

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; by default with the metadata that transformers expects.

    Of several entries of metadata safetensors would write now one, now another first.
    """
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        path.touch()  # as the umask says: to read that would change it for all threads
        mode = path.stat().st_mode
        save_file(contiguous, path, metadata=dict(metadata or {"format": "pt"}))
        path.chmod(mode)  # safetensors makes it readable by its owner only
    except Exception as error:  # safetensors wraps OS errors in its own type
        raise OSError(f"{path.name}: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load all tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from None


def load_folder_tensors(folder: Path) -> dict[str, Tensor]:
    """Load all weights of a Hugging Face model folder, from one file or indexed shards.

    Raises:
        CheckpointError: a file or weight is missing, unexpected, damaged, outside the folder or
            quantized.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        tensors = load_tensors(folder / "model.safetensors")
    else:
        tensors = _load_shards(folder, index)
    for name, value in tensors.items():
        if value.dtype not in WEIGHT_DTYPES:
            raise CheckpointError(f"{folder}: weight {name} is {value.dtype}: quantized or damaged")
    # Llama folders of 2023 also store the rotary frequencies, which follow from the config
    return {name: t for name, t in tensors.items() if not name.endswith("rotary_emb.inv_freq")}


def _load_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in shard_of.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index}: damaged, or has no weight_map") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):  # no path out of the folder
            raise CheckpointError(f"{index}: {name!r} is not a valid shard name")
        shard = load_tensors(folder / name)
        if odd := shard.keys() ^ {key for key, file in shard_of.items() if file == name}:
            raise CheckpointError(f"{folder / name}: {min(odd)} is missing, or not in the index")
        tensors |= shard
    return tensors


def skeleton_for(config: ModelConfig, tensors: Mapping[str, Readable], where: str) -> Transformer:
    """Build a model without memory, and compare the names and shapes of these weights with it.

    Raises:
        CheckpointError: as in `fill_weights`, or the architecture has impossible sizes.
    """
    experts = max(config.num_experts, config.num_shared_experts) if config.use_moe else 0
    try:
        if max(config.num_hidden_layers, experts) > len(tensors):
            raise OverflowError("more layers or experts than weights")
        with torch.device("meta"):
            skeleton = Transformer(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise CheckpointError(f"{where}: config.json asks for impossible sizes: {error}") from None
    check_weights(skeleton, tensors, where)
    return skeleton


def model_from_tensors(
    config: ModelConfig, tensors: Mapping[str, Readable], where: str
) -> Transformer:
    """Build a float32 model on the CPU from these weights, without initialising it first.

    Weights and architecture are compared before memory is allocated for the model.

    Raises:
        CheckpointError: as `skeleton_for`.
    """
    skeleton = skeleton_for(config, tensors, where)
    # copies: loaded tensors are views of the file, which may be truncated or replaced later
    own = {name: value[...].to(torch.float32, copy=True) for name, value in tensors.items()}
    if config.tie_word_embeddings:
        own["lm_head.weight"] = own["model.embed_tokens.weight"]
    skeleton.load_state_dict(own, assign=True)
    skeleton.tie_weights()
    skeleton.model.rotary = Rotary(
        config.head_size, context_length(config), config.rope_theta
    )  # a buffer that is in no file
    return skeleton


def named_weights(
    model: Transformer, values: Mapping[str, Tensor] | None = None, keep: bool = True
) -> dict[str, Tensor]:
    """Return the weights by name, as a model folder stores them: without a tied head.

    Where ranks keep parts of the model they are gathered, and every rank calls this.

    Args:
        values: in place of the model's own, by parameter name; this rank's parts.
        keep: whether this rank wants what is gathered.
    """
    values = values or {}
    named = {
        name: gathered(own, values.get(name, local(own)), keep)
        for name, own in stored_tensors(model).items()
    }
    if keep:
        split_stacks(named)
    return named


def fill_weights(model: Transformer, tensors: Mapping[str, Readable], where: str) -> None:
    """Copy tensors by name into the model, cast to its dtype; all names and shapes must match.

    Of a model that ranks keep parts of, each fills its own, and reads no more than that.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or has the wrong shape; the model is then
            unchanged.
    """
    expected = check_weights(model, tensors, where)
    with torch.no_grad():
        if not has_shards(model):
            for name, value in expected.items():
                value.copy_(tensors[name][...])
            return
        for name, own in stored_tensors(model).items():
            part = local(own)
            if (names := expert_names(name, range(first_row(own), own.shape[0]))) is None:
                part.copy_(part_of(tensors[name], own))
                continue
            for matrix, expert in zip(part, names, strict=False):
                matrix.copy_(tensors[expert][...])


def check_weights(
    model: Transformer, tensors: Mapping[str, Readable], where: str
) -> dict[str, Tensor]:
    """Compare names and shapes of tensors with those of the model's weights.

    Returns:
        The weights by name; without memory, where ranks keep parts of the model.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or has the wrong shape.
    """
    whole = model
    if has_shards(model):
        with torch.device("meta"):
            whole = Transformer(model.config)
    expected = named_weights(whole)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name in sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(f"{where}: weight {name} is missing")
    for name in sorted(tensors.keys() - expected.keys() - tied):
        raise CheckpointError(f"{where}: weight {name} does not belong to this architecture")
    for name, value in expected.items():
        if tensors[name].shape != value.shape:
            raise CheckpointError(
                f"{where}: weight {name} has shape {tuple(tensors[name].shape)}, "
                f"but the config requires {tuple(value.shape)}"
            )
    return expected


def stored_tensors(model: Transformer) -> dict[str, Tensor]:
    """Return parameters and those buffers that a model folder has."""
    stored = model.state_dict().keys()
    buffers = {name: value for name, value in model.named_buffers() if name in stored}
    return {name: p.detach() for name, p in model.named_parameters()} | buffers
