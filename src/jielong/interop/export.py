"""Writing a trained model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path

from jielong.checkpoint.checkpoint import find_model_folder, load_model
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, ConfigError
from jielong.interop.gguf import export_gguf, unsupported_by_llama_cpp
from jielong.interop.gguf_tokenizer import read_vocabulary
from jielong.interop.huggingface import export_hf, unsupported_by_transformers
from jielong.interop.minimind import export_minimind, unsupported_by_minimind
from jielong.tokenization.tokenizer import Tokenizer

EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # default of each format


def refusals(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, str]:
    """Return why a model cannot be exported, by format; empty if every format takes it."""
    reasons = {"hf": unsupported_by_transformers(config), "gguf": unsupported_by_llama_cpp(config)}
    reasons["minimind"] = unsupported_by_minimind(config)
    if reasons["gguf"] is None:
        try:
            read_vocabulary(tokenizer, max(config.vocab_size, tokenizer.vocab_size))
        except CheckpointError as error:
            reasons["gguf"] = str(error)
    return {name: reason for name, reason in reasons.items() if reason is not None}


def export(
    run_or_checkpoint: str | Path,
    out_dir: str | Path,
    format: str = "hf",
    dtype: str | None = None,
    license: str | None = None,
    push_to_hub: str | None = None,
) -> Path:
    """Write a model as Hugging Face folder, GGUF or MiniMind .pth: `jielong export`.

    Args:
        run_or_checkpoint: a run (its best checkpoint), a checkpoint or any model folder.
        out_dir: a new folder; it appears once it is complete.
        format: hf, gguf or minimind.
        dtype: hf: bfloat16 (default), float16, float32; gguf: f16 (default), f32, q8_0.
        license: hf: license id for the model card, such as apache-2.0.
        push_to_hub: hf: the repository "user/name" to upload the folder to.

    Returns:
        The folder, or the file.

    Raises:
        CheckpointError: there is no valid model, or the format cannot represent it.
        ConfigError: an argument is invalid, or an optional library is missing.
    """
    if format not in EXPORT_DTYPES:
        raise ConfigError(f"format {format!r} is not one of {', '.join(EXPORT_DTYPES)}")
    dtype = dtype or EXPORT_DTYPES[format]
    if format != "hf" and (license or push_to_hub):
        raise ConfigError(f"--license and --push-to-hub need --format hf, not {format}")
    if format == "minimind" and dtype != "float16":
        raise ConfigError(f"dtype={dtype}: MiniMind's files are float16")
    folder = find_model_folder(run_or_checkpoint)
    if format == "hf":
        return export_hf(folder, out_dir, dtype, license, push_to_hub)
    loaded, tokenizer = load_model(folder)
    if format == "gguf":
        return export_gguf(loaded, tokenizer, out_dir, dtype)
    return export_minimind(loaded, tokenizer, out_dir)
