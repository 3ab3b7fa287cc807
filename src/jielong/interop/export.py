"""Writing a trained model in a format that other programs read."""

from __future__ import annotations

from pathlib import Path

from jielong.checkpoint.checkpoint import find_model_folder, load_model
from jielong.errors import ConfigError
from jielong.interop.gguf import export_gguf
from jielong.interop.huggingface import export_hf
from jielong.interop.minimind import export_minimind

EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # default of each format


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
